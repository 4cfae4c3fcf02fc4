//! Processes of stdio servers: what this node runs of an organisation, what they write, and one request in a session of its own. Which program
//! runs is the registration's to say; nothing of an order reaches it.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use mcp_gateway::snapshot::{Org, Server, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::local::Told;
use super::order::parameter;
use crate::children::{ChildStatus, LogLine, State, Stream};
use crate::owned::Command;
use crate::pipeline::authenticate::{Authenticated, Principal};
use crate::pipeline::decode::Decoded;
use crate::pipeline::denial::{DecodeDenial, Denial, OperateDenial};
use crate::pipeline::target::Place;
use crate::pipeline::trail::Trail;
use crate::pipeline::{Pipeline, Reply};
use crate::relay;
use crate::tasks::OnExit;
use crate::transport::{message, scan};
use crate::upstream::link::SHARED;

/// What is not there if a slug names none.
pub(super) const SERVER: &str = "stdio server";

/// One process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub process: Uuid,
    pub node: String,
    pub server: String,
    /// The session that it serves, or `shared`.
    pub owner: String,
    pub pid: u32,
    /// Seconds since the Unix epoch.
    pub started_at: u64,
    /// `running` or `ending`.
    pub state: String,
    pub messages_in: u64,
    pub messages_out: u64,
}

/// One line that a process wrote beside messages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub node: String,
    /// Grows from line to line of a node.
    pub number: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub pid: u32,
    /// `stderr`, or `stdout` for what was no message.
    pub stream: String,
    pub text: String,
}

pub(super) fn processes(pipeline: &Arc<Pipeline>, org: &str) -> Told {
    let (node, config) = (pipeline.live().node(), pipeline.live().snapshot());
    let slug = |id: &str| {
        config.as_ref().and_then(|config| config.server(id)).map_or_else(|| id.to_owned(), |(_, server)| server.slug.to_string())
    };
    let own = pipeline.children().list().into_iter().filter(|child| *child.org_id == *org);
    let described = own.map(|child| Process {
        process: child.id,
        node: node.to_string(),
        server: slug(&child.server_id),
        owner: child.owner,
        pid: child.pid,
        started_at: child.started_at_ms / 1000,
        state: match child.state {
            State::Running => "running".to_owned(),
            State::Ending => "ending".to_owned(),
        },
        messages_in: child.messages_in,
        messages_out: child.messages_out,
    });
    Told { processes: Some(described.collect()), ..Told::default() }
}

pub(super) fn stop(pipeline: &Arc<Pipeline>, org: &str, process: Uuid) -> Told {
    let found = find(pipeline, org, process).is_some_and(|child| pipeline.children().stop(child.id));
    Told { found, reached: u64::from(found), ..Told::default() }
}

/// Ends a process that sessions share and starts another, as the server is registered now. Both take longer than an order may, so this
/// only sees to it that they happen.
pub(super) fn restart(pipeline: &Arc<Pipeline>, org: &str, process: Uuid) -> Told {
    let Some(child) = find(pipeline, org, process) else { return Told::default() };
    let config = pipeline.live().snapshot();
    let server = config.as_ref().and_then(|config| config.server(&child.server_id)).map(|(_, server)| server.clone());
    let (Some(config), Some(server), Some(handle)) = (config, server, pipeline.children().get(process)) else {
        return Told::default();
    };
    if child.owner != SHARED {
        return Told { found: true, ..Told::default() };
    }
    let own = pipeline.clone();
    pipeline.relay().tasks().spawn("restart-process", OnExit::Ignore, async move {
        let restarted = relay::sessions::restart(&own, &server, &config, handle).await;
        if let Err(error) = restarted {
            tracing::warn!(server = %server.slug, %error, "no process was started in the place of a shared one");
        }
    });
    Told { found: true, reached: 1, ..Told::default() }
}

/// Into a process through its session, so that the order of messages stays one.
pub(super) async fn tell(pipeline: &Arc<Pipeline>, org: &str, process: Uuid, said: &RawValue) -> Told {
    let owner = find(pipeline, org, process).and_then(|child| Uuid::try_parse(&child.owner).ok());
    let session = owner.and_then(|owner| pipeline.sessions().find(owner)).filter(|session| *session.facts.org_id == *org);
    let read = message(&Bytes::from(said.get().to_owned()), &scan::Limits::default());
    let (Some(session), Ok(message)) = (session, read) else { return Told::default() };
    let found = session.ask(Command::Tell { message: Box::new(message) }).await.is_ok();
    Told { found, reached: u64::from(found), ..Told::default() }
}

pub(super) fn logs(pipeline: &Arc<Pipeline>, org: &str, slug: &str) -> Told {
    let config = pipeline.live().snapshot();
    let Some(server) = config.as_ref().and_then(|config| stdio_server(config.org(org)?, slug)) else { return Told::default() };
    let node = pipeline.live().node();
    let lines = pipeline.children().logs(&server.id).into_iter().map(|kept| line(&node, kept));
    Told { found: true, lines: Some(lines.collect()), ..Told::default() }
}

pub(super) fn line(node: &str, line: LogLine) -> Line {
    Line {
        node: node.to_owned(),
        number: line.number,
        at_ms: line.at_ms,
        pid: line.pid,
        stream: match line.stream {
            Stream::Stderr => "stderr".to_owned(),
            Stream::Stdout => "stdout".to_owned(),
        },
        text: line.text.to_string(),
    }
}

/// One request to a registered server in a process that is started for it and ends with it; judged, limited and recorded as every call. Where
/// sessions share a process, the request has a session of its own there, which ends with it: its answer cannot reach anybody else, what it
/// asked for goes with it, and a second process would hold what the registration says is to be held once.
pub(super) async fn execute(
    pipeline: &Arc<Pipeline>,
    principal: Arc<Principal>,
    (head, body): (Parts, Bytes),
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    let slug = parameter(&head, "server").ok_or(OperateDenial::Bad("`?server=` has to name a server of the organisation's"))?;
    let org = config.org(&principal.org_id).ok_or(OperateDenial::Organization)?;
    let server = stdio_server(org, slug).ok_or(OperateDenial::NotFound(SERVER))?;
    trail.target(org, &server);
    let place = Place::Server { org: org.clone(), server };
    let read = message(&body, &pipeline.scan_limits(&place)).map_err(DecodeDenial::from)?;
    trail.echo(read.id());
    let call = Decoded::without_session(place, head, read);
    call.describe(trail);
    let call = Authenticated::recognised(call, principal).ok_or(OperateDenial::NotFound(SERVER))?;
    relay::sessions::execute(pipeline, call, config, trail).await
}

fn find(pipeline: &Arc<Pipeline>, org: &str, process: Uuid) -> Option<ChildStatus> {
    pipeline.children().list().into_iter().find(|child| child.id == process && *child.org_id == *org)
}

pub(super) fn stdio_server(org: &Org, slug: &str) -> Option<Arc<Server>> {
    org.servers().find(|server| *server.slug == *slug && server.stdio.is_some()).cloned()
}
