//! Requests of modern clients in a session with a legacy server: sent in its words, answered in modern ones, and of what the server says
//! besides only what a modern client may hear on the stream of its request. What the server asks meanwhile is in [`super::asking`].

use std::sync::Arc;

use bytes::Bytes;
use mcp_gateway::proto::node::v1::Outcome;
use tokio::time::Instant;

use super::Claim;
use super::actor::{Actor, renumbered};
use super::asking::Questions;
use super::calls::Call;
use super::hear::UNREADABLE;
use super::splice::{at, number, splice};
use super::stream::{Outgoing, Tap};
use crate::bridge::legacy_server::result::{self, Dress};
use crate::bridge::legacy_server::{Greeting, Level, codes, notice, question, request};
use crate::pipeline::authenticate::Principal;
use crate::pipeline::limit::Seat;
use crate::pipeline::trail::Trail;
use crate::relay::outcome::Answered;
use crate::transport::scan::Message;
use crate::transport::scan::lexer::Span;
use crate::upstream::link::Kind;

/// A modern client's request on its way into a session.
pub(crate) struct Across {
    pub message: Box<Message>,
    pub record: Box<(Trail, Seat)>,
    pub tap: Tap,
    /// Who sends it, as it has just proved.
    pub caller: Arc<Principal>,
    /// Of requests whose server may ask back: whatever it asks is about this one.
    pub claim: Option<Claim>,
    /// How often the client was asked about it before.
    pub round: u32,
    /// The call that it continues, in this session.
    pub continues: Option<Continued>,
}

/// A call that waits for its client.
pub(crate) struct Continued {
    pub number: u64,
    /// What the client answers, by the keys that it was asked with.
    pub answers: Vec<(String, Bytes)>,
}

/// What a modern client's request needs beside what every call has.
pub(super) struct Crossing {
    /// What was asked, last in these words.
    pub message: Box<Message>,
    pub claim: Option<Claim>,
    pub round: u32,
    pub questions: Questions,
}

impl Crossing {
    /// Whether the session is this request's alone.
    pub fn claims(&self) -> bool {
        self.claim.is_some()
    }

    /// Whether the server's question with this id was asked on its behalf.
    pub fn asks(&self, question: &str) -> bool {
        self.questions.has(question)
    }

    /// When the client is asked what has come together.
    pub fn asks_at(&self) -> Option<Instant> {
        self.questions.due()
    }
}

impl Actor {
    /// A request of a modern client's, or the answers that one of its requests waits for.
    pub(super) async fn cross(&mut self, mut across: Across) {
        self.standing.assume(across.caller.clone());
        if let Some(continued) = across.continues.take() {
            return self.go_on(across, continued);
        }
        match self.ready(&across.message).await {
            Ok(()) => self.send_across(across),
            Err(why) => self.refuse_across(across, why),
        }
    }

    fn send_across(&mut self, across: Across) {
        let Across { message, record, tap, claim, round, .. } = across;
        let number = self.calls.number();
        let stream = self.own_stream(tap);
        let call = Call::new(&message, stream, Some(record), self.deadline_of(&message));
        let untouched = self.passes_untouched();
        let sent = if untouched { renumbered(&message, number) } else { request::translated(&message, Some(number)) };
        let crossing = (!untouched).then(|| Crossing { message, claim, round, questions: Questions::default() });
        self.calls.insert(number, Call { crossing: crossing.map(Box::new), ..call });
        self.say_to_server(sent, Kind::Request(number));
    }

    /// When a request is given up: a stream of changes only when its client leaves.
    fn deadline_of(&self, message: &Message) -> Instant {
        let is_stream = message.method() == Some("subscriptions/listen");
        Instant::now() + if is_stream { self.around.timeouts.stream_max } else { self.way.server.call_timeout }
    }

    pub(super) fn refuse_across(&mut self, across: Across, why: &str) {
        self.refuse(&across.message, Some(across.record), Some(across.tap), why);
    }

    /// The server answered a modern client's request.
    pub(super) fn answered_across(&mut self, number: u64, mut call: Call, message: &Bytes, answer: Answered) {
        let Some(crossing) = call.crossing.as_deref_mut() else { return };
        if crossing.questions.is_waiting() {
            // Nobody reads that now. It is kept for whoever comes with answers.
            crossing.questions.overtaken(message.clone(), answer);
            return self.calls.insert(number, call);
        }
        if answer.code == codes::URL_ELICITATION_REQUIRED {
            return self.ask_to_open(call, message);
        }
        let answer = Answered { code: codes::modern(answer.code), ..answer };
        let translated = {
            let method = crossing.message.method().unwrap_or_default();
            let server_info = self.facts.greeting.get().and_then(Greeting::server_info);
            result::translated(message, &Dress { id: &call.id, method, server_info })
        };
        match translated {
            Some(translated) => self.finish_across(call, translated, answer),
            None => self.fail(call, UNREADABLE),
        }
    }

    /// Answers a modern client's request with an error.
    pub(super) fn fail_across(&mut self, call: Call, code: i32, why: &str) {
        let message = question::error(&call.id, code, why);
        self.finish_across(call, message, Answered::new(Outcome::Error, code));
    }

    /// Answers a modern client's request.
    pub(super) fn finish_across(&mut self, mut call: Call, message: Bytes, answer: Answered) {
        self.settle_across(&mut call, message, answer);
    }

    /// Answers what a modern client asked last; the call itself may go on.
    pub(super) fn settle_across(&mut self, call: &mut Call, message: Bytes, answer: Answered) {
        if let Some((trail, _)) = call.record.as_deref_mut().filter(|_| call.events == 0) {
            trail.status(codes::status(answer.code));
        }
        let recorded = call.settle(answer, &message);
        let code = if answer.outcome == Outcome::Ok { 0 } else { answer.code };
        self.deliver(call.stream, Outgoing { code, ..Outgoing::answer(message, recorded) });
        self.close(call.stream);
    }

    /// The server says something that a modern client hears on the stream of a request, if at all: log messages, as it asked for them.
    pub(super) fn told_across(&mut self, message: &Bytes, about: Option<u64>) {
        let Some(least) = self.manners.modern.and_then(|persona| persona.level) else { return };
        if notice::level(message).is_none_or(|level: Level| level < least) {
            return;
        }
        let own = about.or_else(|| self.calls.claiming()).and_then(|number| self.calls.get_mut(number)).map(|call| call.stream);
        let stream = own.or_else(|| self.calls.youngest().map(|call| call.stream));
        if let Some(stream) = stream {
            self.news(stream, message.clone());
        }
    }

    /// The server says something that passes as it is: on the stream that it names, or else on the youngest request's.
    pub(super) fn told_untouched(&mut self, message: &Bytes, about: Option<u64>, subscription: Option<Span>) {
        if let Some(span) = subscription {
            let listening = at(message, Some(span)).and_then(number).and_then(|number| self.calls.get_mut(number));
            let Some(call) = listening else { return };
            let (stream, told) = (call.stream, splice(message, &[(span, &call.id)]));
            call.events += 1;
            return self.news(stream, told);
        }
        let own = about.and_then(|number| self.calls.get_mut(number)).map(|call| call.stream);
        if let Some(stream) = own.or_else(|| self.calls.youngest().map(|call| call.stream)) {
            self.news(stream, message.clone());
        }
    }
}
