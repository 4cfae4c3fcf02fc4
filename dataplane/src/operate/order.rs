//! The orders there are: paths and methods, who may give them, and what their bodies have to be. Pure.

use http::Method;
use http::request::Parts;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::local::{Kind, Question};
use crate::owned::stream::EventId;
use crate::pipeline::denial::OperateDenial;
use crate::transport::header::LAST_EVENT_ID;
use crate::transport::{message, scan};

/// An order, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Status(Kind),
    Broadcast(Kind),
    Replay(Uuid),
    Send,
    Ping,
    Close,
    /// Processes of stdio servers.
    Processes,
    StopProcess,
    /// A notification into a process.
    Tell,
    /// What processes of a server wrote beside messages.
    Logs,
    /// One request to a server in a process of its own.
    Execute,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfProcess {
    process: Uuid,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    message: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Addressed {
    session: Uuid,
    #[serde(default)]
    message: Option<Box<RawValue>>,
}

impl Order {
    /// The order of a path and a method; of a path that has others, those.
    pub fn of(path: &str, method: &Method) -> Option<Result<Self, &'static str>> {
        let (order, wanted, allow) = match (path, method) {
            ("/sse/status", _) => (Self::Status(Kind::Events), Method::GET, "GET"),
            ("/ws/status", _) => (Self::Status(Kind::Sockets), Method::GET, "GET"),
            ("/sse/broadcast", _) => (Self::Broadcast(Kind::Events), Method::POST, "POST"),
            ("/ws/broadcast", _) => (Self::Broadcast(Kind::Sockets), Method::POST, "POST"),
            ("/ws/send", _) => (Self::Send, Method::POST, "POST"),
            ("/ws/ping", _) => (Self::Ping, Method::POST, "POST"),
            ("/ws/close", _) => (Self::Close, Method::DELETE, "DELETE"),
            ("/stdio/process", &Method::GET) => (Self::Processes, Method::GET, "GET, POST"),
            ("/stdio/process", _) => (Self::StopProcess, Method::POST, "GET, POST"),
            ("/stdio/send", _) => (Self::Tell, Method::POST, "POST"),
            ("/stdio/logs", _) => (Self::Logs, Method::GET, "GET"),
            ("/stdio/execute", _) => (Self::Execute, Method::POST, "POST"),
            _ => {
                let id = path.strip_prefix("/sse/replay/")?;
                let id = Uuid::try_parse(id).ok().filter(|found| found.to_string() == id)?;
                (Self::Replay(id), Method::GET, "GET")
            }
        };
        Some(if *method == wanted { Ok(order) } else { Err(allow) })
    }

    /// As in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status(Kind::Events) => "sse/status",
            Self::Status(Kind::Sockets) => "ws/status",
            Self::Broadcast(Kind::Events) => "sse/broadcast",
            Self::Broadcast(Kind::Sockets) => "ws/broadcast",
            Self::Replay(_) => "sse/replay",
            Self::Send => "ws/send",
            Self::Ping => "ws/ping",
            Self::Close => "ws/close",
            Self::Processes | Self::StopProcess => "stdio/process",
            Self::Tell => "stdio/send",
            Self::Logs => "stdio/logs",
            Self::Execute => "stdio/execute",
        }
    }

    /// Everybody may see what is their own.
    pub fn is_for_operators(self) -> bool {
        match self {
            Self::Status(_) | Self::Replay(_) | Self::Execute => false,
            Self::Broadcast(_) | Self::Send | Self::Ping | Self::Close => true,
            Self::Processes | Self::StopProcess | Self::Tell | Self::Logs => true,
        }
    }

    /// What all nodes are asked. `of`: only what is this subject's.
    pub fn question(self, org: &str, of: Option<String>, head: &Parts, body: &bytes::Bytes) -> Result<Question, OperateDenial> {
        let org = org.to_owned();
        Ok(match self {
            Self::Status(kind) => Question::Status { org, kind, subject: of },
            Self::Broadcast(kind) => Question::Broadcast { org, kind, message: notification(body)? },
            Self::Replay(session) => {
                let header = head.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
                let after = match header.or_else(|| parameter(head, "after")) {
                    Some(text) => {
                        Some(EventId::parse(text).ok_or(OperateDenial::Bad("Last-Event-ID (or `after`) names no event"))?)
                    }
                    None => None,
                };
                Question::Replay { org, session, after: after.map(|after| after.to_string()), subject: of.unwrap_or_default() }
            }
            Self::Send => {
                let Addressed { session, message } = addressed(body)?;
                let message = message.ok_or(OperateDenial::Bad("the body has to have `session` and `message`"))?;
                Question::Send { org, session, message: notification(&message.get().to_owned().into())? }
            }
            Self::Ping => Question::Ping { org, session: addressed(body)?.session },
            Self::Processes => Question::Processes { org },
            Self::StopProcess => {
                let OfProcess { process, action, message } = of_process(body)?;
                match (action.as_deref(), message) {
                    (Some("stop"), None) => Question::StopProcess { org, process },
                    (Some("restart"), None) => Question::RestartProcess { org, process },
                    (_, _) => {
                        return Err(OperateDenial::Bad(
                            "the body has to be {\"action\": \"stop\" or \"restart\", \"process\": \"<id>\"}",
                        ));
                    }
                }
            }
            Self::Tell => {
                let OfProcess { process, action, message } = of_process(body)?;
                let (None, Some(message)) = (action, message) else {
                    return Err(OperateDenial::Bad("the body has to be {\"process\": \"<id>\", \"message\": {...}}"));
                };
                Question::Tell { org, process, message: notification(&message.get().to_owned().into())? }
            }
            Self::Logs => {
                let server = parameter(head, "server").ok_or(OperateDenial::Bad("`?server=` has to name a server"))?.to_owned();
                Question::Logs { org, server }
            }
            // Asks nobody else.
            Self::Execute => return Err(OperateDenial::NotFound("order")),
            Self::Close => {
                let session = match parameter(head, "session") {
                    Some(text) => {
                        Uuid::try_parse(text).map_err(|_not_an_id| OperateDenial::Bad("`session` is not the id of a session"))?
                    }
                    None => addressed(body)?.session,
                };
                Question::Close { org, session }
            }
        })
    }
}

