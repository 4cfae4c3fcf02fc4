//! What the server says: answers find their requests and lose what only the modern era knows.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Value, json};

use super::calls::{Call, Exchange};
use super::{Bridge, Over, asks, opening};
use crate::owned::{number, splice};
use crate::transport::scan::Span;
use crate::transport::server_message::{self, ServerMessage};

/// What no client of before knows (2026-07-28, error codes reserved to the specification), from and to.
const MODERN_CODES: std::ops::RangeInclusive<i32> = -32099..=-32020;
const HEADER_MISMATCH: i32 = -32020;
const MISSING_CAPABILITY: i32 = -32021;
const UNSUPPORTED_VERSION: i32 = -32022;
const INVALID_PARAMS: i32 = -32602;
/// What -32602 about a resource that is not there was before.
const RESOURCE_NOT_FOUND: i32 = -32002;

/// What becomes of an answer.
enum Answer {
    /// It is one, once it has the session's number for an id.
    Complete(Span),
    InputRequired,
    /// It will come later.
    Task,
    Error {
        id: Option<Span>,
        code: i32,
    },
    Unknown(String),
}

impl Bridge {
    pub(super) async fn heard(&mut self, message: &Bytes, about: Option<u64>) -> Result<(), Over> {
        let read = server_message::read(message);
        let (upstream, answer) = match read.as_ref().map(|read| read.as_slice()) {
            Ok([ServerMessage::Result { id, facts }]) => {
                let answer = match facts.result_type.as_deref() {
                    None | Some("complete") => Answer::Complete(place(message, id)),
                    Some("input_required") => Answer::InputRequired,
                    Some("task") => Answer::Task,
                    Some(other) => Answer::Unknown(other.to_owned()),
                };
                (number(id), answer)
            }
            Ok([ServerMessage::Error { id, code, .. }]) => {
                (id.map_or(about, number), Answer::Error { id: id.map(|id| place(message, id)), code: *code })
            }
            Ok([ServerMessage::Notification { method }]) => {
                let method = method.clone().into_owned();
                return self.news(message, &method, about).await;
            }
            Ok([ServerMessage::Request { .. }]) => {
                tracing::warn!(server = self.slug(), "a server of the modern era sends requests; one was dropped");
                return Ok(());
            }
            Ok(_) | Err(_) => {
                tracing::warn!(server = self.slug(), "a message of a server cannot be read");
                return match about {
                    Some(upstream) => self.unanswered(upstream, true, "its answer cannot be read".into()).await,
                    None => Ok(()),
                };
            }
        };
        let Some(exchange) = upstream.and_then(|upstream| self.exchanges.remove(&upstream)) else { return Ok(()) };
        match exchange {
            Exchange::Opening { number, again } => self.opened(message, number, &answer, again).await,
            Exchange::Learning => self.learned(message, matches!(answer, Answer::Complete(_))).await,
            Exchange::Listen => self.listened().await,
            Exchange::Call(call) => self.ended(message, *call, answer).await,
            Exchange::Task(call) => match answer {
                Answer::Error { id, code } => self.answer(error(message, &call, id, code), Some(call.number)).await,
                _ => self.looked(message, *call).await,
            },
            Exchange::Updated(call) => match answer {
                Answer::Error { id, code } => self.answer(error(message, &call, id, code), Some(call.number)).await,
                _ => {
                    self.look_again(*call);
                    Ok(())
                }
            },
            Exchange::Farewell => Ok(()),
        }
    }

    async fn opened(&mut self, message: &Bytes, number: u64, answer: &Answer, again: bool) -> Result<(), Over> {
        let Some(client) = &self.client else { return Err(Over) };
        if let Answer::Complete(_) = answer
            && let Some((opened, offer)) = opening::initialized(message, number, client, self.slug())
        {
            self.offer = offer;
            return self.answer(opened, Some(number)).await;
        }
        // A server that refuses a version says which it supports, and is asked once more if this is one of them.
        if let (Answer::Error { code: UNSUPPORTED_VERSION, .. }, false) = (answer, again)
            && opening::supports_ours(message)
        {
            self.ask_what_is_offered(number, true);
            return Ok(());
        }
        tracing::warn!(server = self.slug(), "a server does not say what it offers");
        self.error(number, -32603, "The server does not say what it offers").await
    }

    async fn ended(&mut self, message: &Bytes, call: Call, answer: Answer) -> Result<(), Over> {
        match answer {
            Answer::Complete(id) => {
                let page = asks(&call.message, "tools/list").then(|| self.seen(message)).flatten();
                if let Some(mut page) = page {
                    page["id"] = call.number.into();
                    return self.answer(page.to_string().into(), Some(call.number)).await;
                }
                let digits = call.number.to_string();
                self.answer(splice::splice(message, &[(id, &digits)]), Some(call.number)).await
            }
            Answer::InputRequired => self.input_required(message, call).await,
            Answer::Task => self.became_task(message, call).await,
            Answer::Error { code: MISSING_CAPABILITY, .. } if self.wants_tasks(message, &call) => {
                // It was refused, so that it has not run.
                self.forward(Call { declares_tasks: true, ..call }, None);
                Ok(())
            }
            Answer::Error { code: HEADER_MISMATCH, .. } if !call.listed && asks(&call.message, "tools/call") => {
                // Its tools are not what they were: look again, once.
                self.mirrors.known = None;
                self.forward(Call { listed: true, ..call }, None);
                Ok(())
            }
            Answer::Error { id, code } => {
                let answer = error(message, &call, id, code);
                self.answer(answer, Some(call.number)).await
            }
            Answer::Unknown(kind) => {
                tracing::warn!(server = self.slug(), kind, "a server answers with a result of a kind that was not declared");
                self.error(call.number, -32603, "The server answered with a kind of result that this client does not know").await
            }
        }
    }

