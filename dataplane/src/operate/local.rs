//! What one node answers to an order: about its own connections.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::stdio;
use crate::owned::stream::{End, EventId};
use crate::owned::{Command, Facts, Handle};
use crate::pipeline::Pipeline;
use crate::transport::ClientTransport;

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Event streams: of HTTP+SSE, and those of Streamable HTTP that answer no request.
    Events,
    Sockets,
}

/// What is asked of every node. To restart a process that is found and not reached is its session's to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    Status { org: String, kind: Kind, subject: Option<String> },
    Broadcast { org: String, kind: Kind, message: Box<RawValue> },
    Send { org: String, session: Uuid, message: Box<RawValue> },
    Ping { org: String, session: Uuid },
    Close { org: String, session: Uuid },
    Replay { org: String, session: Uuid, after: Option<String>, subject: String },
    Processes { org: String },
    StopProcess { org: String, process: Uuid },
    RestartProcess { org: String, process: Uuid },
    Tell { org: String, process: Uuid, message: Box<RawValue> },
    Logs { org: String, server: String },
}

/// What a node answers; added up over all of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Clients that were spoken to.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reached: u64,
    /// Whether the session was found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<Connection>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<Process>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<Line>>,
}

/// One connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    pub session: Uuid,
    pub node: String,
    pub server: String,
    pub subject: String,
    /// The client's transport.
    pub transport: String,
    pub server_transport: String,
    pub version: Option<String>,
    /// Seconds since the Unix epoch.
    pub opened_at: u64,
    /// Streams that the client reads.
    pub streams: u32,
}

/// A message that a session was told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub id: String,
    pub message: Box<RawValue>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Question {
    /// What it names, if it names one thing, which has to be somewhere.
    pub fn about(&self) -> Option<&'static str> {
        match self {
            Self::Status { .. } | Self::Broadcast { .. } | Self::Processes { .. } => None,
            Self::Send { .. } | Self::Ping { .. } | Self::Close { .. } | Self::Replay { .. } => Some("session"),
            Self::StopProcess { .. } | Self::RestartProcess { .. } | Self::Tell { .. } => Some("process"),
            Self::Logs { .. } => Some(stdio::SERVER),
        }
    }
}

impl Told {
    pub fn add(&mut self, other: Self) {
        self.reached += other.reached;
        self.found |= other.found;
        self.sessions.extend(other.sessions);
        self.events.extend(other.events);
        if let Some(processes) = other.processes {
            self.processes.get_or_insert_default().extend(processes);
        }
        if let Some(lines) = other.lines {
            self.lines.get_or_insert_default().extend(lines);
        }
    }
}

impl Kind {
    fn has(self, facts: &Facts) -> bool {
        match (self, facts.client) {
            (Self::Events, ClientTransport::HttpSse | ClientTransport::StreamableHttp) => true,
            (Self::Sockets, ClientTransport::WebSocket) => true,
            (Self::Events | Self::Sockets, _) => false,
        }
    }
}

pub(super) use super::stdio::{Line, Process};

/// Answers for this node.
pub(crate) async fn answer(pipeline: &Arc<Pipeline>, question: &Question) -> Told {
    match question {
        Question::Status { org, kind, subject } => status(pipeline, org, *kind, subject.as_deref()),
        Question::Broadcast { org, kind, message } => broadcast(pipeline, org, *kind, message).await,
        Question::Send { org, session, message } => {
            let message = message.get().to_owned().into();
            one(pipeline, org, *session, async |handle| handle.ask(Command::Say { message }).await.is_ok()).await
        }
        Question::Ping { org, session } => {
            one(pipeline, org, *session, async |handle| handle.ask(Command::Ping).await.is_ok()).await
        }
        Question::Close { org, session } => {
            one(pipeline, org, *session, async |handle| handle.ask(Command::End(End::Closed)).await.is_ok()).await
        }
        Question::Processes { org } => stdio::processes(pipeline, org),
        Question::StopProcess { org, process } => stdio::stop(pipeline, org, *process),
        Question::RestartProcess { org, process } => stdio::restart(pipeline, org, *process),
        Question::Tell { org, process, message } => stdio::tell(pipeline, org, *process, message).await,
        Question::Logs { org, server } => stdio::logs(pipeline, org, server),
        Question::Replay { org, session, after, subject } => replay(pipeline, org, *session, after.as_deref(), subject).await,
    }
}

