//! Requests of modern clients in a session with a legacy server: their answers in modern words, and of what the server says besides only what
//! a modern client may hear on the stream of its request.

use bytes::Bytes;
use mcp_gateway::proto::node::v1::Outcome;

use super::actor::Actor;
use super::calls::Call;
use super::hear::UNREADABLE;
use super::stream::Outgoing;
use crate::bridge::legacy_server::result::{self, Dress};
use crate::bridge::legacy_server::{Greeting, Level, codes, notice};
use crate::relay::outcome::Answered;
use crate::transport::scan::Message;

/// What a modern client's request needs beside what every call has.
pub(super) struct Crossing {
    /// What was asked.
    message: Box<Message>,
}

impl Crossing {
    pub fn new(message: Box<Message>) -> Box<Self> {
        Box::new(Self { message })
    }
}

impl Actor {
    /// The server answered a modern client's request.
    pub(super) fn answered_across(&mut self, call: Call, message: &Bytes, answer: Answered) {
        let answer = Answered { code: codes::modern(answer.code), ..answer };
        let translated = {
            let method = call.crossing.as_ref().and_then(|crossing| crossing.message.method()).unwrap_or_default();
            let server_info = self.facts.greeting.get().and_then(Greeting::server_info);
            result::translated(message, &Dress { id: &call.id, method, server_info })
        };
        match translated {
            Some(translated) => self.finish_across(call, translated, answer),
            None => self.fail(call, UNREADABLE),
        }
    }

    /// Answers a modern client's request.
    fn finish_across(&mut self, mut call: Call, message: Bytes, answer: Answered) {
        if let Some((trail, _)) = call.record.as_deref_mut().filter(|_| call.events == 0) {
            trail.status(codes::status(answer.code));
        }
        let stream = call.stream;
        let recorded = call.end(answer, &message);
        let code = if answer.outcome == Outcome::Ok { 0 } else { answer.code };
        self.deliver(stream, Outgoing { code, ..Outgoing::answer(message, recorded) });
        self.close(stream);
    }

    /// The server says something that a modern client hears on the stream of a request, if at all: log messages, as it asked for them.
    pub(super) fn told_across(&mut self, message: &Bytes, about: Option<u64>) {
        let Some(least) = self.manners.modern.and_then(|persona| persona.level) else { return };
        if notice::level(message).is_none_or(|level: Level| level < least) {
            return;
        }
        let own = about.and_then(|number| self.calls.get_mut(number)).map(|call| call.stream);
        let stream = own.or_else(|| self.calls.youngest().map(|call| call.stream));
        if let Some(stream) = stream {
            self.news(stream, message.clone());
        }
    }
}
