//! What the client says: requests become exchanges with the server, unless they are about what only the bridge keeps.

use bytes::Bytes;
use serde_json::json;

use super::request::{Answers, Client, mirrored_method};
use super::tasks::Task;
use super::{Bridge, Over, asks, request};
use crate::transport::scan::{Kind as Form, Message, scan};
use crate::transport::streamable_http::mirrored;
use crate::upstream::link::{Kind, ToServer};

/// RFC 5424 severities, as MCP names them.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// A request of the client's.
pub(super) struct Call {
    /// The session's number for it.
    pub number: u64,
    pub message: Message,
    /// How often the client was asked on its behalf.
    pub rounds: u32,
    /// Whether the tools were listed again for it, because the server missed a header.
    pub listed: bool,
    /// Whether it says that its client knows tasks, because the server does not do without.
    pub declares_tasks: bool,
    /// What it has become, if the server answers later.
    pub task: Option<Box<Task>>,
}

/// What an answer of the server's is for.
pub(super) enum Exchange {
    /// `server/discover`, for the `initialize` with this number; whether it was refused once before.
    Opening {
        number: u64,
        again: bool,
    },
    Call(Box<Call>),
    /// How far the task of a call is.
    Task(Box<Call>),
    /// The answers of a call's client to what its task wanted to know.
    Updated(Box<Call>),
    /// The end of a task that nobody waits for.
    Farewell,
    /// The stream of what answers no request.
    Listen,
    /// A page of the list of tools.
    Learning,
}

impl Exchange {
    /// The client's request that it is about.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Self::Call(call) | Self::Task(call) | Self::Updated(call) => Some(call),
            Self::Opening { .. } | Self::Farewell | Self::Listen | Self::Learning => None,
        }
    }
}

impl Bridge {
    pub(super) async fn told(&mut self, told: ToServer) -> Result<(), Over> {
        if let Kind::Cancelled(number) = told.kind {
            return self.cancel(number).await;
        }
        let scanned = scan(&told.message, &self.limits());
        let Some(message) = scanned.as_ref().ok().and_then(|scanned| scanned.one()) else {
            tracing::warn!(server = self.slug(), "a message of a client cannot be read");
            return match told.kind.request() {
                Some(number) => self.error(number, -32600, "The request cannot be read").await,
                None => Ok(()),
            };
        };
        match told.kind {
            Kind::Initialize(number) => {
                self.discover(number, message);
                Ok(())
            }
            Kind::Initialized => {
                self.subscriptions.begin(self.offer.changing(), self.setting.listens);
                self.listen();
                Ok(())
            }
            Kind::Request(number) => self.asked(number, message.clone()).await,
            Kind::Cancelled(_) | Kind::Other => match message.kind() {
                Form::Response | Form::ErrorResponse => self.answered(message).await,
                // A modern server hears nothing from its clients but requests.
                Form::Notification | Form::Request => Ok(()),
            },
        }
    }

    fn discover(&mut self, number: u64, opening: &Message) {
        self.client = Some(Client::of(opening));
        self.ask_what_is_offered(number, false);
    }

    pub(super) fn ask_what_is_offered(&mut self, number: u64, again: bool) {
        let upstream = self.number();
        let Some(client) = &self.client else { return };
        let message = client.request(upstream, "server/discover", "");
        self.exchanges.insert(upstream, Exchange::Opening { number, again });
        self.send(message, upstream, "server/discover");
    }

    /// Sends a request of the bridge's own.
    pub(super) fn send(&mut self, message: Bytes, number: u64, method: &'static str) {
        let mirrored = self.setting.has_headers.then(|| mirrored_method(method));
        self.say(ToServer { mirrored, ..request(message, number) });
    }

