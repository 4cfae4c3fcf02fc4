//! One process for all sessions of a server on this node. The gateway opens it once, as a client that cannot be asked; each session's
//! `initialize` is answered from that. Requests get numbers of the hub's, so that answers and progress find their session and no other;
//! news goes to all, updates of resources to those that subscribed, log messages to those that want their level.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use uuid::Uuid;

use super::child;
use super::{Ends, FromServer, Kind, LinkError, Reach, SHARED, ToServer, Way};
use crate::children::{Child, Handle, Receiver, Sender};
use crate::owned::number;
use crate::tasks::OnExit;
use crate::transport::Version;

/// What may wait for a hub.
const QUEUE: usize = 256;
/// How long a process without sessions is kept.
const LINGER: Duration = Duration::from_secs(60);
/// Log levels, least important first (RFC 5424).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// The shared processes of this node, by server.
#[derive(Clone, Default)]
pub struct Hubs(Arc<Mutex<HashMap<Arc<str>, Known>>>);

/// A shared process, as its sessions reach it.
struct Known {
    process: Uuid,
    to: mpsc::Sender<Event>,
}

/// What a hub hears from its sessions.
pub(super) enum Event {
    Join(Ends),
    Said { session: u64, message: ToServer },
    Left { session: u64 },
}

impl Hubs {
    /// Connects a session with the server's process, which is started if it is not there.
    pub(super) async fn join(&self, way: &Way, reach: &Reach, ends: Ends) -> Result<(), LinkError> {
        // Held while a process starts: whoever comes meanwhile wants the same one.
        let mut hubs = self.0.lock().await;
        let mut ends = ends;
        if let Some(hub) = hubs.get(&way.server.id) {
            match hub.to.send(Event::Join(ends)).await {
                Ok(()) => return Ok(()),
                Err(mpsc::error::SendError(Event::Join(back))) => ends = back,
                Err(_) => return Err(LinkError::Transport),
            }
        }
        let hub = start(way, reach).await?;
        // A hub that has just begun takes it.
        let _ = hub.to.send(Event::Join(ends)).await;
        hubs.retain(|_, hub| !hub.to.is_closed());
        hubs.insert(way.server.id.clone(), hub);
        Ok(())
    }

    /// Ends a process and starts another in its place, unless sessions that lost it were faster or the server is shared no more.
    pub(crate) async fn restart(&self, way: &Way, reach: &Reach, old: Handle) -> Result<(), LinkError> {
        old.stop();
        old.ended().await;
        if !way.server.stdio.as_ref().is_some_and(|stdio| stdio.shared) {
            return Ok(());
        }
        let mut hubs = self.0.lock().await;
        if hubs.get(&way.server.id).is_some_and(|hub| hub.process != old.id() && !hub.to.is_closed()) {
            return Ok(());
        }
        hubs.insert(way.server.id.clone(), start(way, reach).await?);
        Ok(())
    }
}

/// Starts a server's process and opens it.
async fn start(way: &Way, reach: &Reach) -> Result<Known, LinkError> {
    let mut child = child::start(way, reach, SHARED).await?;
    let process = child.handle().id();
    let opened = timeout(way.server.call_timeout, open(&mut child)).await.ok().flatten().ok_or(LinkError::NotOpened)?;
    let (to, events) = mpsc::channel(QUEUE);
    let (sender, receiver) = child.split();
    let hub = Hub { opened, sender, sessions: HashMap::new(), pending: HashMap::new(), last: 1, joined: 0, to: to.clone() };
    reach.tasks.spawn("shared-process", OnExit::Ignore, hub.run(receiver, events, reach.clone()));
    Ok(Known { process, to })
}

/// The handshake; what the server said.
async fn open(child: &mut Child) -> Option<Map<String, Value>> {
    let client = json!({ "name": "mcpgw", "version": env!("CARGO_PKG_VERSION") });
    let params = json!({ "protocolVersion": Version::V2025_11_25.as_str(), "capabilities": {}, "clientInfo": client });
    child.send(bytes(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }))).await.ok()?;
    loop {
        let Ok(line) = child.next().await? else { continue };
        let mut message: Map<String, Value> = serde_json::from_slice(&line).ok()?;
        if message.get("id") != Some(&json!(0)) || message.contains_key("method") {
            continue;
        }
        let Some(Value::Object(result)) = message.remove("result") else { return None };
        child.send(bytes(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))).await.ok()?;
        return Some(result);
    }
}

