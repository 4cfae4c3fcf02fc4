//! What a legacy server asks in the middle of a modern client's call. The call waits here; its client gets everything that was asked as one
//! result, comes back with answers, and the call goes on. It runs once, however often its client is asked (2026-07-28, multi round-trip
//! requests).

use std::time::Duration;

use bytes::Bytes;
use mcp_gateway::proto::node::v1::Outcome;
use tokio::time::Instant;

use super::actor::{Actor, MOST_QUESTIONS};
use super::calls::Call;
use super::crossing::{Across, Continued};
use crate::bridge::legacy_server::{Greeting, codes, question, request};
use crate::pipeline::authenticate::seconds_since_epoch;
use crate::pipeline::denial::LOST_CONTINUATION;
use crate::pipeline::route::holder;
use crate::relay::outcome::Answered;
use crate::session::{self, Parked, Token, Waiting};
use crate::upstream::link::Kind;

/// How long further questions are waited for before the client is asked: a server that wants to know several things asks them at once.
const TOGETHER: Duration = Duration::from_millis(5);
/// How often a request is sent again because pages had to be opened first.
const MOST_ROUNDS: u32 = 10;
/// The stream of calls whose clients have gone to find answers.
const NOWHERE: u32 = u32::MAX;

const INTERNAL: i32 = -32603;
const METHOD_NOT_FOUND: i32 = -32601;

/// What the server asked on behalf of one call, and where that stands.
#[derive(Default)]
pub(super) struct Questions {
    open: Vec<Question>,
    last: u32,
    stands: Stands,
}

struct Question {
    /// What the client calls it.
    key: Box<str>,
    /// The server's id for it, as the server wrote it.
    id: Box<str>,
    /// The entry of `inputRequests`.
    entry: String,
}

#[derive(Default)]
enum Stands {
    /// The server works.
    #[default]
    UnderWay,
    /// The client is asked then.
    Due(Instant),
    /// The client was asked.
    Asked,
    /// The client was asked, and the server did not wait for it.
    Overtaken(Bytes, Answered),
}

impl Questions {
    pub fn has(&self, id: &str) -> bool {
        self.open.iter().any(|question| *question.id == *id)
    }

    pub fn due(&self) -> Option<Instant> {
        match self.stands {
            Stands::Due(at) => Some(at),
            Stands::UnderWay | Stands::Asked | Stands::Overtaken(..) => None,
        }
    }

    /// Whether the client has gone to find answers.
    pub fn is_waiting(&self) -> bool {
        matches!(self.stands, Stands::Asked | Stands::Overtaken(..))
    }

    pub fn overtaken(&mut self, message: Bytes, answer: Answered) {
        self.open.clear();
        self.stands = Stands::Overtaken(message, answer);
    }

    fn add(&mut self, id: Box<str>, entry: String) {
        self.last += 1;
        self.open.push(Question { key: format!("q{}", self.last).into(), id, entry });
        if !self.is_waiting() {
            self.stands = Stands::Due(Instant::now() + TOGETHER);
        }
    }

    /// The server's id for the question that the client calls `key`, which is not open any more.
    fn take(&mut self, key: &str) -> Option<Box<str>> {
        let place = self.open.iter().position(|question| *question.key == *key)?;
        Some(self.open.swap_remove(place).id)
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.open.iter().map(|question| (&*question.key, &*question.entry))
    }
}

impl Actor {
    /// The server asks something while it serves a modern client.
    pub(super) fn asked_across(&mut self, message: &Bytes, id: Box<str>, method: &str) {
        let Some(persona) = self.manners.modern else { return };
        let (until, number) = (Instant::now() + self.patience(), self.calls.claiming());
        let crossing = number.and_then(|number| self.calls.get_mut(number)).and_then(|call| {
            call.deadline = call.deadline.max(until);
            call.crossing.as_deref_mut()
        });
        let Some(crossing) = crossing else {
            tracing::info!(server = %self.way.server.slug, method, "a server asks while no call of a client's waits");
            return self.say_to_server(question::nobody(&id, method), Kind::Other);
        };
        if crossing.questions.open.len() >= MOST_QUESTIONS {
            return self.say_to_server(question::error(&id, METHOD_NOT_FOUND, "Too many questions are open"), Kind::Other);
        }
        match question::read(message, (&id, method), &persona) {
            Ok(entry) => crossing.questions.add(id, entry),
            Err(refusal) => self.say_to_server(refusal, Kind::Other),
        }
    }

    /// The server does not want to know any more.
    pub(super) fn unasked(&mut self, id: &str) {
        let Some(call) = self.calls.asking(id) else { return };
        let Some(crossing) = call.crossing.as_deref_mut() else { return };
        crossing.questions.open.retain(|question| *question.id != *id);
        if crossing.questions.open.is_empty() && crossing.questions.due().is_some() {
            crossing.questions.stands = Stands::UnderWay;
        }
    }

