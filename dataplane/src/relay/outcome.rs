//! What an answer says of itself: ok, an error, or a tool that failed. Never changes a byte.

use mcp_gateway::proto::node::v1::Outcome;

use crate::transport::server_message::{self, ServerMessage};

/// JSON answers up to this many bytes are looked at; what is larger is recorded as unknown, unless it has to be read.
pub const LOOK_AT: usize = 256 << 10;

/// Outcome and JSON-RPC error code of a message; `None` if it is no response.
pub fn of(message: &[u8]) -> Option<(Outcome, i32)> {
    among(&server_message::read(message).ok()?)
}

/// Outcome and JSON-RPC error code of the first response among `messages`.
pub fn among(messages: &[ServerMessage<'_>]) -> Option<(Outcome, i32)> {
    messages.iter().find_map(|message| match message {
        ServerMessage::Error { code, .. } => Some((Outcome::Error, *code)),
        ServerMessage::Result { facts, .. } if facts.is_error => Some((Outcome::Error, 0)),
        ServerMessage::Result { .. } => Some((Outcome::Ok, 0)),
        ServerMessage::Request { .. } | ServerMessage::Notification { .. } => None,
    })
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
