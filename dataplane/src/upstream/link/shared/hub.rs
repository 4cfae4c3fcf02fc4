//! What sessions say to the process that they share, and what it says to them. Everything here happens at once: nothing waits, and what
//! is to be written is left in `outbox`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{FromServer, Kind, ToServer};
use super::ids::{About, InFlight, Whose};
use super::levels::{self, Level, Levels};
use super::opening::{self, Opening};
use super::parts::{Parts, elements};
use super::post::Post;
use super::subscriptions::{self, Subscriptions};
use crate::owned::{at, number, refusal, splice};
use crate::transport::scan::lexer::Span;

/// Answers to the process that may wait for it to read them.
const MOST_WAITING: usize = 1024;
const NO_SUCH_METHOD: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// See the module.
pub(super) struct Hub {
    /// For the log.
    server: Arc<str>,
    opening: Opening,
    posts: HashMap<u64, Post>,
    in_flight: InFlight,
    subscriptions: Subscriptions,
    levels: Levels,
    /// For the process, in this order.
    pub outbox: VecDeque<Bytes>,
    joined: u64,
    /// Sessions that could not be told something.
    lost: Vec<u64>,
}

impl Hub {
    pub fn new(server: Arc<str>, opening: Opening) -> Self {
        Self {
            server,
            opening,
            posts: HashMap::new(),
            in_flight: InFlight::default(),
            subscriptions: Subscriptions::default(),
            levels: Levels::default(),
            outbox: VecDeque::new(),
            joined: 0,
            lost: Vec::new(),
        }
    }

    /// Whether no session is here.
    pub fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// A session comes; how it is called from now on.
    pub fn join(&mut self, post: Post) -> u64 {
        self.joined += 1;
        self.posts.insert(self.joined, post);
        self.joined
    }