    /// A page of tools on its way to the client; changed, if some of them must not be seen.
    fn seen(&mut self, page: &Bytes) -> Option<Value> {
        if !self.setting.has_headers {
            return None;
        }
        let mut mirrors = self.mirrors.known.as_deref().cloned().unwrap_or_default();
        let changed = mirrors.learn(page);
        // Only what is known already is kept up: one page is not the list.
        if self.mirrors.known.is_some() {
            self.keep(mirrors);
        }
        changed
    }

    fn keep(&mut self, mirrors: super::Mirrors) {
        let mirrors = std::sync::Arc::new(mirrors);
        self.setting.known.set(&self.setting.server.id, mirrors.clone());
        self.mirrors.known = Some(mirrors);
    }

    /// A page of tools that the bridge asked for.
    async fn learned(&mut self, page: &Bytes, complete: bool) -> Result<(), Over> {
        let mut learning = self.mirrors.learning.take().unwrap_or_default();
        let next = complete.then(|| {
            learning.learn(page);
            cursor(page)
        });
        if let Some(next) = next.flatten() {
            self.mirrors.learning = Some(learning);
            self.learn(Some(&next));
            return Ok(());
        }
        // A server that does not list its tools may still have them called.
        self.keep(learning);
        for call in std::mem::take(&mut self.mirrors.held) {
            self.forward(call, None);
        }
        Ok(())
    }

    pub(super) async fn unanswered(&mut self, upstream: u64, begun: bool, why: String) -> Result<(), Over> {
        use crate::upstream::link::FromServer::Unanswered;
        let request = match self.exchanges.remove(&upstream) {
            None => return Ok(()),
            Some(Exchange::Listen) => return self.listened().await,
            Some(Exchange::Learning) => return self.learned(&Bytes::new(), false).await,
            Some(Exchange::Opening { number, .. }) => number,
            Some(Exchange::Call(call)) => call.number,
            Some(Exchange::Farewell) => return Ok(()),
            // To look does nothing: it can be done again, until the session's patience ends.
            Some(Exchange::Task(call)) => {
                self.look_again(*call);
                return Ok(());
            }
            Some(Exchange::Updated(call)) => call.number,
        };
        self.ends.from.send(Unanswered { request, begun, why }).await.map_err(|_gone| Over)
    }

    /// What answers no request: progress and log messages on their way, changes without what only a modern client would know.
    async fn news(&mut self, message: &Bytes, method: &str, about: Option<u64>) -> Result<(), Over> {
        let about = about.and_then(|upstream| match self.exchanges.get(&upstream) {
            Some(Exchange::Call(call)) => Some(call.number),
            Some(_) | None => None,
        });
        match method {
            "notifications/subscriptions/acknowledged" => self.acknowledged(message).await,
            "notifications/cancelled" => self.hung_up(message).await,
            "notifications/tools/list_changed" => {
                self.mirrors.known = None;
                self.answer(without_subscription(message), None).await
            }
            "notifications/prompts/list_changed" | "notifications/resources/list_changed" | "notifications/resources/updated" => {
                self.answer(without_subscription(message), None).await
            }
            _ => self.answer(message.clone(), about).await,
        }
    }
}

/// Where the text of a message is that was read out of it.
fn place(message: &Bytes, part: &str) -> Span {
    let start = part.as_ptr() as usize - message.as_ptr() as usize;
    Span::new(start, start + part.len())
}

/// An error as every version knows it.
fn error(message: &Bytes, call: &Call, id: Option<Span>, code: i32) -> Bytes {
    let digits = call.number.to_string();
    let is_missing = || code == INVALID_PARAMS && asks(&call.message, "resources/read") && data(message).get("uri").is_some();
    if let (Some(id), false, false) = (id, MODERN_CODES.contains(&code), is_missing()) {
        return splice::splice(message, &[(id, &digits)]);
    }
    let mut answer: Value = serde_json::from_slice(message).unwrap_or_else(|_| json!({ "jsonrpc": "2.0" }));
    answer["id"] = call.number.into();
    if is_missing() {
        answer["error"]["code"] = RESOURCE_NOT_FOUND.into();
    } else if MODERN_CODES.contains(&code) {
        let said = answer["error"].take();
        let words: Cow<'_, str> = said["message"].as_str().map_or("the server refused the request".into(), Into::into);
        answer["error"] = json!({
            "code": -32603,
            "message": format!("The server speaks a later version of the protocol and said: {words}"),
            "data": { "original": said },
        });
    }
    answer.to_string().into()
}

fn data(message: &Bytes) -> Value {
    let mut answer: Value = serde_json::from_slice(message).unwrap_or_default();
    answer["error"]["data"].take()
}

fn cursor(page: &Bytes) -> Option<String> {
    let page: Value = serde_json::from_slice(page).ok()?;
    page.get("result")?.get("nextCursor").filter(|cursor| cursor.is_string()).map(Value::to_string)
}

/// A notification without the id of the stream that it came on.
fn without_subscription(message: &Bytes) -> Bytes {
    const KEY: &str = "io.modelcontextprotocol/subscriptionId";
    let Ok(mut changed) = serde_json::from_slice::<Value>(message) else { return message.clone() };
    let Some(params) = changed.get_mut("params").and_then(Value::as_object_mut) else { return message.clone() };
    if let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.remove(KEY);
        if meta.is_empty() {
            params.remove("_meta");
        }
    }
    changed.to_string().into()
}
