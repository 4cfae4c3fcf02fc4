//! JSON-RPC over POST: one request and its answer, or up to a hundred, without a session of the client's. The gateway has one of its own
//! with the server for each principal, opened when it is needed. Clients of this transport cannot be asked and hear no progress.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;
use http::header::HeaderMap;
use mcp_gateway::snapshot::Snapshot;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::own::{Line, begin, own, session};
use super::streamable::{self, over};
use super::{Side, judge, open, pass, pipe};
use crate::owned::Handle;
use crate::owned::stream::{End, Outgoing};
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{DecodeDenial, Denial, RelayDenial};
use crate::pipeline::trail::{Ending, Stage, Trail};
use crate::pipeline::{Pipeline, Reply};
use crate::relay::batch::gathered;
use crate::relay::outcome::Answered;
use crate::relay::{OK, whole};
use crate::transport::scan::Message;
use crate::transport::{Operation, Refusal};
use mcp_gateway::proto::node::v1::Outcome;

/// Messages of a batch that are under way at the same time.
const AT_ONCE: usize = 8;
/// Pages of one list that are asked for.
const MOST_PAGES: usize = 100;

pub(super) async fn run(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    if call.call().order().is_some() {
        return introspection::run(pipeline, call, config, trail).await;
    }
    if call.call().is_batch() {
        let session = session(pipeline, &call, None, config).await?;
        trail.allowed().await?;
        return several(pipeline, call, &session, trail).await;
    }
    check(&call)?;
    let passed = judge(pipeline, call, trail).await?;
    let session = session(pipeline, &passed.call, None, config).await?;
    match one(pipeline, passed, &session, trail).await? {
        Some(answer) => Ok(streamable::json(answer).await),
        None => Ok(whole(StatusCode::ACCEPTED, HeaderMap::new(), Bytes::new(), OK)),
    }
}

/// One request in a session of its own, which ends with it.
pub(crate) async fn execute(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    check(&call)?;
    let passed = judge(pipeline, call, trail).await?;
    let session = open(pipeline, &passed.call, config, Side::Callers).await?;
    let carried = async {
        begin(pipeline, &session, None).await?;
        one(pipeline, passed, &session, trail).await
    };
    let answer = carried.await;
    session.end(End::Closed).await;
    match answer? {
        Some(answer) => Ok(streamable::json(answer).await),
        None => Ok(whole(StatusCode::ACCEPTED, HeaderMap::new(), Bytes::new(), OK)),
    }
}

/// What makes no sense without a session of the client's own.
fn check(call: &Authenticated) -> Result<(), Denial> {
    let answers = call.call().message().is_some_and(|message| !message.is_request() && message.method().is_none());
    if answers || call.call().operation() == Operation::Initialize {
        return Err(DecodeDenial::from(Refusal::Sessionless).into());
    }
    Ok(())
}

/// Carries one message; its answer, if it is a request.
async fn one(
    pipeline: &Pipeline,
    passed: super::Passed,
    session: &Handle,
    trail: &mut Trail,
) -> Result<Option<Outgoing>, Denial> {
    let is_request = passed.call.call().message().is_some_and(Message::is_request);
    let (tap, mut spout) = pipe(pipeline);
    let mut line = Line::new(session, pipeline, trail.id());
    pass(passed, session, Some(tap), trail).await?;
    if !is_request {
        line.close();
        return Ok(None);
    }
    loop {
        match spout.next().await {
            Ok(outgoing) if outgoing.last => {
                line.close();
                return Ok(Some(outgoing));
            }
            Ok(_progress) => continue,
            Err(end) => {
                line.close();
                return Err(over(end));
            }
        }
    }
}

/// Each message of a batch by itself, a few at a time; the answers in the order of the messages.
pub(super) async fn several(
    pipeline: &Arc<Pipeline>,
    batch: Authenticated,
    session: &Handle,
    trail: &Trail,
) -> Result<Reply, Denial> {
    let elements = batch.split().into_iter().map(|call| element(pipeline, call, session, trail));
    let answers: Vec<Option<Bytes>> = futures_util::stream::iter(elements).buffered(AT_ONCE).collect().await;
    let answers: Vec<Bytes> = answers.into_iter().flatten().collect();
    Ok(gathered(&answers))
}

