//! Streamable HTTP clients of owned sessions: a POST per message, a GET for what answers none, a DELETE for the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use mcp_gateway::snapshot::Snapshot;
use tokio::time::timeout;

use super::{ClientStream, Found, Side, find, forward, judge, keep_alive, open, pass, pipe, seal, until};
use crate::owned::stream::{End, EventId, Outgoing, Spout};
use crate::owned::{Command, Handle};
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{DecodeDenial, Denial, RelayDenial, RouteDenial};
use crate::pipeline::trail::{Stage, Trail};
use crate::pipeline::{Answer, Pipeline, Reply};
use crate::relay::{Lost, OK, outcome, whole};
use crate::transport::header::SESSION_ID;
use crate::transport::scan::Message;
use crate::transport::{Operation, Refusal};

/// How long an answer is waited for before a stream begins: most come at once, and need none.
const PROMPT: Duration = Duration::from_millis(50);

pub(super) async fn run(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    if call.call().operation() == Operation::Initialize {
        return begin(pipeline, call, config, trail).await;
    }
    let session = match find(pipeline, &call, config)? {
        Found::Here(session) => session,
        Found::Elsewhere(node) => return forward(pipeline, &call, &node, trail).await,
    };
    if call.call().is_batch() {
        return batch(pipeline, call, &session, trail).await;
    }
    if call.call().is_end() {
        return end(pipeline, call, &session, trail).await;
    }
    if call.call().http_method() == Method::GET {
        return listen(pipeline, call, &session, trail).await;
    }
    let passed = judge(pipeline, call, trail).await?;
    message(pipeline, passed, &session, trail).await
}

/// `initialize`: the session begins, and its token goes into the head of the answer.
async fn begin(pipeline: &Arc<Pipeline>, call: Authenticated, config: &Snapshot, trail: &mut Trail) -> Result<Reply, Denial> {
    let passed = judge(pipeline, call, trail).await?;
    let session = open(pipeline, &passed.call, config, Side::Client).await?;
    let token = seal(pipeline, &passed.call, &session, config)?;
    trail.spoken_in(&token);
    let (tap, mut spout) = pipe(pipeline);
    pass(passed, &session, Some(tap), trail).await?;
    let answer = loop {
        match spout.next().await {
            Ok(outgoing) if outgoing.last => break outgoing,
            // A session that is not open has nothing else to say.
            Ok(_early) => continue,
            Err(end) => return Err(over(end)),
        }
    };
    let mut reply = json(answer).await;
    if let Answer::Whole(body, _) = &reply.answer
        && outcome::of(body).is_some_and(|answered| answered.code == 0)
    {
        let token = HeaderValue::from_str(&token).expect("a sealed token is visible ASCII");
        reply.headers.insert(SESSION_ID, token);
    } else {
        session.end(End::Closed).await;
    }
    Ok(reply)
}

/// A message in a session.
async fn message(pipeline: &Arc<Pipeline>, passed: super::Passed, session: &Handle, trail: &mut Trail) -> Result<Reply, Denial> {
    let is_request = passed.call.call().message().is_some_and(Message::is_request);
    if !is_request {
        pass(passed, session, None, trail).await?;
        return Ok(whole(StatusCode::ACCEPTED, HeaderMap::new(), Bytes::new(), OK));
    }
    let (keep_alive, until) = (keep_alive(pipeline, &passed.call), until(pipeline, passed.call.principal()));
    let (tap, mut spout) = pipe(pipeline);
    pass(passed, session, Some(tap), trail).await?;
    let mut held = Vec::new();
    match timeout(PROMPT, prompt(&mut spout, &mut held)).await {
        Ok(Ok(answer)) => return Ok(json(answer).await),
        // The client gave the call up: there is nothing to answer.
        Ok(Err(End::Complete)) => {}
        Ok(Err(end)) if held.is_empty() => return Err(over(end)),
        Ok(Err(_)) | Err(_) => {}
    }
    let stream = ClientStream::new(spout, keep_alive, until, pipeline.metrics()).holding(held);
    Ok(events(stream))
}

/// The answer, if nothing else comes before it; what does is held.
pub(super) async fn prompt(spout: &mut Spout, held: &mut Vec<Outgoing>) -> Result<Outgoing, End> {
    loop {
        let outgoing = spout.next().await?;
        if outgoing.last && held.iter().all(|earlier| earlier.message.is_empty()) {
            return Ok(outgoing);
        }
        let is_said = !outgoing.message.is_empty();
        held.push(outgoing);
        if is_said {
            return Err(End::Complete);
        }
    }
}

/// The stream for what answers no request; or one that broke, from where it did.
async fn listen(pipeline: &Arc<Pipeline>, call: Authenticated, session: &Handle, trail: &mut Trail) -> Result<Reply, Denial> {
    let after = match call.call().last_event_id() {
        Some(text) => Some(EventId::parse(text).ok_or(DecodeDenial::from(Refusal::EventId))?),
        None => None,
    };
    let (keep_alive, until) = (keep_alive(pipeline, &call), until(pipeline, call.principal()));
    let passed = judge(pipeline, call, trail).await?;
    trail.mark(Stage::Route);
    trail.allowed().await?;
    let (tap, spout) = pipe(pipeline);
    session.ask(Command::Attach { tap, after }).await.map_err(|_over| RouteDenial::NoSession)?;
    trail.status(StatusCode::OK);
    let stream = ClientStream::new(spout, keep_alive, until, pipeline.metrics()).recorded_by(trail.hand_over());
    Ok(events(stream.seated(passed.seat)))
}

async fn end(pipeline: &Arc<Pipeline>, call: Authenticated, session: &Handle, trail: &mut Trail) -> Result<Reply, Denial> {
    judge(pipeline, call, trail).await?;
    trail.mark(Stage::Route);
    trail.allowed().await?;
    session.end(End::Closed).await;
    Ok(whole(StatusCode::OK, HeaderMap::new(), Bytes::new(), OK))
}

/// Several messages of a 2025-03-26 session: each by itself, the answers together.
async fn batch(pipeline: &Arc<Pipeline>, call: Authenticated, session: &Handle, trail: &mut Trail) -> Result<Reply, Denial> {
    if !session.facts.version.get().is_some_and(|version| version.has_batches()) {
        return Err(DecodeDenial::from(Refusal::Batch).into());
    }
    trail.allowed().await?;
    super::rpc::several(pipeline, call, session, trail).await
}

/// Why the session has no answer.
pub(super) fn over(end: End) -> Denial {
    match end {
        End::Denied => RouteDenial::Lost(Lost::Revoked).into(),
        End::ServerGone | End::Slow => RelayDenial::Broken.into(),
        End::Complete | End::Closed | End::Replaced | End::Draining => RouteDenial::NoSession.into(),
    }
}

/// An answer as JSON, once it is on record.
pub(super) async fn json(answer: Outgoing) -> Reply {
    if let Some(recorded) = answer.recorded {
        recorded.await;
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    whole(StatusCode::OK, headers, answer.message, OK)
}

/// An answer as events.
pub(crate) fn events(stream: ClientStream) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx and its like would otherwise hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    Reply { status: StatusCode::OK, headers, answer: Answer::Stream(Box::new(stream)) }
}
