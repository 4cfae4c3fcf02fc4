//! What the server says, and where it goes: answers to their calls, progress to the call that it is about, questions and news to a stream
//! that somebody reads. Filtered by the caller's rules as they are now.

use bytes::Bytes;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::actor::{Actor, MOST_QUESTIONS, STANDING, error};
use super::calls::Call;
use super::splice::{at, number, places, splice};
use super::stream::{End, Outgoing};
use crate::bridge::legacy_server::Greeting;
use crate::relay::guard::{Examined, Guard, Passage};

use crate::transport::Version;
use crate::transport::server_message::{self, ServerMessage};
use crate::upstream::link::{FromServer, Kind};

/// JSON-RPC: what plain services answer to `initialize`.
const METHOD_NOT_FOUND: i32 = -32601;
/// 2025-11-25: the client has to open a URL first. Older clients know no such code.
const URL_ELICITATION_REQUIRED: i32 = -32042;
pub(super) const UNREADABLE: &str = "The server's answer cannot be passed on";

/// What a message turned out to be.
enum Said {
    Answer {
        number: u64,
        id: Option<Box<str>>,
        version: Option<Version>,
        code: i32,
    },
    Question {
        id: Box<str>,
        method: Box<str>,
    },
    News {
        method: Box<str>,
    },
    /// It cannot be read, or is about nothing that is known.
    Nothing(&'static str),
}

impl Actor {
    pub(super) async fn hear(&mut self, heard: Option<FromServer>) -> Result<(), End> {
        match heard {
            Some(FromServer::Message { message, about }) => self.messages(&message, about),
            Some(FromServer::Unanswered { request, begun, why }) => self.unanswered(request, begun, &why),
            Some(FromServer::Down { why }) => return self.server_lost(&why).await,
            None => return self.server_lost("it is not there any more").await,
        }
        Ok(())
    }

    fn unanswered(&mut self, request: u64, begun: bool, why: &str) {
        let Some(call) = self.calls.remove(request) else { return };
        tracing::warn!(server = %self.way.server.slug, why, "a server did not answer a request");
        if call.initialize {
            self.not_opened();
        }
        let words = if begun {
            "The server broke off before it answered; the call may have had effects"
        } else {
            "The server did not take the request"
        };
        self.fail(call, words);
    }

    /// One message, or several at once (2025-03-26).
    fn messages(&mut self, payload: &Bytes, about: Option<u64>) {
        if payload.trim_ascii_start().first() != Some(&b'[') {
            return self.message(payload, about);
        }
        let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(payload) else {
            tracing::warn!(server = %self.way.server.slug, "a batch of a server cannot be read");
            return;
        };
        let elements: Vec<Bytes> = elements.into_iter().map(|element| payload.slice_ref(element.get().as_bytes())).collect();
        elements.iter().for_each(|element| self.message(element, about));
    }

    fn message(&mut self, message: &Bytes, about: Option<u64>) {
        match said(message, about) {
            Said::Answer { number, id, version, code } => self.answered(message, number, id.as_deref(), (version, code)),
            Said::Question { id, method } => self.asked(message, id, &method, about),
            Said::News { method } => self.told(message, &method, about),
            Said::Nothing(why) => {
                tracing::warn!(server = %self.way.server.slug, why, "a message of a server was dropped");
                if let Some(call) = about.and_then(|number| self.calls.remove(number)) {
                    self.fail(call, UNREADABLE);
                }
            }
        }
    }