    /// Asks the client of a call what its server has asked, if that is due; the call waits from now on.
    pub(super) fn ask_client(&mut self, number: u64, now: Instant) -> bool {
        let is_due = |call: &Call| call.crossing.as_ref().and_then(|crossing| crossing.asks_at()).is_some_and(|at| at <= now);
        if !self.calls.get_mut(number).is_some_and(|call| is_due(call)) {
            return false;
        }
        let Some(mut call) = self.calls.remove(number) else { return false };
        let Some(crossing) = call.crossing.as_deref_mut() else { return false };
        crossing.round += 1;
        crossing.questions.stands = Stands::Asked;
        let waiting = Waiting { node: self.around.live.node().as_str().into(), session: self.id, number };
        let Some(state) = self.seal(&call, Some(waiting)) else {
            self.say_cancelled(number);
            self.fail_across(call, INTERNAL, "The gateway has no key to seal what the call needs to go on");
            return true;
        };
        let server_info = self.facts.greeting.get().and_then(Greeting::server_info);
        let entries = call.crossing.iter().flat_map(|crossing| crossing.questions.entries());
        let message = question::input_required(&call.id, entries, &state, server_info);
        self.settle_across(&mut call, message, Answered::new(Outcome::Ok, 0));
        call.stream = NOWHERE;
        call.deadline = now + self.patience();
        self.calls.insert(number, call);
        true
    }

    /// The client of a call comes back with answers.
    pub(super) fn go_on(&mut self, across: Across, continued: Continued) {
        let Continued { number, answers } = continued;
        let is_it = |call: &Call| {
            let crossing = call.crossing.as_ref();
            crossing.is_some_and(|crossing| crossing.round == across.round && crossing.questions.is_waiting())
        };
        let Some(mut call) = self.calls.remove(number) else { return self.refuse_across(across, LOST_CONTINUATION) };
        if !is_it(&call) {
            // Whoever comes twice does not disturb what goes on.
            self.calls.insert(number, call);
            return self.refuse_across(across, LOST_CONTINUATION);
        }
        let Across { message, record, tap, .. } = across;
        let (id, token) = (message.id().unwrap_or("null").into(), message.progress_token().map(Box::from));
        (call.id, call.token, call.record, call.stream) = (id, token, Some(record), self.own_stream(tap));
        (call.events, call.bytes, call.deadline) = (0, 0, Instant::now() + self.way.server.call_timeout);
        let Some(crossing) = call.crossing.as_deref_mut() else { return };
        crossing.message = message;
        if let Stands::Overtaken(message, answer) = std::mem::take(&mut crossing.questions.stands) {
            return self.answered_across(number, call, &message, answer);
        }
        let answered = answers.iter().filter_map(|(key, result)| Some((crossing.questions.take(key)?, result)));
        let said: Vec<Bytes> = answered.map(|(id, result)| question::answer(&id, result)).collect();
        if !crossing.questions.open.is_empty() {
            // What was left open, or asked meanwhile, is asked now.
            crossing.questions.stands = Stands::Due(Instant::now() + TOGETHER);
        }
        self.calls.insert(number, call);
        said.into_iter().for_each(|answer| self.say_to_server(answer, Kind::Other));
    }

    /// The server wants pages opened before it carries a request out (-32042): its client is asked to, and sends it once more.
    pub(super) fn ask_to_open(&mut self, mut call: Call, message: &Bytes) {
        let Some(persona) = self.manners.modern else { return };
        let pages = question::pages(message);
        let round = call.crossing.as_ref().map_or(0, |crossing| crossing.round);
        if pages.is_empty() || round >= MOST_ROUNDS {
            return self.fail_across(call, INTERNAL, "The server wants a page opened first, and does not say which");
        }
        if !persona.url {
            let message = question::missing_url(&call.id);
            return self.finish_across(call, message, Answered::new(Outcome::Error, codes::MISSING_CAPABILITY));
        }
        call.crossing.iter_mut().for_each(|crossing| crossing.round += 1);
        let Some(state) = self.seal(&call, None) else {
            return self.fail_across(call, INTERNAL, "The gateway has no key to seal what the request needs to go on");
        };
        let keys: Vec<String> = (1..=pages.len()).map(|place| format!("q{place}")).collect();
        let entries = keys.iter().map(String::as_str).zip(pages.iter().map(String::as_str));
        let server_info = self.facts.greeting.get().and_then(Greeting::server_info);
        let message = question::input_required(&call.id, entries, &state, server_info);
        self.finish_across(call, message, Answered::new(Outcome::Ok, 0));
    }

    /// What the client brings back with its answers.
    fn seal(&self, call: &Call, waiting: Option<Waiting>) -> Option<String> {
        let crossing = call.crossing.as_deref()?;
        let expires_at = u64::try_from(seconds_since_epoch()).ok()? + self.patience().as_secs();
        let parked = Parked { call: waiting, round: crossing.round, digest: request::digest(&crossing.message), expires_at };
        let config = self.around.live.snapshot()?;
        let key = config.session_keys().current()?;
        session::seal(key, &holder(self.standing.principal(), self.standing.server()), &Token::Parked(parked)).ok()
    }
}
