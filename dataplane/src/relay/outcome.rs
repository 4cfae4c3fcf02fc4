//! What an answer says of itself: ok, an error, or a tool that failed. Never changes a byte.

use mcp_gateway::proto::node::v1::Outcome;

use super::shape;
use crate::transport::server_message::{self, ServerMessage};

/// JSON answers up to this many bytes are looked at; what is larger is recorded as unknown, unless it has to be read.
pub const LOOK_AT: usize = 256 << 10;

/// How an answer ends its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub outcome: Outcome,
    /// JSON-RPC error code; 0: none.
    pub code: i32,
    /// What the error's message looks like, as [`shape::of`] has it; 0: there is none.
    pub shape: u64,
}

impl Answered {
    /// Without a message of an error.
    pub const fn new(outcome: Outcome, code: i32) -> Self {
        Self { outcome, code, shape: 0 }
    }
}

/// What a message says; `None` if it is no response.
pub fn of(message: &[u8]) -> Option<Answered> {
    among(&server_message::read(message).ok()?)
}

/// What the first response among `messages` says.
pub fn among(messages: &[ServerMessage<'_>]) -> Option<Answered> {
    messages.iter().find_map(|message| match message {
        ServerMessage::Error { code, words, .. } => {
            Some(Answered { outcome: Outcome::Error, code: *code, shape: words.map_or(0, shape::of) })
        }
        ServerMessage::Result { facts, .. } if facts.is_error => {
            Some(Answered { outcome: Outcome::Error, code: 0, shape: facts.content.map_or(0, shape::of) })
        }
        ServerMessage::Result { .. } => Some(Answered::new(Outcome::Ok, 0)),
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
            let found = super::of(message.as_bytes()).map(|answered| (answered.outcome, answered.code));
            assert_eq!(found, expected, "{message}");
        }
    }

    #[test]
    fn errors_alike_have_one_shape_and_answers_without_one_have_none() {
        let shape = |message: &str| super::of(message.as_bytes()).unwrap().shape;
        let error = |words: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-1,"message":"{words}"}}}}"#);
        let failed = |text: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}],"isError":true}}}}"#)
        };
        assert_eq!(shape(&error("no row 17")), shape(&error("no row 4")));
        assert_ne!(shape(&error("no row 17")), shape(&error("no table 17")));
        assert_eq!(shape(&failed("took 3 s")), shape(&failed("took 40 s")));
        assert_ne!(shape(&failed("took 3 s")), shape(&failed("refused")));
        for without in [r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1}}"#, r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#]
        {
            assert_eq!(shape(without), 0);
        }
    }
}