    fn answered(&mut self, message: &Bytes, number: u64, id: Option<&str>, (version, code): (Option<Version>, i32)) {
        let Some(call) = self.calls.remove(number) else {
            tracing::debug!(server = %self.way.server.slug, "an answer to no request of this session was dropped");
            return;
        };
        let Ok(Examined { passage, answer: Some(answer) }) = self.guard(id).examine(message, self.around.limits.list_bytes)
        else {
            return self.fail(call, UNREADABLE);
        };
        let passed = match passage {
            Passage::AsItIs => message.clone(),
            Passage::Changed(message) => message,
            // A question is no answer.
            Passage::Withheld(_) => return self.fail(call, UNREADABLE),
        };
        if call.initialize {
            self.opened(&passed, version, call.record.is_none() && code == METHOD_NOT_FOUND);
        }
        if call.crossing.is_some() {
            return self.answered_across(number, call, &passed, answer);
        }
        let passed = match self.facts.version.get() {
            Some(known) if code == URL_ELICITATION_REQUIRED && *known < Version::V2025_11_25 => {
                error(&call.id, -32603, "The server asks to open a URL first, which this version of the protocol cannot say")
            }
            Some(_) | None => match readdressed(&passed, &call, self.passes_untouched()) {
                Some(passed) => passed,
                None => return self.fail(call, UNREADABLE),
            },
        };
        if self.passes_untouched() {
            return self.finish_across(call, passed, answer);
        }
        let stream = call.stream;
        let recorded = call.end(answer, &passed);
        self.deliver(stream, Outgoing::answer(passed, recorded));
        self.close(stream);
    }

    /// The server does not open a session: it may be another one than it was, and is asked anew.
    fn not_opened(&mut self) {
        self.around.reach.eras.forget(&self.way.server);
        (self.opening, self.link) = (None, None);
    }

    /// The server answered `initialize`; `is_service`: it does not know what that is, and the gateway goes on without.
    fn opened(&mut self, message: &Bytes, version: Option<Version>, is_service: bool) {
        let Some(version) = version else {
            if !is_service {
                self.not_opened();
            }
            return;
        };
        // The first agreement holds for the client, whatever a later server says.
        let first = self.facts.version.set(version).is_ok();
        if let Some(greeting) = Some(message).filter(|_| first && self.manners.modern.is_some()).and_then(|it| Greeting::read(it))
        {
            drop(self.facts.greeting.set(greeting));
        }
    }

    fn asked(&mut self, message: &Bytes, id: Box<str>, method: &str, about: Option<u64>) {
        if method == "ping" {
            return self.say_to_server(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into(), Kind::Other);
        }
        let passage = self.guard(None).examine(message, self.around.limits.list_bytes).map(|examined| examined.passage);
        let refusal = match passage {
            Ok(Passage::AsItIs) if self.manners.modern.is_some() => return self.asked_across(message, id, method),
            Ok(Passage::AsItIs) if !self.manners.listens => "The client cannot be asked over this transport",
            Ok(Passage::AsItIs) if self.questions.len() >= MOST_QUESTIONS => "Too many questions are open",
            Ok(Passage::AsItIs) => {
                let stream = self.stream_for_question(about);
                self.calls.extend(Instant::now() + self.patience());
                self.questions.insert(id, stream);
                return self.deliver(stream, Outgoing::said(message.clone()));
            }
            Ok(Passage::Changed(_)) | Err(_) => "The request cannot be read",
            Ok(Passage::Withheld(_)) => {
                tracing::info!(method, "a request of a server was refused by policy");
                "Method not allowed by policy"
            }
        };
        self.say_to_server(error(&id, -32601, refusal), Kind::Other);
    }

    fn told(&mut self, message: &Bytes, method: &str, about: Option<u64>) {
        let parts = std::str::from_utf8(message).ok().and_then(|text| places(text).ok()).unwrap_or_default();
        match method {
            "notifications/progress" => {
                let Some(span) = parts.progress_token else { return };
                let Some(call) = at(message, Some(span)).and_then(number).and_then(|number| self.calls.get_mut(number)) else {
                    return;
                };
                call.deadline = call.deadline.max(Instant::now() + self.way.server.call_timeout);
                let Some(token) = &call.token else { return };
                let restored = splice(message, &[(span, token)]);
                (call.events, call.bytes) = (call.events + 1, call.bytes + restored.len() as u64);
                let stream = call.stream;
                self.news(stream, restored);
            }
            _ if self.passes_untouched() => self.told_untouched(message, about, parts.subscription),
            "notifications/cancelled" if self.manners.modern.is_some() => {
                if let Some(id) = at(message, parts.request_id) {
                    self.unasked(id);
                }
            }
            "notifications/cancelled" => {
                let Some(stream) = at(message, parts.request_id).and_then(|id| self.questions.remove(id)) else { return };
                self.news(stream, message.clone());
            }
            "notifications/message" if self.manners.modern.is_some() => self.told_across(message, about),
            _ if self.manners.modern.is_some() => self.tell_listeners(message, method),
            _ => {
                let stream = self.stream_for_news(about);
                self.news(stream, message.clone());
            }
        }
    }

