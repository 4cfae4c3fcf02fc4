//! A legacy client in front of a modern server: everything that one keeps between messages and the other does not know of. To the session
//! this is a link like any other, to the server a client that says everything with every request (DESIGN section 5; MCP 2026-07-28).
//!
//! - `initialize` is answered with what `server/discover` tells, `ping` and `logging/setLevel` at once.
//! - Each request says who asks, and repeats in headers what the transport wants there.
//! - A result that asks for input becomes questions to the client; with the answers the request is sent again.
//! - A call that is answered with a task waits until the task is done.
//! - Subscriptions are one `subscriptions/listen`, opened again when they change.
//! - Errors of the modern era become those that every version knows.
//!
//! Knows nothing of transports: messages leave and come over a [`Link`].

mod answers;
mod calls;
mod mirror;
mod opening;
mod questions;
mod request;
mod subscriptions;
mod tasks;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use mcp_gateway::snapshot::Server;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::transport::scan::{Limits, Message};
use crate::upstream::link::{Ends, FromServer, Kind, Link, ToServer};

use calls::Exchange;
pub use mirror::Known;
use mirror::Mirrors;
use opening::Offer;
use questions::Rounds;
use request::Client;
use subscriptions::Subscriptions;
use tasks::Tasks;

/// Messages that may wait for the server before more is taken from the client.
const MOST_WAITING: usize = 16;

/// What a bridge is built for.
pub struct Setting {
    pub server: Arc<Server>,
    /// Whether the server's transport has headers.
    pub has_headers: bool,
    /// Whether the client hears what answers no request.
    pub listens: bool,
    /// The largest message.
    pub message_bytes: usize,
    /// What the process knows of servers' tools.
    pub known: Known,
}

/// See the module.
pub struct Bridge {
    setting: Setting,
    ends: Ends,
    link: Link,
    /// What the server has not taken yet.
    outbox: VecDeque<ToServer>,
    /// Once the client has opened its session.
    client: Option<Client>,
    offer: Offer,
    /// Requests that the server has, by the number that it knows them by.
    exchanges: HashMap<u64, Exchange>,
    last: u64,
    rounds: Rounds,
    subscriptions: Subscriptions,
    tasks: Tasks,
    mirrors: Mirroring,
}

/// What is known of the server's tools, and who waits to know more.
#[derive(Default)]
struct Mirroring {
    known: Option<Arc<Mirrors>>,
    /// The list as far as it was read.
    learning: Option<Mirrors>,
    held: Vec<calls::Call>,
}

/// What happens next.
enum Next {
    /// The session is gone.
    Closed,
    /// The server took a message.
    Taken,
    Heard(FromServer),
    /// The server is gone.
    Gone,
    /// It is time to listen again, or to ask after a task.
    Due,
    Told(ToServer),
}

/// The session or the server is gone.
struct Over;

impl Bridge {
    pub fn new(setting: Setting, ends: Ends, link: Link) -> Self {
        let mirrors = Mirroring { known: setting.known.of(&setting.server.id), ..Mirroring::default() };
        Self {
            setting,
            ends,
            link,
            outbox: VecDeque::new(),
            client: None,
            offer: Offer::default(),
            exchanges: HashMap::new(),
            last: 0,
            rounds: Rounds::default(),
            subscriptions: Subscriptions::default(),
            tasks: Tasks::default(),
            mirrors,
        }
    }

    /// Carries messages until the session or the server is gone.
    pub async fn run(mut self) {
        while self.turn().await.is_ok() {}
    }

    async fn turn(&mut self) -> Result<(), Over> {
        match self.next().await {
            Next::Closed => Err(Over),
            Next::Taken => Ok(()),
            Next::Heard(FromServer::Message { message, about }) => self.heard(&message, about).await,
            Next::Heard(FromServer::Unanswered { request, begun, why }) => self.unanswered(request, begun, why).await,
            Next::Heard(FromServer::Down { why }) => self.down(&why).await,
            Next::Gone => self.down("it is not there any more").await,
            Next::Due => {
                if self.subscriptions.due().is_some_and(|due| due <= Instant::now()) {
                    self.listen();
                }
                self.look_after_tasks();
                Ok(())
            }
            Next::Told(message) => self.told(message).await,
        }
    }

    async fn next(&mut self) -> Next {
        let due = [self.subscriptions.due(), self.tasks.due()].into_iter().flatten().min();
        tokio::select! {
            biased;
            () = self.ends.closed.cancelled() => Next::Closed,
            permit = self.link.to.reserve(), if !self.outbox.is_empty() => {
                let (Ok(permit), Some(message)) = (permit, self.outbox.pop_front()) else { return Next::Gone };
                permit.send(message);
                Next::Taken
            }
            heard = self.link.from.recv() => heard.map_or(Next::Gone, Next::Heard),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::Due,
            told = self.ends.to.recv(), if self.outbox.len() < MOST_WAITING => told.map_or(Next::Closed, Next::Told),
        }
    }

    /// A number that the server has not seen.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn say(&mut self, message: ToServer) {
        self.outbox.push_back(message);
    }

    /// Hands a message to the session.
    async fn answer(&self, message: Bytes, about: Option<u64>) -> Result<(), Over> {
        if self.ends.say(message, about).await { Ok(()) } else { Err(Over) }
    }

    async fn result(&self, number: u64, result: Value) -> Result<(), Over> {
        let message = json!({ "jsonrpc": "2.0", "id": number, "result": result });
        self.answer(message.to_string().into(), Some(number)).await
    }

    async fn error(&self, number: u64, code: i32, why: &str) -> Result<(), Over> {
        let message = json!({ "jsonrpc": "2.0", "id": number, "error": { "code": code, "message": why } });
        self.answer(message.to_string().into(), Some(number)).await
    }

    async fn down(&self, why: &str) -> Result<(), Over> {
        self.ends.down(why).await;
        Err(Over)
    }

    fn limits(&self) -> Limits {
        Limits { bytes: self.setting.message_bytes, depth: 128, batch: 1 }
    }

    fn slug(&self) -> &str {
        &self.setting.server.slug
    }
}

/// What a request for the server is, to its transport.
fn request(message: Bytes, number: u64) -> ToServer {
    ToServer::new(message, Kind::Request(number))
}

/// Whether a message of the client's asks for something of this name.
fn asks(message: &Message, method: &str) -> bool {
    message.is_request() && message.method() == Some(method)
}