    async fn asked(&mut self, number: u64, message: Message) -> Result<(), Over> {
        let method = message.method().unwrap_or_default();
        if asks(&message, "ping") {
            return self.result(number, json!({})).await;
        }
        match method {
            "logging/setLevel" => self.set_level(number, &message).await,
            "resources/subscribe" | "resources/unsubscribe" => self.subscribe(number, &message).await,
            // Those of 2025-11-25, which the server was not asked about and the client not told of.
            "tasks/get" | "tasks/result" | "tasks/list" | "tasks/cancel" => {
                self.error(number, -32601, "The server has no tasks of this version of the protocol").await
            }
            _ => {
                let call = Call { number, message, rounds: 0, listed: false, declares_tasks: false, task: None };
                self.forward(call, None);
                Ok(())
            }
        }
    }

    /// Sends a call to the server; the second time with what the client was asked in between.
    pub(super) fn forward(&mut self, call: Call, answers: Option<&Answers>) {
        let about_tool = asks(&call.message, "tools/call") && self.setting.has_headers;
        if about_tool && self.mirrors.known.is_none() {
            self.mirrors.held.push(call);
            return self.learn(None);
        }
        let upstream = self.number();
        let Some(client) = &self.client else { return };
        let message = client.speaks(&call.message, upstream, answers, call.declares_tasks);
        let headers = self.setting.has_headers.then(|| {
            let mut headers = mirrored(&call.message);
            if let (true, Some(mirrors)) = (about_tool, &self.mirrors.known) {
                mirrors.repeat(call.message.name().unwrap_or_default(), call.message.arguments(), &mut headers);
            }
            Box::new(headers)
        });
        self.exchanges.insert(upstream, Exchange::Call(Box::new(call)));
        self.say(ToServer { mirrored: headers, ..request(message, upstream) });
    }

    /// Asks for the list of tools, to know what their calls have to repeat; `cursor` as the server wrote it.
    pub(super) fn learn(&mut self, cursor: Option<&str>) {
        if cursor.is_none() && self.mirrors.learning.replace(Default::default()).is_some() {
            return;
        }
        let number = self.number();
        let Some(client) = &self.client else { return };
        let params = cursor.map(|cursor| format!(r#""cursor":{cursor}"#)).unwrap_or_default();
        let message = client.request(number, "tools/list", &params);
        self.exchanges.insert(number, Exchange::Learning);
        self.send(message, number, "tools/list");
    }

    /// The client gives a request up: so does the server.
    async fn cancel(&mut self, number: u64) -> Result<(), Over> {
        self.mirrors.held.retain(|call| call.number != number);
        let is_it = |exchange: &Exchange| exchange.call().is_some_and(|call| call.number == number);
        if let Some(upstream) = self.exchanges.iter().find(|(_, exchange)| is_it(exchange)).map(|(upstream, _)| *upstream) {
            match self.exchanges.remove(&upstream) {
                Some(Exchange::Task(call) | Exchange::Updated(call)) => self.end_task(&call),
                _ => self.say_cancelled(upstream),
            }
        }
        self.cancel_task(number);
        self.withdraw(number).await
    }

    /// Hangs up on an exchange, where that says it, and says so where it does not.
    pub(super) fn say_cancelled(&mut self, upstream: u64) {
        let params = json!({ "requestId": upstream });
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        self.say(ToServer::new(message.to_string().into(), Kind::Cancelled(upstream)));
    }

    async fn set_level(&mut self, number: u64, message: &Message) -> Result<(), Over> {
        if !self.offer.logs() {
            return self.error(number, -32601, "The server has no log messages").await;
        }
        let params = message
            .params_span()
            .and_then(|span| serde_json::from_slice::<serde_json::Value>(&message.body()[span.range()]).ok());
        let level = params.as_ref().and_then(|params| params.get("level")?.as_str()).filter(|level| LEVELS.contains(level));
        match (level, &mut self.client) {
            (Some(level), Some(client)) => {
                client.log_from(level.to_owned());
                self.result(number, json!({})).await
            }
            _ => self.error(number, -32602, &format!("The level is one of {}", LEVELS.join(", "))).await,
        }
    }
}