    pub(super) fn news(&mut self, stream: u32, message: Bytes) {
        if self.manners.listens {
            self.deliver(stream, Outgoing::said(message));
        }
    }

    /// Questions belong to a call: on its stream, the client answers them while it waits.
    fn stream_for_question(&mut self, about: Option<u64>) -> u32 {
        let own = about.and_then(|number| self.calls.get_mut(number)).map(|call| call.stream);
        let youngest = || self.calls.youngest().map(|call| call.stream);
        own.or_else(youngest).filter(|stream| self.has_reader(*stream)).unwrap_or(STANDING)
    }

    /// What is about no call goes to whoever listens, and to the youngest call's stream where nobody does.
    fn stream_for_news(&mut self, about: Option<u64>) -> u32 {
        if let Some(call) = about.and_then(|number| self.calls.get_mut(number)) {
            return call.stream;
        }
        if self.has_reader(STANDING) {
            return STANDING;
        }
        let youngest = self.calls.youngest().map(|call| call.stream);
        youngest.filter(|stream| self.has_reader(*stream)).unwrap_or(STANDING)
    }

    fn guard<'a>(&'a self, request: Option<&'a str>) -> Guard<'a> {
        let standing = &self.standing;
        Guard { org: standing.org(), server: standing.server(), principal: standing.principal(), request }
    }
}

/// What a message is; `about` is the request on whose stream it came.
fn said(message: &[u8], about: Option<u64>) -> Said {
    let Ok(read) = server_message::read(message) else { return Said::Nothing("it cannot be read strictly") };
    match read.first() {
        Some(ServerMessage::Result { id, facts }) => match number(id) {
            Some(number) => {
                let version = facts.protocol_version.as_deref().and_then(Version::parse);
                Said::Answer { number, id: Some((*id).into()), version, code: 0 }
            }
            None => Said::Nothing("it answers what was not asked"),
        },
        Some(ServerMessage::Error { id, code, .. }) => match id.map_or(about, number) {
            Some(number) => Said::Answer { number, id: id.map(Box::from), version: None, code: *code },
            None => Said::Nothing("it is an error about nothing that was asked"),
        },
        Some(ServerMessage::Request { id, method }) => Said::Question { id: (*id).into(), method: method.as_ref().into() },
        Some(ServerMessage::Notification { method }) => Said::News { method: method.as_ref().into() },
        None => Said::Nothing("it is empty"),
    }
}

/// The message with the id that the client gave the request; `untouched`: also where it names the stream that the request opened.
fn readdressed(message: &Bytes, call: &Call, untouched: bool) -> Option<Bytes> {
    let text = std::str::from_utf8(message).ok()?;
    let places = places(text).ok()?;
    if let Some(span) = places.id {
        let subscription = places.subscription.filter(|_| untouched);
        let mut spans: Vec<_> = [Some(span), subscription].into_iter().flatten().map(|span| (span, &*call.id)).collect();
        spans.sort_unstable_by_key(|(span, _)| span.start);
        return Some(splice(message, &spans));
    }
    // An error without an id: the client would not know what it is about.
    let open = text.find('{')?;
    Some(format!(r#"{{"id":{},{}"#, call.id, &text[open + 1..]).into())
}