/// One message of a batch: its answer or its refusal, if anybody waits for either.
async fn element(pipeline: &Arc<Pipeline>, call: Authenticated, session: &Handle, batch: &Trail) -> Option<Bytes> {
    let mut trail = batch.branch(Uuid::now_v7());
    call.call().describe(&mut trail);
    let is_request = call.call().message().is_some_and(Message::is_request);
    trail.echo(call.call().message().and_then(Message::id));
    let carried = async {
        check(&call)?;
        let passed = judge(pipeline, call, &mut trail).await?;
        one(pipeline, passed, session, &mut trail).await
    };
    let answer = match carried.await {
        Ok(Some(outgoing)) => {
            if let Some(recorded) = outgoing.recorded {
                recorded.await;
            }
            Some(outgoing.message)
        }
        Ok(None) => {
            trail.end(OK);
            None
        }
        Err(denial) => {
            let denial = pipeline.counted(denial, &trail);
            let wire = denial.wire();
            let body = wire.body(trail.echoed());
            trail.refused(&denial, &wire, body.len() as u64);
            is_request.then(|| body.into())
        }
    };
    trail.settled().await;
    answer
}

mod introspection {
    //! What a caller can reach, as one document: every list, all pages, filtered as each is.

    use super::*;

    /// Lists, by method and by the member that has the entries.
    const LISTS: [(&str, &str); 4] = [
        ("tools/list", "tools"),
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ];

    pub(super) async fn run(
        pipeline: &Arc<Pipeline>,
        call: Authenticated,
        config: &Snapshot,
        trail: &mut Trail,
    ) -> Result<Reply, Denial> {
        let passed = judge(pipeline, call, trail).await?;
        trail.mark(Stage::Route);
        trail.allowed().await?;
        let session = session(pipeline, &passed.call, None, config).await?;
        let mut document = Map::new();
        let mut methods = vec!["ping", "completion/complete", "tools/call", "prompts/get", "resources/read"];
        for (method, member) in LISTS {
            let entries = entries(pipeline, &passed.call, &session, (method, member), trail).await?;
            methods.extend(entries.is_some().then_some(method));
            document.insert(member.to_owned(), entries.unwrap_or_default().into());
        }
        document.insert("methods".to_owned(), methods.into());
        let body = serde_json::to_vec(&Value::Object(document)).expect("JSON serialises");
        Ok(Reply::json(StatusCode::OK, body, Ending::of(Answered::new(Outcome::Ok, 0))))
    }

    /// The entries of a list; none where the server has no such list.
    async fn entries(
        pipeline: &Arc<Pipeline>,
        caller: &Authenticated,
        session: &Handle,
        (method, member): (&str, &str),
        trail: &Trail,
    ) -> Result<Option<Vec<Value>>, Denial> {
        let (mut all, mut cursor) = (Vec::new(), None::<Value>);
        for page in 0..MOST_PAGES {
            let params = cursor.take().map_or(json!({}), |cursor| json!({ "cursor": cursor }));
            let request = own(&json!({ "jsonrpc": "2.0", "id": page, "method": method, "params": params }))?;
            let call = caller.on_behalf(request);
            let Some(answer) = element(pipeline, call, session, trail).await else { return Err(RelayDenial::Broken.into()) };
            let mut answer: Map<String, Value> = serde_json::from_slice(&answer).map_err(|_not_json| RelayDenial::Unreadable)?;
            let Some(Value::Object(mut result)) = answer.remove("result") else { return Ok((page > 0).then_some(all)) };
            if let Some(Value::Array(entries)) = result.remove(member) {
                all.extend(entries);
            }
            match result.remove("nextCursor") {
                Some(next) if !next.is_null() => cursor = Some(next),
                Some(_) | None => break,
            }
        }
        Ok(Some(all))
    }
}
