//! Refusals that say that what was found out about a server does not hold any more: it was exchanged for one of another era, or put behind
//! another door. What was found out is forgotten then, and found out anew for whoever comes next; the refused message is not sent again.

use http::{StatusCode, Uri};

use super::Upstreams;
use super::era::MODERN_ERRORS;
use crate::relay::outcome;
use crate::transport::Era;

const PARSE_ERROR: i32 = -32700;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// What a server was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub url: &'a Uri,
    /// In the words of this era.
    pub era: Era,
    /// Whether it was `initialize`.
    pub opens: bool,
}

impl Upstreams {
    /// Whether the refusal says that the server speaks another era than it was spoken to in; then nothing is known of it any more.
    pub(crate) fn doubts(&self, asked: Asked<'_>, status: StatusCode, body: &[u8]) -> bool {
        let doubtful = speaks_another(asked, status, body);
        if doubtful {
            tracing::info!(server = %super::place(asked.url), %status, era = ?asked.era, "a server does not speak this era any more");
            self.0.found.forget(asked.url);
            self.0.eras.forget(asked.url);
        }
        doubtful
    }
}

fn speaks_another(asked: Asked<'_>, status: StatusCode, body: &[u8]) -> bool {
    let is_refusal = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status);
    let code = outcome::of(body).map(|answered| answered.code);
    let is_modern = code.is_some_and(|code| MODERN_ERRORS.contains(&code));
    match asked.era {
        Era::Legacy => is_modern || (asked.opens && is_refusal),
        // What servers of both eras say to what is wrong with a request says nothing about them.
        Era::Modern => is_refusal && !is_modern && !matches!(code, Some(PARSE_ERROR | METHOD_NOT_FOUND | INVALID_PARAMS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_other_era_alone_says_is_doubtful() {
        let url = Uri::from_static("http://server.test/mcp");
        let error = |code: i32| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"x"}}}}"#);
        let table = [
            // A legacy server was exchanged for a modern one.
            (Era::Legacy, true, 400, error(-32022), true),
            (Era::Legacy, true, 400, error(-32602), true),
            (Era::Legacy, true, 404, String::new(), true),
            (Era::Legacy, false, 400, error(-32020), true),
            // A session that is lost, a request that is wrong, a server that is ill or lets nobody in.
            (Era::Legacy, false, 404, String::new(), false),
            (Era::Legacy, false, 400, error(-32602), false),
            (Era::Legacy, true, 503, String::new(), false),
            (Era::Legacy, true, 401, String::new(), false),
            // A modern server was exchanged for a legacy one.
            (Era::Modern, false, 400, error(-32000), true),
            (Era::Modern, false, 400, error(-32600), true),
            (Era::Modern, false, 404, String::new(), true),
            (Era::Modern, false, 405, "no".to_owned(), true),
            // It is modern, and refuses this.
            (Era::Modern, false, 400, error(-32021), false),
            (Era::Modern, false, 404, error(-32601), false),
            (Era::Modern, false, 400, error(-32602), false),
            (Era::Modern, false, 429, String::new(), false),
        ];
        for (era, opens, status, body, expected) in table {
            let status = StatusCode::from_u16(status).unwrap();
            let found = speaks_another(Asked { url: &url, era, opens }, status, body.as_bytes());
            assert_eq!(found, expected, "{era:?} {opens} {status} {body}");
        }
    }
}
