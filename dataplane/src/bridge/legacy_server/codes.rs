//! Error codes: what a legacy server's mean to a modern client, and the HTTP status that goes with them where one does.

use http::StatusCode;

/// Up to 2025-11-25: no such resource. Modern servers must not say it.
const RESOURCE_NOT_FOUND: i32 = -32002;
const INVALID_PARAMS: i32 = -32602;
const METHOD_NOT_FOUND: i32 = -32601;
/// 2025-11-25: the client has to open a URL first. Modern servers must not say it.
pub const URL_ELICITATION_REQUIRED: i32 = -32042;
/// 2026-07-28: the client declares too little.
pub const MISSING_CAPABILITY: i32 = -32021;

/// The modern code for a legacy one.
pub fn modern(code: i32) -> i32 {
    if code == RESOURCE_NOT_FOUND { INVALID_PARAMS } else { code }
}

/// The status of an answer with this code; 0: a result (2026-07-28, Streamable HTTP).
pub fn status(code: i32) -> StatusCode {
    match code {
        METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        MISSING_CAPABILITY => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_modern_servers_must_not_say_is_said_otherwise() {
        assert_eq!([-32002, -32601, -32602, -1, 0].map(modern), [-32602, -32601, -32602, -1, 0]);
        assert_eq!([-32601, -32021, -32602, 0].map(|code| status(code).as_u16()), [404, 400, 200, 200]);
    }
}