fn bytes(message: &Value) -> Bytes {
    message.to_string().into()
}

/// A process and its sessions.
struct Hub {
    /// The server's answer to `initialize`.
    opened: Map<String, Value>,
    sender: Sender,
    sessions: HashMap<u64, Session>,
    /// Requests under way by the hub's number: whose, and the session's own number.
    pending: HashMap<u64, (u64, u64)>,
    last: u64,
    joined: u64,
    to: mpsc::Sender<Event>,
}

/// One session's end.
struct Session {
    from: mpsc::Sender<FromServer>,
    subscriptions: HashSet<String>,
    /// The least important log messages that it wants.
    level: Option<usize>,
}

impl Hub {
    async fn run(mut self, mut receiver: Receiver, mut events: mpsc::Receiver<Event>, reach: Reach) {
        let why = loop {
            let idle = self.sessions.is_empty();
            tokio::select! {
                line = receiver.next() => match line {
                    Some(Ok(line)) => self.hear(&line).await,
                    // What is no message was logged where it was read.
                    Some(Err(_garbage)) => {}
                    None => break "its process ended",
                },
                Some(event) = events.recv() => match event {
                    Event::Join(ends) => self.welcome(ends, &reach),
                    Event::Left { session } => self.part(session).await,
                    Event::Said { session, message } => self.say(session, message).await,
                },
                () = tokio::time::sleep(LINGER), if idle => break "nobody uses its process",
            }
        };
        events.close();
        // Whoever has come meanwhile has to start over.
        while let Some(event) = events.recv().await {
            if let Event::Join(ends) = event {
                ends.down(why).await;
            }
        }
        for session in self.sessions.into_values() {
            // It may be gone: then nobody has to know.
            let _ = session.from.send(FromServer::Down { why: why.into() }).await;
        }
    }

    fn welcome(&mut self, ends: Ends, reach: &Reach) {
        self.joined += 1;
        let (session, Ends { mut to, from, closed }) = (self.joined, ends);
        self.sessions.insert(session, Session { from, subscriptions: HashSet::new(), level: None });
        let hub = self.to.clone();
        reach.tasks.spawn("shared-link", OnExit::Ignore, async move {
            loop {
                let message = tokio::select! {
                    () = closed.cancelled() => break,
                    message = to.recv() => message,
                };
                let Some(message) = message else { break };
                if hub.send(Event::Said { session, message }).await.is_err() {
                    return;
                }
            }
            // The hub may be gone too.
            let _ = hub.send(Event::Left { session }).await;
        });
    }

