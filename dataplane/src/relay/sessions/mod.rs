//! Between clients and owned sessions: opens them, finds them, brings each message through the pipeline's later stages to its session,
//! and the session's streams back over the client's transport. Every message is judged, limited and recorded by itself.

mod events;
mod exchange;
pub(crate) mod modern;
mod own;
mod rpc;
pub(crate) mod socket;
mod sse;
mod streamable;

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mcp_gateway::snapshot::{Server, Snapshot};
use tokio::time::Instant;

use crate::bridge;
use crate::bridge::legacy_server::Persona;
use crate::children;
use crate::owned::stream::{self, Spout, Tap};
use crate::owned::{Command, Handle, Manners};
use crate::peers::Forward;
use crate::pipeline::authenticate::{Authenticated, LEEWAY_SECONDS, Principal, seconds_since_epoch};
use crate::pipeline::denial::{Denial, RouteDenial};
use crate::pipeline::limit::{self, Seat};
use crate::pipeline::route::{self, holder};
use crate::pipeline::target::Upgrade;
use crate::pipeline::trail::{Going, Stage, Trail};
use crate::pipeline::{Answer, Pipeline, Reply, authorize};
use crate::session::{self, Owned, Token};
use crate::tasks::{OnExit, Tasks};
use crate::transport::scan::Message;
use crate::transport::{ClientTransport, Era};
use crate::upstream::link::Way;
use crate::upstream::place;

pub use events::ClientStream;
pub(crate) use rpc::execute;
pub(crate) use streamable::events;

/// Answers a request whose server is reached through an owned session.
pub async fn run(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    upgrade: Option<Upgrade>,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    match call.call().client() {
        ClientTransport::StreamableHttp => streamable::run(pipeline, call, config, trail).await,
        ClientTransport::HttpSse => sse::run(pipeline, call, config, trail).await,
        ClientTransport::WebSocket => socket::run(pipeline, call, upgrade, config, trail).await,
        ClientTransport::JsonRpc => rpc::run(pipeline, call, config, trail).await,
    }
}

/// A message that may go, and the room it takes.
struct Passed {
    call: Authenticated,
    seat: Seat,
}

/// The stages between authentication and the session.
async fn judge(pipeline: &Pipeline, call: Authenticated, trail: &mut Trail) -> Result<Passed, Denial> {
    let call = authorize::judge(call, trail)?;
    trail.mark(Stage::Authorize);
    let call = limit::admit(call, pipeline.limiter(), trail).await?;
    trail.mark(Stage::Limit);
    let (call, seat) = call.into_parts();
    Ok(Passed { call: call.into_call(), seat })
}

/// Puts a message on record and hands it to its session. What is answered is answered on `tap`, or on the session's own stream.
async fn pass(passed: Passed, session: &Handle, tap: Option<Tap>, trail: &mut Trail) -> Result<(), Denial> {
    let Passed { call, seat } = passed;
    on_record(&call, session, trail).await?;
    let is_request = call.call().message().is_some_and(Message::is_request);
    let caller = call.principal().clone();
    let message = Box::new(call.into_call().into_message().ok_or(RouteDenial::NoSession)?);
    let command = if is_request {
        trail.status(StatusCode::OK);
        Command::Call { message, record: Some(Box::new((trail.hand_over(), seat))), tap, caller: Some(caller) }
    } else {
        Command::Tell { message }
    };
    session.ask(command).await.map_err(|_over| RouteDenial::NoSession.into())
}

/// The decision about a message, with where it goes.
async fn on_record(call: &Authenticated, session: &Handle, trail: &mut Trail) -> Result<(), Denial> {
    trail.mark(Stage::Route);
    let facts = &session.facts;
    let era = facts.server_era.get().copied().unwrap_or(Era::Legacy);
    let going = Going { transport: bridge::name(facts.server_transport), era, place: &facts.place };
    // A modern client states its version itself, whatever is spoken behind the gateway.
    let version = facts.version.get().copied().filter(|_| call.call().era() == Era::Legacy);
    Ok(trail.relayed(call, going, version).await?)
}

/// Who is on the client's side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// One legacy client, which can be asked and told everything.
    Client,
    /// Callers without a session, who get nothing but the answers to their requests.
    Callers,
    /// Modern clients who say this of themselves.
    Modern(Persona),
}

/// Opens a session of the caller's with the server that it called.
async fn open(pipeline: &Pipeline, caller: &Authenticated, config: &Snapshot, side: Side) -> Result<Handle, Denial> {
    let era = match side {
        Side::Client | Side::Callers => Era::Legacy,
        Side::Modern(_) => Era::Modern,
    };
    let way = Way { listens: side != Side::Callers, client: era, ..way(pipeline, caller.server(), config).await? };
    let client = caller.call().client();
    let of_node = pipeline.config().transports.of(client).session_idle;
    let idle = caller.server().client_transports.settings(client.into()).session_idle.unwrap_or(of_node);
    let manners = Manners {
        client,
        resumable: client == ClientTransport::StreamableHttp && side == Side::Client,
        listens: side != Side::Callers,
        lives_with_stream: match side {
            Side::Client => matches!(client, ClientTransport::HttpSse | ClientTransport::WebSocket),
            Side::Callers | Side::Modern(_) => false,
        },
        modern: match side {
            Side::Client | Side::Callers => None,
            Side::Modern(persona) => Some(persona),
        },
        idle,
    };
    let opened = pipeline.sessions().open(caller, way, manners);
    opened.map_err(|refused| RouteDenial::from(refused).into())
}

