//! What an answer says of itself: a bounded look at the top level of a JSON-RPC response. Never changes a byte.

use mcp_gateway::proto::node::v1::Outcome;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Answers up to this many bytes are looked at; what is larger is recorded as unknown.
pub const LOOK_AT: usize = 256 << 10;

#[derive(Deserialize)]
struct Answer<'a> {
    error: Option<Error>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: i64,
}

#[derive(Deserialize)]
struct Verdict {
    #[serde(default, rename = "isError")]
    is_error: bool,
}

/// Outcome and JSON-RPC error code of a response; `None` if it is none.
pub fn of(message: &[u8]) -> Option<(Outcome, i32)> {
    if message.len() > LOOK_AT {
        return Some((Outcome::Unknown, 0));
    }
    let answer: Answer<'_> = serde_json::from_slice(message).ok()?;
    if let Some(error) = answer.error {
        return Some((Outcome::Error, i32::try_from(error.code).unwrap_or(0)));
    }
    let result = answer.result?.get();
    let is_error = serde_json::from_str::<Verdict>(result).is_ok_and(|verdict| verdict.is_error);
    Some((if is_error { Outcome::Error } else { Outcome::Ok }, 0))
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::node::v1::Outcome;

    #[test]
    fn the_top_level_tells() {
        let cases = [
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, Some((Outcome::Ok, 0))),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#, Some((Outcome::Error, 0))),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"isError":true}}}"#, Some((Outcome::Ok, 0))),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"x"}}"#, Some((Outcome::Error, -32602))),
            (r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#, None),
            ("<html>", None),
        ];
        for (message, expected) in cases {
            assert_eq!(super::of(message.as_bytes()), expected, "{message}");
        }
    }
}
