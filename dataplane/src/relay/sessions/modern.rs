//! Modern clients (2026-07-28) of legacy servers, and of modern ones over a connection that lasts: every request by itself, judged, limited
//! and recorded as any other, in a session that the gateway has with the server for callers who say the same of themselves.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use mcp_gateway::snapshot::Snapshot;
use serde_json::json;
use tokio::time::timeout;

use super::own::{self, Line};
use super::streamable::{events, json, over, prompt};
use super::{ClientStream, Passed, forward, judge, keep_alive, on_record, pass, pipe, until};
use crate::bridge::legacy_server::request::{self, Retry};
use crate::bridge::legacy_server::{Persona, Wanted, codes, question};
use crate::owned::stream::End;
use crate::owned::{Across, Claim, Command, Continued, Handle, Listen};
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{DecodeDenial, Denial, RelayDenial, RouteDenial};
use crate::pipeline::route;
use crate::pipeline::trail::Trail;
use crate::pipeline::{Pipeline, Reply};
use crate::relay::outcome;
use crate::relay::{OK, whole};
use crate::session::{OpenError, Parked, Token, Waiting};
use crate::transport::scan::Message;
use crate::transport::{ClientTransport, Operation, Refusal};

/// Answers a modern client's request.
pub(crate) async fn run(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    let Some(message) = call.call().message() else { return Err(RouteDenial::NoSession.into()) };
    let (persona, method) = (Persona::of(message), message.method().unwrap_or_default());
    let of_tasks = method.starts_with("tasks/");
    let (says_nothing, may_ask) = (method == "notifications/cancelled", question::may_ask(method));
    let retry = Some(message).filter(|_| may_ask).and_then(Retry::of);
    let (onward, doubt) = match retry.map(|retry| continued(pipeline, &call, retry, config)) {
        None => (Onward::default(), None),
        Some(Ok(Place::Here(onward))) => (onward, None),
        Some(Ok(Place::Elsewhere(node))) => return forward(pipeline, &call, &node, trail).await.map_err(lost),
        // A server of the modern era has states of its own.
        Some(Err(denial)) => (Onward::default(), Some(denial)),
    };
    let passed = judge(pipeline, call, trail).await?;
    if says_nothing {
        // Over HTTP, a request is given up by closing its stream; ids of others mean nothing here.
        trail.allowed().await?;
        return Ok(accepted());
    }
    let (session, claim) = match &onward.continues {
        Some((session, _)) => (session.clone(), None),
        None => own::of_request(pipeline, &passed.call, (persona, may_ask), config).await.map_err(unreachable)?,
    };
    let untouched = session.is_untouched();
    match doubt {
        Some(denial) if !untouched => return Err(denial.into()),
        // The tasks of 2025-11-25 have the same names, and are others.
        None if of_tasks && !untouched => return Err(DecodeDenial::from(Refusal::RemovedMethod).into()),
        _ => {}
    }
    if !passed.call.call().message().is_some_and(Message::is_request) {
        pass(passed, &session, None, trail).await.map_err(unreachable)?;
        return Ok(accepted());
    }
    match passed.call.call().operation() {
        Operation::Discover if !untouched => discover(&passed, &session, trail).await,
        Operation::Listen if !untouched => listen(pipeline, passed, (&session, claim), trail).await,
        _ => answer(pipeline, passed, &session, Onward { claim, ..onward }, trail).await,
    }
}

/// What a request brings along into a session.
#[derive(Default)]
struct Onward {
    claim: Option<Claim>,
    round: u32,
    continues: Option<(Handle, Continued)>,
}

/// Where the call waits that a request continues.
enum Place {
    Here(Onward),
    /// In the node with this id.
    Elsewhere(Box<str>),
}