    /// A session is over: what it asked for is given up.
    async fn part(&mut self, session: u64) {
        let left = self.sessions.remove(&session);
        let under_way: Vec<u64> = self.pending.iter().filter(|(_, (of, _))| *of == session).map(|(number, _)| *number).collect();
        for number in under_way {
            self.pending.remove(&number);
            self.write(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": number } }))
                .await;
        }
        for uri in left.map(|left| left.subscriptions).unwrap_or_default() {
            self.unsubscribe(&uri).await;
        }
    }

    /// What a session says.
    async fn say(&mut self, session: u64, message: ToServer) {
        let Ok(mut said) = serde_json::from_slice::<Value>(&message.message) else { return };
        match message.kind {
            Kind::Initialize(number) => self.answer(session, number, self.opening(&said)),
            Kind::Request(number) => self.request(session, number, said).await,
            Kind::Cancelled(number) => {
                let found = self.pending.iter().find(|(_, whose)| **whose == (session, number)).map(|(hub, _)| *hub);
                let Some(hub) = found else { return };
                self.pending.remove(&hub);
                said["params"]["requestId"] = hub.into();
                self.write(&said).await;
            }
            // The process was told once, is told nothing of one client's roots, and has asked nobody anything.
            Kind::Initialized | Kind::Other => {}
        }
    }

    /// The answer to a session's `initialize`, in a version that its client knows.
    fn opening(&self, asked: &Value) -> Value {
        let mut result = self.opened.clone();
        let known = |text: &Value| text.as_str().and_then(Version::parse);
        let (wanted, spoken) = (known(&asked["params"]["protocolVersion"]), result.get("protocolVersion").and_then(known));
        if let Some(version) = wanted.zip(spoken).map(|(wanted, spoken)| wanted.min(spoken)) {
            result.insert("protocolVersion".into(), version.as_str().into());
        }
        result.into()
    }

    async fn request(&mut self, session: u64, own: u64, mut said: Value) {
        let uri = said["params"]["uri"].as_str().unwrap_or_default().to_owned();
        match said["method"].as_str() {
            Some("resources/subscribe") => {
                let known = self.sessions.values().any(|session| session.subscriptions.contains(&uri));
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.subscriptions.insert(uri);
                }
                if known {
                    return self.answer(session, own, json!({}));
                }
            }
            Some("resources/unsubscribe") => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.subscriptions.remove(&uri);
                }
                self.unsubscribe(&uri).await;
                return self.answer(session, own, json!({}));
            }
            Some("logging/setLevel") => {
                let level = LEVELS.iter().position(|level| said["params"]["level"] == *level);
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.level = level;
                }
                let lowest = self.sessions.values().filter_map(|session| session.level).min().unwrap_or_default();
                said["params"]["level"] = LEVELS[lowest].into();
            }
            _ => {}
        }
        self.last += 1;
        self.pending.insert(self.last, (session, own));
        said["id"] = self.last.into();
        if said["params"]["_meta"].get("progressToken").is_some() {
            said["params"]["_meta"]["progressToken"] = self.last.into();
        }
        self.write(&said).await;
    }

    async fn unsubscribe(&mut self, uri: &str) {
        if !self.sessions.values().any(|session| session.subscriptions.contains(uri)) {
            self.last += 1;
            let id = self.last; // nobody waits for the answer
            self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": "resources/unsubscribe", "params": { "uri": uri } })).await;
        }
    }

    /// What the process says.
    async fn hear(&mut self, line: &Bytes) {
        let Ok(mut message) = serde_json::from_slice::<Value>(line) else { return };
        let id = message.get("id").filter(|id| !id.is_null()).cloned();
        match (message["method"].as_str(), id) {
            (Some("ping"), Some(id)) => self.write(&json!({ "jsonrpc": "2.0", "id": id, "result": {} })).await,
            (Some(_), Some(id)) => {
                let error = json!({ "code": -32601, "message": "The clients of a shared process cannot be asked" });
                self.write(&json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
            }
            (Some("notifications/progress"), None) => {
                let found = number(&message["params"]["progressToken"].to_string()).and_then(|number| self.pending.get(&number));
                let Some((session, own)) = found.copied() else { return };
                message["params"]["progressToken"] = own.into();
                self.tell(session, bytes(&message), Some(own));
            }
            (Some("notifications/resources/updated"), None) => {
                let uri = message["params"]["uri"].as_str().unwrap_or_default();
                self.tell_all(line, |session| session.subscriptions.contains(uri));
            }
            (Some("notifications/message"), None) => {
                let level = LEVELS.iter().position(|level| message["params"]["level"] == *level).unwrap_or(LEVELS.len());
                self.tell_all(line, |session| session.level.is_some_and(|wanted| level >= wanted));
            }
            (Some(method), None) if method.ends_with("/list_changed") => self.tell_all(line, |_all| true),
            // What is about one client only, it cannot say: it knows none.
            (Some(_), None) | (None, None) => {}
            (None, Some(id)) => {
                let Some((session, own)) = number(&id.to_string()).and_then(|number| self.pending.remove(&number)) else {
                    return;
                };
                message["id"] = own.into();
                self.tell(session, bytes(&message), Some(own));
            }
        }
    }

    fn answer(&mut self, session: u64, own: u64, result: Value) {
        self.tell(session, bytes(&json!({ "jsonrpc": "2.0", "id": own, "result": result })), Some(own));
    }

    fn tell_all(&mut self, message: &Bytes, wants: impl Fn(&Session) -> bool) {
        let wanting: Vec<u64> = self.sessions.iter().filter(|(_, session)| wants(session)).map(|(number, _)| *number).collect();
        wanting.into_iter().for_each(|session| self.tell(session, message.clone(), None));
    }

    /// Never waits: one session must not hold up the others.
    fn tell(&mut self, session: u64, message: Bytes, about: Option<u64>) {
        let Some(end) = self.sessions.get(&session) else { return };
        if end.from.try_send(FromServer::Message { message, about }).is_err() {
            // It is gone, or does not keep up; without its sender it hears that the server is gone.
            self.sessions.remove(&session);
        }
    }

    async fn write(&mut self, message: &Value) {
        if let Err(error) = self.sender.send(bytes(message)).await {
            tracing::debug!(%error, "a shared process did not take a message");
        }
    }
}