    /// A session is over: what it asked for is given up.
    pub fn leave(&mut self, session: u64) {
        self.posts.remove(&session);
        for number in self.in_flight.leave(session) {
            let params = format!(r#"{{"requestId":{number}}}"#);
            self.outbox.push_back(format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#).into());
        }
        let steps = self.subscriptions.leave(session);
        self.subscribe(steps);
        let steps = self.levels.leave(session);
        self.set_level(steps);
    }

    /// The process is gone.
    pub fn end(self, why: &str) {
        self.posts.into_values().for_each(|post| post.close(why));
    }

    /// What a session says.
    pub fn say(&mut self, session: u64, said: &ToServer) {
        if !self.posts.contains_key(&session) {
            // It had to go, and has not heard of it yet.
            return;
        }
        match (Parts::read(&said.message), said.kind) {
            (Ok(parts), Kind::Initialize(own)) => {
                let answer = self.opening.answer(own, parts.version.as_deref());
                self.tell(session, answer, Some(own));
            }
            (Ok(parts), Kind::Request(own)) => self.request((session, own), &said.message, &parts),
            (Ok(parts), Kind::Cancelled(own)) => self.cancel((session, own), &said.message, parts.request_id),
            (Err(error), Kind::Request(own) | Kind::Initialize(own)) => {
                let why = format!("the request cannot be read: {error}");
                self.hand(session, FromServer::Unanswered { request: own, begun: false, why });
            }
            // The process was told once, is told nothing of one client's roots, and has asked nobody anything.
            (_, Kind::Initialized | Kind::Other) | (Err(_), Kind::Cancelled(_)) => {}
        }
        self.part_from_lost();
    }

    fn request(&mut self, whose: Whose, message: &Bytes, parts: &Parts<'_>) {
        let (session, own) = whose;
        match (parts.method.as_deref().unwrap_or_default(), parts.uri.as_deref()) {
            (method @ ("resources/subscribe" | "resources/unsubscribe"), Some(uri)) => {
                let wants = method == "resources/subscribe";
                let steps = self.subscriptions.wish(uri, subscriptions::Wish { whose, wants, message: message.clone() });
                self.subscribe(steps);
            }
            ("logging/setLevel", _) => match parts.level.as_ref().and_then(|(_, name)| Level::parse(name)) {
                Some(level) => {
                    let steps = self.levels.wish(levels::Wish { whose, level, message: message.clone() });
                    self.set_level(steps);
                }
                None => self.tell(session, refusal(&own.to_string(), INVALID_PARAMS, "Unknown log level"), Some(own)),
            },
            (method, _) if method.starts_with("tasks/") => {
                let why = "Sessions that share a process have no tasks";
                self.tell(session, refusal(&own.to_string(), NO_SUCH_METHOD, why), Some(own));
            }
            (_, _) => self.forward(whose, message, About::Nothing, None),
        }
    }

    /// Sends a session's request under a number of its own.
    fn forward(&mut self, whose: Whose, message: &Bytes, about: About, level: Option<Level>) {
        // It was read before.
        let Ok(parts) = Parts::read(message) else { return };
        let token = at(message, parts.token);
        let number = self.in_flight.ask(Some(whose), token, about).to_string();
        let level = level.map(|level| format!("\"{}\"", level.as_str()));
        let mut places: Vec<(Span, &str)> = parts.id.into_iter().chain(parts.token).map(|span| (span, &*number)).collect();
        // Whoever has no tasks has to take the request as if this were not there (2025-11-25, tasks).
        places.extend(parts.task.map(|span| (span, "")));
        places.extend(parts.level.map(|(span, _)| span).zip(level.as_deref()));
        places.sort_unstable_by_key(|(span, _)| span.start);
        self.outbox.push_back(splice(message, &places));
    }

    fn subscribe(&mut self, steps: Vec<subscriptions::Step>) {
        for step in steps {
            match step {
                subscriptions::Step::Send(uri, wish) => {
                    self.forward(wish.whose, &wish.message, About::Subscription(uri), None);
                }
                subscriptions::Step::Unsubscribe(uri) => {
                    let named = serde_json::to_string(&*uri).expect("a string always serialises");
                    let number = self.in_flight.ask(None, None, About::Subscription(uri));
                    let request = format!(
                        r#"{{"jsonrpc":"2.0","id":{number},"method":"resources/unsubscribe","params":{{"uri":{named}}}}}"#
                    );
                    self.outbox.push_back(request.into());
                }
                subscriptions::Step::Agree(whose) => self.agree(whose),
            }
        }
    }

    fn set_level(&mut self, steps: Vec<levels::Step>) {
        for step in steps {
            match step {
                levels::Step::Send(level, wish) => self.forward(wish.whose, &wish.message, About::Level, Some(level)),
                levels::Step::Set(level) => {
                    let number = self.in_flight.ask(None, None, About::Level);
                    let level = level.as_str();
                    let request = format!(
                        r#"{{"jsonrpc":"2.0","id":{number},"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#
                    );
                    self.outbox.push_back(request.into());
                }
                levels::Step::Agree(whose) => self.agree(whose),
            }
        }
    }

    fn agree(&mut self, (session, own): Whose) {
        self.tell(session, format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{{}}}}"#).into(), Some(own));
    }

    fn cancel(&mut self, whose: Whose, message: &Bytes, request: Option<Span>) {
        self.subscriptions.cancel(whose);
        self.levels.cancel(whose);
        let Some(number) = self.in_flight.cancel(whose) else { return };
        if let Some(span) = request {
            self.outbox.push_back(splice(message, &[(span, &number.to_string())]));
        }
    }

    /// What the process says: one message, or several.
    pub fn hear(&mut self, line: &Bytes) {
        match elements(line) {
            Some(messages) => messages.iter().for_each(|message| self.message(message)),
            None => tracing::warn!(server = %self.server, "a batch of a shared process cannot be read"),
        }
        self.part_from_lost();
    }

    fn message(&mut self, message: &Bytes) {
        let Ok(parts) = Parts::read(message) else { return self.unreadable(message) };
        match (parts.method.as_deref(), at(message, parts.id)) {
            (Some(method), Some(id)) if self.outbox.len() < MOST_WAITING => {
                self.outbox.push_back(opening::answer(method, id));
            }
            (Some(_), Some(_)) => {
                tracing::warn!(server = %self.server, "a shared process does not take its answers; one was dropped");
            }
            (Some(method), None) => self.news(message, method, &parts),
            (None, Some(id)) => self.answered(message, number(id), &parts),
            (None, None) => tracing::warn!(server = %self.server, "a message of a shared process is about nothing"),
        }
    }

    fn answered(&mut self, message: &Bytes, number: Option<u64>, parts: &Parts<'_>) {
        let Some(asked) = number.and_then(|number| self.in_flight.answered(number)) else {
            return tracing::debug!(server = %self.server, "a shared process answered what nobody waits for");
        };
        if let (Some((session, own)), Some(span)) = (asked.whose, parts.id) {
            self.tell(session, splice(message, &[(span, &own.to_string())]), Some(own));
        }
        self.settle(asked.about, parts.result.is_some());
    }

    /// What depends on an answer.
    fn settle(&mut self, about: About, agreed: bool) {
        match about {
            About::Nothing => {}
            About::Subscription(uri) => {
                let steps = self.subscriptions.answered(&uri, agreed);
                self.subscribe(steps);
            }
            About::Level => {
                let steps = self.levels.answered(agreed);
                self.set_level(steps);
            }
        }
    }

    fn news(&mut self, message: &Bytes, method: &str, parts: &Parts<'_>) {
        match method {
            "notifications/progress" => {
                let found = at(message, parts.about).and_then(number).and_then(|number| self.in_flight.progress(number));
                let Some(((session, own), token)) = found else { return };
                let Some(span) = parts.about else { return };
                let message = splice(message, &[(span, token)]);
                self.tell(session, message, Some(own));
            }
            "notifications/resources/updated" => {
                let Some(uri) = parts.uri.as_deref() else { return };
                self.tell_all(message, self.subscriptions.concerned(uri));
            }
            "notifications/message" => {
                let level = parts.level.as_ref().and_then(|(_, name)| Level::parse(name)).unwrap_or(Level::HIGHEST);
                self.tell_all(message, self.levels.concerned(level).collect::<Vec<_>>());
            }
            _ if method.ends_with("/list_changed") => self.tell_all(message, self.posts.keys().copied().collect::<Vec<_>>()),
            // What is about one client only, it cannot say: it knows none.
            _ => tracing::debug!(server = %self.server, method, "news of a shared process is for nobody"),
        }
    }

    /// A message that clients could read in different ways, or not at all. Whoever waits for it has no other answer to wait for.
    fn unreadable(&mut self, message: &[u8]) {
        #[derive(Deserialize)]
        struct Named<'m> {
            #[serde(borrow)]
            id: &'m RawValue,
            method: Option<&'m RawValue>,
        }
        tracing::warn!(server = %self.server, "a message of a shared process cannot be read strictly");
        let Ok(Named { id, method: None }) = serde_json::from_slice(message) else { return };
        let Some(asked) = number(id.get()).and_then(|number| self.in_flight.answered(number)) else { return };
        if let Some((session, own)) = asked.whose {
            let why = "its answer cannot be read strictly".to_owned();
            self.hand(session, FromServer::Unanswered { request: own, begun: true, why });
        }
        self.settle(asked.about, false);
    }

    fn tell_all(&mut self, message: &Bytes, sessions: impl IntoIterator<Item = u64>) {
        sessions.into_iter().for_each(|session| self.tell(session, message.clone(), None));
    }

    fn tell(&mut self, session: u64, message: Bytes, about: Option<u64>) {
        self.hand(session, FromServer::Message { message, about });
    }

    fn hand(&mut self, session: u64, heard: FromServer) {
        let told = self.posts.get(&session).map(|post| post.send(heard));
        self.lost.extend(told.and_then(Result::err).map(|_undeliverable| session));
    }

    /// One session that does not read must not hold up the others.
    fn part_from_lost(&mut self) {
        while let Some(session) = self.lost.pop() {
            if let Some(post) = self.posts.remove(&session) {
                tracing::info!(server = %self.server, "a session that shares a process does not read, and has to go");
                post.close("the session does not read");
                self.leave(session);
            }
        }
    }
}

#[cfg(test)]
mod tests;