fn addressed(body: &bytes::Bytes) -> Result<Addressed, OperateDenial> {
    serde_json::from_slice(body).map_err(|_invalid| OperateDenial::Bad("the body has to be JSON: {\"session\": \"<id>\", ...}"))
}

fn of_process(body: &bytes::Bytes) -> Result<OfProcess, OperateDenial> {
    serde_json::from_slice(body).map_err(|_invalid| OperateDenial::Bad("the body has to be JSON: {\"process\": \"<id>\", ...}"))
}

pub(super) fn parameter<'h>(head: &'h Parts, name: &str) -> Option<&'h str> {
    head.uri.query()?.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

/// What may be said to clients: a notification of a server's.
fn notification(body: &bytes::Bytes) -> Result<Box<RawValue>, OperateDenial> {
    const WANTED: OperateDenial =
        OperateDenial::Bad("the message has to be one JSON-RPC notification whose method begins with `notifications/`");
    let found = message(body, &scan::Limits::default()).map_err(|_refused| WANTED)?;
    let is_one =
        found.kind() == scan::Kind::Notification && found.method().is_some_and(|method| method.starts_with("notifications/"));
    if !is_one {
        return Err(WANTED);
    }
    let text = String::from_utf8(found.bytes().to_vec()).map_err(|_not_utf8| WANTED)?;
    RawValue::from_string(text).map_err(|_invalid| WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_notifications_of_servers_may_be_said() {
        assert!(notification(&r#" {"jsonrpc":"2.0","method":"notifications/message","params":{}} "#.into()).is_ok());
        for bad in [
            r#"{"jsonrpc":"2.0","id":1,"method":"notifications/message"}"#,
            r#"{"jsonrpc":"2.0","method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"[{"jsonrpc":"2.0","method":"notifications/message"}]"#,
            "hello",
            "",
        ] {
            assert!(notification(&bad.into()).is_err(), "{bad}");
        }
    }
}