fn status(pipeline: &Arc<Pipeline>, org: &str, kind: Kind, subject: Option<&str>) -> Told {
    let wanted =
        |facts: &Facts| *facts.org_id == *org && kind.has(facts) && subject.is_none_or(|subject| *facts.subject == *subject);
    let node = pipeline.live().node();
    let sessions = pipeline.sessions().select(wanted).into_iter().map(|handle| described(&handle, &node)).collect();
    Told { sessions, ..Told::default() }
}

fn described(handle: &Handle, node: &str) -> Connection {
    let facts = &handle.facts;
    Connection {
        session: handle.id,
        node: node.to_owned(),
        server: facts.server_slug.to_string(),
        subject: facts.subject.to_string(),
        transport: facts.client.as_str().to_owned(),
        server_transport: crate::bridge::name(facts.server_transport).to_owned(),
        version: facts.version.get().map(|version| version.as_str().to_owned()),
        opened_at: facts.opened.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        streams: handle.streams(),
    }
}

/// A caller's own connections to this node, over any transport.
pub(crate) fn own(pipeline: &Pipeline, org: &str, subject: &str) -> Vec<Connection> {
    let node = pipeline.live().node();
    let own = pipeline.sessions().select(|facts| *facts.org_id == *org && *facts.subject == *subject);
    own.into_iter().map(|handle| described(&handle, &node)).collect()
}

async fn broadcast(pipeline: &Arc<Pipeline>, org: &str, kind: Kind, message: &RawValue) -> Told {
    let message: bytes::Bytes = message.get().to_owned().into();
    let listens = |facts: &Facts| *facts.org_id == *org && kind.has(facts) && facts.is_listening();
    let mut reached = match kind {
        // Streams of sealed sessions are no session's here.
        Kind::Events => pipeline.relay().announcements().say(org, &message),
        Kind::Sockets => 0,
    };
    for handle in pipeline.sessions().select(listens) {
        reached += u64::from(handle.ask(Command::Say { message: message.clone() }).await.is_ok());
    }
    Told { reached, ..Told::default() }
}

async fn one(pipeline: &Arc<Pipeline>, org: &str, session: Uuid, act: impl AsyncFnOnce(&Handle) -> bool) -> Told {
    let found = pipeline.sessions().find(session).filter(|handle| *handle.facts.org_id == *org);
    let Some(handle) = found else { return Told::default() };
    let done = act(&handle).await;
    Told { found: done, reached: u64::from(done), ..Told::default() }
}

async fn replay(pipeline: &Arc<Pipeline>, org: &str, session: Uuid, after: Option<&str>, subject: &str) -> Told {
    let own = |handle: &Handle| *handle.facts.org_id == *org && *handle.facts.subject == *subject;
    let Some(handle) = pipeline.sessions().find(session).filter(own) else { return Told::default() };
    let after = after.and_then(EventId::parse).unwrap_or(EventId { stream: 0, place: 0 });
    let (reply, told) = oneshot::channel();
    if handle.ask(Command::Replay { after, reply }).await.is_err() {
        return Told::default();
    }
    let events = told.await.unwrap_or_default().into_iter().filter_map(|(id, message)| {
        let message = RawValue::from_string(String::from_utf8(message.to_vec()).ok()?).ok()?;
        Some(Event { id: id.to_string(), message })
    });
    Told { found: true, events: events.collect(), ..Told::default() }
}
