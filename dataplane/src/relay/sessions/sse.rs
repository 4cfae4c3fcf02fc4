//! HTTP+SSE clients (2024-11-05): one stream brings everything, its first event names where messages are posted. What is wrong with a
//! request is said on the stream: clients do not read the answers to their posts.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use http::{Method, StatusCode};
use mcp_gateway::snapshot::Snapshot;

use super::streamable::events;
use super::{ClientStream, Found, Side, find, forward, judge, keep_alive, open, pass, pipe, seal, until};
use crate::owned::{Command, Handle};
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{Denial, RouteDenial};
use crate::pipeline::trail::{Stage, Trail};
use crate::pipeline::{Pipeline, Reply};
use crate::relay::{OK, whole};
use crate::transport::scan::Message;

pub(super) async fn run(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    if call.call().http_method() == Method::GET {
        return begin(pipeline, call, config, trail).await;
    }
    let session = match find(pipeline, &call, config)? {
        Found::Here(session) => session,
        Found::Elsewhere(node) => return forward(pipeline, &call, &node, trail).await,
    };
    let is_request = call.call().message().is_some_and(Message::is_request);
    match post(pipeline, call, &session, trail).await {
        Ok(()) => {}
        Err(denial) if is_request => refuse(pipeline, denial, &session, trail).await?,
        Err(denial) => return Err(denial),
    }
    Ok(whole(StatusCode::ACCEPTED, HeaderMap::new(), Bytes::new(), OK))
}

async fn begin(pipeline: &Arc<Pipeline>, call: Authenticated, config: &Snapshot, trail: &mut Trail) -> Result<Reply, Denial> {
    let (keep_alive, until) = (keep_alive(pipeline, &call), until(pipeline, call.principal()));
    let passed = judge(pipeline, call, trail).await?;
    trail.mark(Stage::Route);
    let session = open(pipeline, &passed.call, config, Side::Client).await?;
    let token = seal(pipeline, &passed.call, &session, config)?;
    trail.allowed().await?;
    let (tap, spout) = pipe(pipeline);
    session.ask(Command::Attach { tap, after: None }).await.map_err(|_over| RouteDenial::NoSession)?;
    trail.status(StatusCode::OK);
    let mut first = BytesMut::new();
    // Relative, so that it is right behind every proxy that leaves the path alone.
    let endpoint = format!("/servers/{}/sse/events?session={token}", passed.call.server().id);
    first.extend_from_slice(format!("event: endpoint\ndata: {endpoint}\n\n").as_bytes());
    let stream = ClientStream::new(spout, keep_alive, until, pipeline.metrics()).beginning_with(first.freeze());
    Ok(events(stream.recorded_by(trail.hand_over()).seated(passed.seat)))
}

async fn post(pipeline: &Arc<Pipeline>, call: Authenticated, session: &Handle, trail: &mut Trail) -> Result<(), Denial> {
    let passed = judge(pipeline, call, trail).await?;
    pass(passed, session, None, trail).await
}

/// Says on the stream why a request is refused.
pub(super) async fn refuse(pipeline: &Pipeline, denial: Denial, session: &Handle, trail: &mut Trail) -> Result<(), Denial> {
    let denial = pipeline.counted(denial, trail);
    let wire = denial.wire();
    let body = Bytes::from(wire.body(trail.echoed()));
    trail.refused(&denial, &wire, body.len() as u64);
    trail.settled().await;
    session.ask(Command::Say { message: body }).await.map_err(|_over| RouteDenial::NoSession.into())
}
