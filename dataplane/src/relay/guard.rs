//! What of a server's message may reach this caller: lists lose what the caller may not use, questions to the client that
//! a rule denies do not arrive. Looks at a message only as far as its shape; never changes anything else. What cannot be
//! read strictly does not pass: a client may be more lenient than we are.

use bytes::Bytes;
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::{Ask, Org, Server};

use crate::lists::{self, Filtered};
use crate::pipeline::authenticate::Principal;
use crate::pipeline::denial::RelayDenial;
use crate::pipeline::route::Routed;
use crate::transport::scan::{Message, ScanError};
use crate::transport::server_message::{self, ServerMessage};

use super::outcome::{self, Answered};

/// One caller on one server.
pub struct Guard<'a> {
    pub org: &'a Org,
    pub server: &'a Server,
    pub principal: &'a Principal,
    /// The id, as the caller wrote it, of the only request that may be answered; `None`: any.
    pub request: Option<&'a str>,
}

/// What servers may ask of clients, in any version: the methods of [`Ask::ServerMethod`].
const QUESTIONS: [&str; 3] = ["sampling/createMessage", "elicitation/create", "roots/list"];
/// JSON-RPC error code for a result that asks what a rule denies: ours, like every -31000 minus an HTTP status.
const QUESTION_DENIED: i32 = -31403;

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Passage {
    AsItIs,
    Changed(Bytes),
    /// It is a request that a rule denies: the server is told, the client never hears of it.
    Withheld(Forbidden),
}

/// A message that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Examined {
    pub passage: Passage,
    /// How the message ends a call, as the client sees it, if it does.
    pub answer: Option<Answered>,
}

/// A request of a server that a rule denies.
#[derive(Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The request's id, as the server wrote it.
    pub id: String,
    pub method: String,
}

impl<'a> Guard<'a> {
    /// The sender of `call`.
    pub fn of(call: &'a Routed) -> Self {
        let request = call.call().call().message().filter(|message| message.is_request()).and_then(Message::id);
        Self { org: call.call().org(), server: call.server(), principal: call.call().principal(), request }
    }

    /// As [`Guard::of`], for what a server says when it refuses: some do so before they have read the request's id, and
    /// make one up.
    pub fn of_refused(call: &'a Routed) -> Self {
        Self { request: None, ..Self::of(call) }
    }

    /// Whether a rule denies the caller any of the servers' questions: then no answer may pass unread.
    pub fn denies_questions(&self) -> bool {
        !self.org.allows_all_questions() && QUESTIONS.iter().any(|method| !self.may(Ask::ServerMethod(method)))
    }

    /// Judges a message; lists of more than `limit` bytes are an error.
    pub fn examine(&self, message: &Bytes, limit: u64) -> Result<Examined, RelayDenial> {
        let messages = server_message::read(message).map_err(|error| self.unreadable(&error))?;
        if messages.iter().any(|message| !self.awaits(message)) {
            tracing::warn!(server = %self.server.slug, "a server answered a request that was not sent to it here");
            return Err(RelayDenial::AnotherAnswer);
        }
        let answer = outcome::among(&messages);
        let denied = messages.iter().find_map(|message| {
            let method = message.asked().find(|method| !self.may(Ask::ServerMethod(method)))?;
            Some((message, method))
        });
        let passage = match (denied, messages.len()) {
            (None, _) => return Ok(Examined { passage: self.filter(message, limit)?, answer }),
            (Some((ServerMessage::Request { id, method }, _)), 1) => {
                Passage::Withheld(Forbidden { id: (*id).to_owned(), method: method.clone().into_owned() })
            }
            (Some((ServerMessage::Result { id, .. }, method)), 1) => {
                tracing::info!(method, server = %self.server.slug, "a result asks what a policy denies");
                let error =
                    format!(r#"{{"code":{QUESTION_DENIED},"message":"A policy does not allow what the server asks for"}}"#);
                let instead = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
                return Ok(Examined {
                    passage: Passage::Changed(instead.into()),
                    answer: Some(Answered::new(Outcome::Denied, QUESTION_DENIED)),
                });
            }
            (Some(_), _) => {
                tracing::warn!(server = %self.server.slug, "a batch of a server contains a request that a policy denies");
                return Err(RelayDenial::Unreadable);
            }
        };
        Ok(Examined { passage, answer })
    }

    /// Whether the message may come: it is no answer, or answers what was asked. Errors without an id are about what a
    /// server could not read (JSON-RPC 2.0 section 5).
    fn awaits(&self, message: &ServerMessage<'_>) -> bool {
        let (ServerMessage::Result { id, .. } | ServerMessage::Error { id: Some(id), .. }) = message else { return true };
        self.request.is_none_or(|request| same_id(request, id))
    }

    fn filter(&self, message: &Bytes, limit: u64) -> Result<Passage, RelayDenial> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let filtered = lists::filter(message, most, |kind, name| match kind {
            lists::Kind::Tool => self.may(Ask::Tool(name)),
            lists::Kind::Prompt => self.may(Ask::Prompt(name)),
            lists::Kind::Resource | lists::Kind::ResourceTemplate => self.may(Ask::Resource(name)),
        });
        match filtered {
            Ok(Filtered::NotAList | Filtered::Unchanged) => Ok(Passage::AsItIs),
            Ok(Filtered::Changed { message, hidden }) => {
                tracing::trace!(hidden, "a list was filtered");
                Ok(Passage::Changed(message))
            }
            Err(lists::Error::TooLarge { .. }) => Err(RelayDenial::TooLarge { limit }),
            Err(lists::Error::Invalid(error)) => Err(self.unreadable(&error)),
        }
    }

    fn may(&self, ask: Ask<'_>) -> bool {
        self.org.judge(self.server, &self.principal.subject(), ask).allowed
    }

    fn unreadable(&self, error: &ScanError) -> RelayDenial {
        tracing::warn!(%error, server = %self.server.slug, "a message of a server cannot be read");
        RelayDenial::Unreadable
    }
}

/// Whether two ids, as written, mean the same. Servers may escape other characters than the client did, and some write
/// numbers as strings, which the SDKs of clients put up with.
fn same_id(request: &str, answer: &str) -> bool {
    if request == answer {
        return true;
    }
    let Ok(text) = serde_json::from_str::<String>(answer) else { return false };
    serde_json::from_str::<String>(request).map_or_else(|_number| request == text, |request| request == text)
}

#[cfg(test)]
mod tests {
    use super::same_id;

    #[test]
    fn ids_are_the_same_when_they_mean_the_same() {
        let cases = [
            ("1", "1", true),
            ("1", "2", false),
            ("1", "\"1\"", true),
            ("1", "\"01\"", false),
            ("1", "1.0", false),
            ("\"1\"", "1", false),
            ("\"a\"", "\"a\"", true),
            ("\"a\"", "\"b\"", false),
            ("\"a\"", "\"A\"", false),
            ("\"é/\"", r#""\u00e9\/""#, true),
            ("9007199254740993", "9007199254740992", false),
        ];
        for (request, answer, same) in cases {
            assert_eq!(same_id(request, answer), same, "{request} {answer}");
        }
    }
}
