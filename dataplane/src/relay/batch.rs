//! Batches of a 2025-03-26 session: every message is judged, sent and recorded alone, in order, and the responses are
//! collected. Servers never see a batch: most refuse them.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use mcp_gateway::snapshot::Snapshot;
use uuid::Uuid;

use super::gather::collect;
use super::guard::{Examined, Guard, Passage};
use super::outcome::{self, Answered};
use super::{Media, OK, check, media, whole};
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{DecodeDenial, Denial, RelayDenial, RouteDenial};
use crate::pipeline::route::{self, Routed};
use crate::pipeline::trail::{Ending, Stage, Trail};
use crate::pipeline::{Pipeline, Reply, authorize, limit};
use crate::sse::Framer;
use crate::transport::Refusal;
use crate::upstream::Received;

/// Answers a batch.
pub async fn run(pipeline: &Pipeline, batch: Authenticated, config: &Snapshot, trail: &mut Trail) -> Result<Reply, Denial> {
    let session = route::open_session(&batch, config)?.ok_or(RouteDenial::NoSession)?;
    if !session.version.has_batches() {
        return Err(DecodeDenial::from(Refusal::Batch).into());
    }
    trail.allowed().await?;
    let mut responses = Vec::new();
    for call in batch.split() {
        let mut trail = trail.branch(Uuid::now_v7());
        call.call().describe(&mut trail);
        let is_request = call.call().message().is_some_and(|message| message.is_request());
        trail.echo(call.call().message().and_then(|message| message.id()));
        match one(pipeline, call, config, &mut trail).await {
            Ok(response) => responses.extend(response),
            Err(denial) => {
                let denial = pipeline.counted(denial, &trail);
                let wire = denial.wire();
                let body = wire.body(trail.echoed());
                trail.refused(&denial, &wire, body.len() as u64);
                if is_request {
                    responses.push(Bytes::from(body));
                }
            }
        }
        trail.settled().await;
    }
    Ok(gathered(&responses))
}

/// JSON-RPC 2.0 section 6: nothing to answer, no body.
pub(super) fn gathered(responses: &[Bytes]) -> Reply {
    if responses.is_empty() {
        return whole(StatusCode::ACCEPTED, HeaderMap::new(), Bytes::new(), OK);
    }
    let mut body = vec![b'['];
    for (place, response) in responses.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(response);
    }
    body.push(b']');
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    whole(StatusCode::OK, headers, body.into(), OK)
}

/// The pipeline's later stages for one message; its response, if it is a request.
async fn one(pipeline: &Pipeline, call: Authenticated, config: &Snapshot, trail: &mut Trail) -> Result<Option<Bytes>, Denial> {
    let call = authorize::judge(call, trail)?;
    trail.mark(Stage::Authorize);
    let call = limit::admit(call, pipeline.limiter(), trail).await?;
    trail.mark(Stage::Limit);
    let call = route::resolve(call, config, &pipeline.live().drained())?;
    trail.mark(Stage::Route);
    trail.decided(&call).await?;
    let answer = pipeline.upstreams().ask(&call, trail).await?;
    trail.status(answer.status());
    let response = response(pipeline, &call, answer).await?;
    let answered = response.as_deref().and_then(outcome::of).unwrap_or(Answered::new(OK.outcome, 0));
    let bytes = response.as_ref().map_or(0, |response| response.len() as u64);
    response.iter().for_each(|response| trail.keep_result(response));
    trail.end(Ending { bytes, ..Ending::of(answered) });
    Ok(response)
}

async fn response(pipeline: &Pipeline, call: &Routed, answer: Response<Received>) -> Result<Option<Bytes>, Denial> {
    let settings = pipeline.relay();
    let (head, body) = answer.into_parts();
    check(&head)?;
    if !call.call().call().message().is_some_and(|message| message.is_request()) {
        return if head.status.is_success() { Ok(None) } else { Err(RelayDenial::Status(head.status).into()) };
    }
    let message = match media(&head.headers) {
        Media::Json => collect(body, settings.limits.list_bytes, settings.timeouts.stream_idle).await?,
        Media::Events => {
            let found = tokio::time::timeout(call.timeout(), last_response(body, settings.limits.list_bytes)).await;
            found.map_err(|_elapsed| RelayDenial::Broken)??
        }
        Media::Other => return Err(RelayDenial::Status(head.status).into()),
    };
    // Anything but one response would break the array.
    let Examined { passage, answer } = Guard::of(call).examine(&message, settings.limits.list_bytes)?;
    match (passage, answer) {
        (Passage::AsItIs, Some(_)) => Ok(Some(message)),
        (Passage::Changed(message), Some(_)) => Ok(Some(message)),
        (Passage::Withheld(_), _) | (_, None) => Err(RelayDenial::Broken.into()),
    }
}

/// The response on a stream. What comes before it has no place in a batch's answer and is left out.
async fn last_response(mut body: Received, limit: u64) -> Result<Bytes, RelayDenial> {
    let mut framer = Framer::new(usize::try_from(limit).unwrap_or(usize::MAX));
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|_broken| RelayDenial::Broken)?.into_data() else { continue };
        framer.push(chunk);
        while let Some(event) = framer.next_event().map_err(|_large| RelayDenial::TooLarge { limit })? {
            if let Some(data) = event.data().filter(|data| outcome::of(data).is_some()) {
                return Ok(data);
            }
        }
    }
    Err(RelayDenial::Broken)
}
