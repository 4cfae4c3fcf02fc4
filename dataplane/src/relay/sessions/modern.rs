//! Modern clients (2026-07-28) of legacy servers: every request by itself, judged, limited and recorded as any other, in a session that the
//! gateway has with the server for callers who say the same of themselves.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use mcp_gateway::snapshot::Snapshot;
use tokio::time::timeout;

use super::own::{self, Line};
use super::streamable::{events, json, over, prompt};
use super::{ClientStream, Passed, judge, keep_alive, pass, pipe, until};
use crate::bridge;
use crate::bridge::legacy_server::{Persona, codes};
use crate::owned::Handle;
use crate::owned::stream::End;
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{DecodeDenial, Denial, RelayDenial, RouteDenial};
use crate::pipeline::trail::{Going, Stage, Trail};
use crate::pipeline::{Pipeline, Reply};
use crate::relay::{OK, whole};
use crate::transport::scan::Message;
use crate::transport::{Era, Operation, Refusal};

/// Answers a modern client's request to a legacy server.
pub(crate) async fn run(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    let Some(message) = call.call().message() else { return Err(RouteDenial::NoSession.into()) };
    let (persona, method) = (Persona::of(message), message.method().unwrap_or_default());
    if method.starts_with("tasks/") {
        // The tasks of 2025-11-25 have the same names, and are others.
        return Err(DecodeDenial::from(Refusal::RemovedMethod).into());
    }
    let says_nothing = method == "notifications/cancelled";
    let passed = judge(pipeline, call, trail).await?;
    if says_nothing {
        // Over HTTP, a request is given up by closing its stream; ids of others mean nothing here.
        trail.allowed().await?;
        return Ok(accepted());
    }
    let session = own::session(pipeline, &passed.call, Some(persona), config).await.map_err(unreachable)?;
    if !passed.call.call().message().is_some_and(Message::is_request) {
        pass(passed, &session, None, trail).await.map_err(unreachable)?;
        return Ok(accepted());
    }
    match passed.call.call().operation() {
        Operation::Discover => discover(&passed, &session, trail).await,
        _ => answer(pipeline, passed, &session, trail).await,
    }
}

fn accepted() -> Reply {
    whole(StatusCode::ACCEPTED, HeaderMap::new(), Bytes::new(), OK)
}

/// A client that has no session is not told that one is lost.
fn unreachable(denial: Denial) -> Denial {
    match denial {
        Denial::Route(RouteDenial::NoSession) => RelayDenial::Broken.into(),
        denial => denial,
    }
}

/// What the server said when it was greeted.
async fn discover(passed: &Passed, session: &Handle, trail: &mut Trail) -> Result<Reply, Denial> {
    let call = &passed.call;
    trail.mark(Stage::Route);
    let facts = &session.facts;
    let going = Going { transport: bridge::name(facts.server_transport), era: Era::Legacy, place: &facts.place };
    trail.relayed(call, going, None).await?;
    let id = call.call().message().and_then(Message::id).unwrap_or("null");
    let greeting = facts.greeting.get().ok_or(RelayDenial::BadInitialize)?;
    Ok(Reply::json(StatusCode::OK, greeting.discover(id), OK))
}

/// A request, answered by what the session says about it.
async fn answer(pipeline: &Arc<Pipeline>, passed: Passed, session: &Handle, trail: &mut Trail) -> Result<Reply, Denial> {
    let (keep_alive, until) = (keep_alive(pipeline, &passed.call), until(pipeline, passed.call.principal()));
    let (tap, mut spout) = pipe(pipeline);
    let mut line = Line::new(session, pipeline, trail.id());
    pass(passed, session, Some(tap), trail).await.map_err(unreachable)?;
    let mut held = Vec::new();
    // A head is needed once there is something to say, be it that the stream lives; until then an error may still choose its status.
    match timeout(keep_alive, prompt(&mut spout, &mut held)).await {
        Ok(Ok(answer)) => {
            line.close();
            let status = codes::status(answer.code);
            return Ok(Reply { status, ..json(answer).await });
        }
        // Something comes before the answer.
        Ok(Err(End::Complete)) => {}
        Ok(Err(end)) if held.is_empty() => return Err(unreachable(over(end))),
        Ok(Err(_)) | Err(_) => {}
    }
    let stream = ClientStream::new(spout, keep_alive, until, pipeline.metrics()).holding(held);
    Ok(events(stream.given_up_by(line)))
}
