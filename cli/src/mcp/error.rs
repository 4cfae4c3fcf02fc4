//! Every way a conversation with an MCP server can fail, in words for people.
//! Never decides what to do about it. Used by everything in `mcp`.

use http::StatusCode;
use serde_json::Value;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach {url}: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("no answer within {0} s: add --timeout")]
    TooSlow(u64),
    #[error("the answer broke off: {0}")]
    BrokeOff(String),
    #[error("HTTP {status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Http { status: StatusCode, said: String, request_id: Option<String> },
    #[error("JSON-RPC error {code}: {message}{}", detail(data))]
    Rpc { status: StatusCode, code: i64, message: String, data: Value, request_id: Option<String> },
    #[error("the tool asks for something that this client cannot give:{}", asks(requests))]
    InputRequired { requests: Value, request_id: Option<String> },
    #[error("{0}")]
    Nonsense(String),
}

impl Error {
    /// The JSON-RPC error code, if the server gave one.
    pub fn code(&self) -> Option<i64> {
        match self {
            Self::Rpc { code, .. } => Some(*code),
            Self::Unreachable { .. }
            | Self::TooSlow(_)
            | Self::BrokeOff(_)
            | Self::Http { .. }
            | Self::InputRequired { .. }
            | Self::Nonsense(_) => None,
        }
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Rpc { status, .. } | Self::Http { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::TooSlow(_) | Self::BrokeOff(_) | Self::InputRequired { .. } | Self::Nonsense(_) => {
                None
            }
        }
    }

    /// By which id the gateway recorded the request.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Rpc { request_id, .. } | Self::Http { request_id, .. } | Self::InputRequired { request_id, .. } => {
                request_id.as_deref()
            }
            Self::Unreachable { .. } | Self::TooSlow(_) | Self::BrokeOff(_) | Self::Nonsense(_) => None,
        }
    }
}

fn detail(data: &Value) -> String {
    if data.is_null() { String::new() } else { format!(" {data}") }
}

/// One line per thing asked for: its key, its method, and its message if it has one.
fn asks(requests: &Value) -> String {
    let Some(requests) = requests.as_object().filter(|it| !it.is_empty()) else {
        return " to be asked again with its requestState".into();
    };
    let lines = requests.iter().map(|(key, request)| {
        let method = request["method"].as_str().unwrap_or("something");
        let message = request["params"]["message"].as_str().unwrap_or_default();
        format!("\n  {key}: {method} {message}")
    });
    lines.map(|line| line.trim_end().to_owned()).collect()
}
