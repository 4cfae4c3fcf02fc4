//! What a server's processes write, told as they write it: those of this node, and through a stream of its own each other node's. Ends when
//! the caller may not read it any more, or does not.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::stream::{self, Stream, StreamExt as _, select_all};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mcp_gateway::proto::node::v1::Via;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged;

use super::local::Line;
use super::stdio::{SERVER, line, stdio_server};
use super::{Unreachable, is_operator};
use crate::owned::stream::{End, Outgoing, Refused, Tap, stream};
use crate::pipeline::authenticate::Principal;
use crate::pipeline::denial::{Denial, OperateDenial};
use crate::pipeline::trail::Trail;
use crate::pipeline::{Pipeline, Reply};
use crate::relay::sessions::{ClientStream, events, until};
use crate::sse::Framer;
use crate::tasks::OnExit;

/// Where nodes ask each other for such a stream.
pub(crate) const BETWEEN_NODES: &str = "follow";
/// Pieces that leave as one where they are ready together.
const TOGETHER: usize = 256;
/// The largest event of another node: everything that it keeps of a server comes in one.
const LARGEST: usize = 16 << 20;
/// Signs of life of another node that may be missing.
const SILENCE: u32 = 3;

/// Whose lines are followed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Followed {
    org: String,
    /// Its slug.
    server: String,
}

/// What an event says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Piece {
    #[serde(default)]
    lines: Vec<Line>,
    /// Lines that came faster than they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missed: Vec<Missed>,
    /// Nodes that tell nothing any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<Unreachable>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Missed {
    node: String,
    lines: u64,
}

impl Piece {
    fn add(mut self, other: Self) -> Self {
        self.lines.extend(other.lines);
        self.missed.extend(other.missed);
        self.unreachable.extend(other.unreachable);
        self
    }

    fn silent(node: &str, why: impl Into<String>) -> Self {
        Self { unreachable: vec![Unreachable { node: node.to_owned(), why: why.into() }], ..Self::default() }
    }
}

/// Answers an operator with the lines of every node.
pub(super) async fn run(
    pipeline: &Arc<Pipeline>,
    (org, slug): (&str, &str),
    principal: Arc<Principal>,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    // Before it is judged for the first time: no change is missed.
    let changes = pipeline.live().changed();
    let followed = Followed { org: org.to_owned(), server: slug.to_owned() };
    let here = here(pipeline, &followed).ok_or(OperateDenial::NotFound(SERVER))?;
    trail.status(StatusCode::OK);
    let body = Bytes::from(serde_json::to_vec(&followed).expect("plain data serialises"));
    let others = pipeline.peers().others().into_iter().map(|node| there(pipeline.clone(), node, body.clone()).boxed());
    let all = select_all(others.chain([here.boxed()]));
    let until = until(pipeline, &principal);
    let lost = lost(pipeline.clone(), principal, changes);
    Ok(events(told(pipeline, all, lost, until).recorded_by(trail.hand_over())))
}

/// Answers another node with the lines of this one, for as long as that one reads.
pub(crate) fn answer(pipeline: &Arc<Pipeline>, followed: &Followed) -> Option<ClientStream> {
    let forever = Instant::now() + pipeline.config().timeouts.stream_max;
    Some(told(pipeline, here(pipeline, followed)?, std::future::pending(), forever))
}

/// The lines of this node: what is kept, then what comes.
fn here(pipeline: &Pipeline, followed: &Followed) -> Option<impl Stream<Item = Piece> + Send + use<>> {
    let config = pipeline.live().snapshot()?;
    let server = stdio_server(config.org(&followed.org)?, &followed.server)?;
    let (kept, coming) = pipeline.children().follow(&server.id);
    let node = pipeline.live().node();
    let kept = Piece { lines: kept.into_iter().map(|kept| line(&node, kept)).collect(), ..Piece::default() };
    let coming = BroadcastStream::new(coming).map(move |coming| match coming {
        Ok(coming) => Piece { lines: vec![line(&node, coming)], ..Piece::default() },
        Err(Lagged(lines)) => Piece { missed: vec![Missed { node: node.to_string(), lines }], ..Piece::default() },
    });
    Some(stream::once(ready(kept)).chain(coming))
}