/// Where the server is.
async fn way(pipeline: &Pipeline, server: &Arc<Server>, config: &Snapshot) -> Result<Way, RouteDenial> {
    let place = route::place(server, config, &pipeline.live().drained())?;
    let (transport, eras) = pipeline.upstreams().found_out(server, &place.url, place.credential.as_ref()).await;
    let (limits, timeouts) = (&pipeline.config().limits, &pipeline.config().timeouts);
    Ok(Way {
        server: server.clone(),
        transport,
        eras,
        client: Era::Legacy,
        listens: true,
        url: place.url,
        credential: place.credential,
        variable: place.variable,
        message_bytes: usize::try_from(limits.list_bytes).unwrap_or(usize::MAX),
        keep_alive: timeouts.keep_alive,
        connect_timeout: timeouts.connect,
    })
}

/// Ends a process that sessions share, and starts another as the server is registered now.
pub(crate) async fn restart(
    pipeline: &Pipeline,
    server: &Arc<Server>,
    config: &Snapshot,
    process: children::Handle,
) -> anyhow::Result<()> {
    let way = way(pipeline, server, config).await?;
    let reach = pipeline.sessions().reach();
    Ok(reach.hubs.restart(&way, reach, process).await?)
}

/// A stream with the bounds of this process.
fn pipe(pipeline: &Pipeline) -> (Tap, Spout) {
    let bounds = pipeline.sessions().settings();
    stream::stream(bounds.queue_messages, usize::try_from(bounds.queue_bytes).unwrap_or(usize::MAX))
}

/// The token of a session that lives here.
fn seal(pipeline: &Pipeline, caller: &Authenticated, session: &Handle, config: &Snapshot) -> Result<String, RouteDenial> {
    let now = u64::try_from(seconds_since_epoch()).unwrap_or(0);
    let owned = Owned {
        id: session.id,
        node: pipeline.live().node().as_str().into(),
        expires_at: now + pipeline.config().timeouts.session.as_secs(),
    };
    let key = config.session_keys().current().ok_or(RouteDenial::NoSessionKey)?;
    let holder = holder(caller.principal(), caller.server());
    session::seal(key, &holder, &Token::Owned(owned)).map_err(|_crypto| RouteDenial::NoSessionKey)
}

/// Where the session of a request is.
enum Found {
    Here(Handle),
    /// In the node with this id.
    Elsewhere(Box<str>),
}

/// The session that a request names.
fn find(pipeline: &Pipeline, call: &Authenticated, config: &Snapshot) -> Result<Found, RouteDenial> {
    let Some(Token::Owned(owned)) = route::open_token(call, config)? else { return Err(RouteDenial::NoSession) };
    if *owned.node != **pipeline.live().node() {
        return Ok(Found::Elsewhere(owned.node));
    }
    pipeline.sessions().find(owned.id).map(Found::Here).ok_or(RouteDenial::NoSession)
}

/// Hands a request on to the node that owns its session, which decides, counts and records it. A node that is gone has taken its sessions
/// with it.
async fn forward(pipeline: &Pipeline, call: &Authenticated, node: &str, trail: &mut Trail) -> Result<Reply, Denial> {
    let request = Forward {
        method: call.call().http_method().clone(),
        path: path(call),
        headers: call.call().headers().clone(),
        body: call.call().whole_body(),
        address: trail.address(),
        request_id: trail.id(),
    };
    match pipeline.peers().forward(node, request).await {
        Ok(response) => {
            trail.forget();
            let (head, body) = response.into_parts();
            Ok(Reply { status: head.status, headers: head.headers, answer: Answer::Forwarded(body) })
        }
        Err(error) => {
            tracing::info!(%error, "the node that owns a session cannot be reached");
            Err(RouteDenial::NoSession.into())
        }
    }
}

/// A connection that another node answers: once both have become sockets, everything passes through as it is.
pub fn pass_through(mut opened: Response<Incoming>, upgrade: Upgrade, tasks: &Tasks) -> Reply {
    if opened.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut opened);
        tasks.spawn("pass-through", OnExit::Ignore, async move {
            let Upgrade { connection, kept: _kept } = upgrade;
            let Ok((ours, theirs)) = tokio::try_join!(connection, theirs) else { return };
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            // Either side may simply be gone.
            let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
        });
    }
    let (head, body) = opened.into_parts();
    Reply { status: head.status, headers: head.headers, answer: Answer::Forwarded(body) }
}

/// Where a request of a session went, in the one spelling that names the server by its id.
fn path(call: &Authenticated) -> String {
    let server = &call.server().id;
    match call.call().client() {
        ClientTransport::HttpSse => format!("/servers/{server}/sse/events?session={}", call.call().session().unwrap_or_default()),
        ClientTransport::StreamableHttp | ClientTransport::WebSocket | ClientTransport::JsonRpc => {
            format!("/servers/{server}/mcp")
        }
    }
}

/// Until when a stream of the principal's may last.
pub(crate) fn until(pipeline: &Pipeline, principal: &Principal) -> Instant {
    let left = |moment: i64| Duration::from_secs(u64::try_from(moment + LEEWAY_SECONDS - seconds_since_epoch()).unwrap_or(0));
    let proved = principal.expires_at.map_or(Duration::MAX, left);
    Instant::now() + pipeline.config().timeouts.stream_max.min(proved)
}

/// Between two signs of life on a silent stream.
fn keep_alive(pipeline: &Pipeline, call: &Authenticated) -> Duration {
    let settings = call.server().client_transports.settings(call.call().client().into());
    settings.keep_alive.unwrap_or(pipeline.config().transports.of(call.call().client()).keep_alive)
}

/// For records: where a session's server is.
pub fn place_of(way: &Way) -> String {
    match &way.server.stdio {
        Some(stdio) => format!("stdio:{}", stdio.command.first().map_or("", |program| program.as_str())),
        None => place(&way.url).to_string(),
    }
}