/// What a request continues: a call that waits here or in another node, or nothing but the answers that it was asked for.
fn continued(pipeline: &Pipeline, call: &Authenticated, retry: Retry, config: &Snapshot) -> Result<Place, RouteDenial> {
    let Retry { state, answers } = retry;
    let state = state.ok_or(RouteDenial::Continuation("it has none"))?;
    let parked = match route::open_text(call, config, &state) {
        Ok(Token::Parked(parked)) => parked,
        Ok(Token::Sealed(_) | Token::Owned(_)) => return Err(RouteDenial::Continuation("it is a session's")),
        Err(OpenError::Expired) => return Err(RouteDenial::ContinuationLost),
        Err(error) => return Err(RouteDenial::Continuation(error.reason())),
    };
    let Parked { call: waiting, round, digest, .. } = parked;
    if call.call().message().is_none_or(|message| request::digest(message) != digest) {
        return Err(RouteDenial::Continuation("it is another request's"));
    }
    let Some(Waiting { node, session, number }) = waiting else {
        let is_accepted = |answer: &Bytes| {
            let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
            answer["action"] == "accept"
        };
        let opened = !answers.is_empty() && answers.iter().all(|(_, answer)| is_accepted(answer));
        return if opened { Ok(Place::Here(Onward { round, ..Onward::default() })) } else { Err(RouteDenial::NotOpened) };
    };
    if *node != **pipeline.live().node() {
        // What came over a socket has no credential of its own that another node could look at.
        let is_alone = call.call().client() != ClientTransport::WebSocket;
        return if is_alone { Ok(Place::Elsewhere(node)) } else { Err(RouteDenial::ContinuationLost) };
    }
    let session = pipeline.sessions().find(session).ok_or(RouteDenial::ContinuationLost)?;
    Ok(Place::Here(Onward { claim: None, round, continues: Some((session, Continued { number, answers })) }))
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

/// The node or the session in which a call waited is gone, and the call with it.
fn lost(denial: Denial) -> Denial {
    match denial {
        Denial::Route(RouteDenial::NoSession) => RouteDenial::ContinuationLost.into(),
        denial => denial,
    }
}

/// What the server said when it was greeted.
async fn discover(passed: &Passed, session: &Handle, trail: &mut Trail) -> Result<Reply, Denial> {
    on_record(&passed.call, session, trail).await?;
    let id = passed.call.call().message().and_then(Message::id).unwrap_or("null");
    let greeting = session.facts.greeting.get().ok_or(RelayDenial::BadInitialize)?;
    Ok(Reply::json(StatusCode::OK, greeting.discover(id), OK))
}

/// A request, answered by what the session says about it.
async fn answer(
    pipeline: &Arc<Pipeline>,
    passed: Passed,
    session: &Handle,
    onward: Onward,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    let (keep_alive, until) = (keep_alive(pipeline, &passed.call), until(pipeline, passed.call.principal()));
    let (tap, mut spout) = pipe(pipeline);
    let mut line = Line::new(session, pipeline, trail.id());
    let gone = if onward.continues.is_some() { lost } else { unreachable };
    on_record(&passed.call, session, trail).await?;
    trail.status(StatusCode::OK);
    let Passed { call, seat } = passed;
    let Onward { claim, round, continues } = onward;
    let across = Across {
        caller: call.principal().clone(),
        message: Box::new(call.into_call().into_message().ok_or(RouteDenial::NoSession)?),
        record: Box::new((trail.hand_over(), seat)),
        tap,
        claim,
        round,
        continues: continues.map(|(_, continued)| continued),
    };
    session.ask(Command::Cross(Box::new(across))).await.map_err(|_over| gone(RouteDenial::NoSession.into()))?;
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
        Ok(Err(end)) if held.is_empty() => return Err(gone(over(end))),
        Ok(Err(_)) | Err(_) => {}
    }
    let stream = ClientStream::new(spout, keep_alive, until, pipeline.metrics()).holding(held);
    Ok(events(stream.given_up_by(line)))
}

/// `subscriptions/listen`: a stream in the session in which the caller's requests are answered.
async fn listen(
    pipeline: &Arc<Pipeline>,
    passed: Passed,
    (session, claim): (&Handle, Option<Claim>),
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    let call = &passed.call;
    let wanted = call
        .call()
        .message()
        .and_then(Wanted::of)
        .ok_or(DecodeDenial::from(Refusal::InvalidParams { member: "notifications" }))?;
    let (keep_alive, until) = (keep_alive(pipeline, call), until(pipeline, call.principal()));
    let offers = session.facts.greeting.get().map(|greeting| greeting.offers()).unwrap_or_default();
    let wanted = wanted.of_what_is_offered(offers);
    let (uris, (tap, spout)) = (wanted.uris.clone(), pipe(pipeline));
    let (line, request) = (Line::new(session, pipeline, trail.id()), trail.id());
    // Before anything is subscribed to: whoever stops listening meanwhile takes nothing away from this one.
    let begin = Command::Listen(Box::new(Listen { request, wanted, tap, claim }));
    session.ask(begin).await.map_err(|_over| RelayDenial::Broken)?;
    let mut refused = HashSet::new();
    for uri in uris {
        let answer = own::ask(pipeline, session, "resources/subscribe", json!({ "uri": uri })).await.map_err(unreachable)?;
        if outcome::of(&answer).is_none_or(|answered| answered.code != 0) {
            refused.insert(uri);
        }
    }
    on_record(call, session, trail).await?;
    session.ask(Command::Agree { request, refused }).await.map_err(|_over| RelayDenial::Broken)?;
    trail.status(StatusCode::OK);
    let stream = ClientStream::new(spout, keep_alive, until, pipeline.metrics()).recorded_by(trail.hand_over());
    Ok(events(stream.seated(passed.seat).given_up_by(line)))
}