/// The lines of another node; after what it says about its own end there is nothing.
fn there(pipeline: Arc<Pipeline>, node: String, body: Bytes) -> impl Stream<Item = Piece> + Send {
    let silence = pipeline.config().timeouts.keep_alive * SILENCE;
    let opened = async move {
        let path = format!("{}{BETWEEN_NODES}", crate::peers::ASIDE);
        match pipeline.peers().open(&node, Method::POST, &path, body).await {
            Ok(response) => heard(node, response, silence).boxed(),
            Err(error) => stream::once(ready(Piece::silent(&node, error.why()))).boxed(),
        }
    };
    stream::once(opened).flatten()
}

/// What another node says, until it is silent for longer than a node that lives ever is.
fn heard(node: String, response: Response<Incoming>, silence: Duration) -> impl Stream<Item = Piece> + Send {
    let from = Some((node, response.into_body(), Framer::new(LARGEST)));
    stream::unfold(from, move |from| async move {
        let (node, mut body, mut framer) = from?;
        loop {
            while let Ok(Some(event)) = framer.next_event() {
                let read = event.data().filter(|data| !data.is_empty()).map(|data| serde_json::from_slice(&data));
                if let Some(Ok(piece)) = read {
                    return Some((piece, Some((node, body, framer))));
                }
            }
            let why = match timeout(silence, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    framer.push(frame.into_data().unwrap_or_default());
                    continue;
                }
                Ok(Some(Err(error))) => crate::node::uplink::whole(&error),
                Ok(None) => "it ended its stream".to_owned(),
                Err(_elapsed) => "it says nothing any more".to_owned(),
            };
            return Some((Piece::silent(&node, why), None));
        }
    })
}

/// A stream of everything that is ready, until `lost` or the other side is gone.
fn told(
    pipeline: &Arc<Pipeline>,
    pieces: impl Stream<Item = Piece> + Send + 'static,
    lost: impl Future<Output = ()> + Send + 'static,
    until: Instant,
) -> ClientStream {
    let bounds = pipeline.sessions().settings();
    let (tap, spout) = stream(bounds.queue_messages, usize::try_from(bounds.queue_bytes).unwrap_or(usize::MAX));
    let draining = pipeline.relay().draining();
    pipeline.relay().tasks().spawn("follow-logs", OnExit::Ignore, async move {
        let end = tokio::select! {
            biased;
            () = draining.cancelled() => End::Draining,
            () = lost => End::Denied,
            () = tap.gone() => End::Closed,
            end = pump(pieces, &tap) => end,
        };
        tap.end(end);
    });
    ClientStream::new(spout, pipeline.config().timeouts.keep_alive, until, pipeline.metrics())
}

async fn pump(pieces: impl Stream<Item = Piece>, tap: &Tap) -> End {
    let mut ready = pin!(pieces.ready_chunks(TOGETHER));
    while let Some(pieces) = ready.next().await {
        let piece = pieces.into_iter().reduce(Piece::add).unwrap_or_default();
        let message = serde_json::to_vec(&piece).expect("plain data serialises").into();
        match tap.send(Outgoing::said(message)) {
            Ok(()) => {}
            Err(Refused::Slow) => return End::Slow,
            Err(Refused::Gone) => return End::Closed,
        }
    }
    End::Complete
}

/// Resolves when the caller may not read this any more.
async fn lost(pipeline: Arc<Pipeline>, principal: Arc<Principal>, mut changes: watch::Receiver<u64>) {
    loop {
        changes.borrow_and_update();
        if !may(&pipeline, &principal) {
            tracing::info!(subject = principal.subject, "a stream of what processes write was ended");
            pipeline.metrics().streams_revoked.inc();
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Whether whoever was let in would be let in now.
fn may(pipeline: &Pipeline, principal: &Principal) -> bool {
    let live = pipeline.live();
    let Some(config) = live.snapshot() else { return false };
    let Some(org) = config.org(&principal.org_id) else { return false };
    let holds = match principal.via {
        // A key's roles are the configuration's; a token's are its own until it expires.
        Via::ApiKey => config.api_key(&principal.credential_id).is_some_and(|key| is_operator(&Principal::of_key(key))),
        Via::Jwt => principal.proof.as_ref().is_some_and(|proof| proof.issuer(Some(org), &config).is_some()),
        Via::Anonymous | Via::Certificate | Via::Unspecified => true,
    };
    holds && !principal.revoked(&live.revocations())
}
