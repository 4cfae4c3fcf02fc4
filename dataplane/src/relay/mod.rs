//! From the server's answer to the client's: same era, no translation. Streams flow through, lists are filtered by
//! shape on every path, sessions are sealed when they are opened.
//!
//! Owns what of an answer is passed on; never reads more of a stream than one event. Called by the pipeline's last line.

pub mod batch;
mod body;
mod flow;
mod guard;
mod initialize;
mod outcome;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::Snapshot;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Limits, Timeouts};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::pipeline::denial::{Denial, RelayDenial, RouteDenial};
use crate::pipeline::route::Routed;
use crate::pipeline::trail::{Ending, Trail};
use crate::pipeline::{Answer, Reply};
use crate::tasks::Tasks;
use crate::transport::{Era, Operation};
use crate::upstream::Upstreams;

pub use body::Body;
pub use flow::Flow;
use guard::Guard;
pub use standing::Lost;

/// What relaying needs beside the call.
#[derive(Clone)]
pub struct Settings {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    upstreams: Upstreams,
    surroundings: Surroundings,
    limits: Limits,
    timeouts: Timeouts,
}

/// The process around the relay.
#[derive(Clone)]
pub struct Surroundings {
    /// Run what outlives a request by a moment, such as telling a server that its question was refused.
    pub tasks: Tasks,
    /// Cancelled when streams that nobody waits on should end.
    pub draining: CancellationToken,
}

impl Settings {
    pub fn new(config: &Config, live: Arc<Live>, metrics: Arc<Metrics>, upstreams: Upstreams, around: Surroundings) -> Self {
        Self { live, metrics, upstreams, surroundings: around, limits: config.limits.clone(), timeouts: config.timeouts.clone() }
    }
}

/// What a content type means for relaying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    Events,
    Other,
}

/// Turns the server's answer into the client's.
pub async fn answer(
    call: Routed,
    response: Response<Incoming>,
    config: &Snapshot,
    settings: &Settings,
    trail: &Trail,
) -> Result<Reply, Denial> {
    let (head, body) = response.into_parts();
    check(&head)?;
    if !head.status.is_success() {
        return refused_by_server(&call, &head, body, settings).await;
    }
    if call.era() == Era::Legacy && call.operation() == Operation::Initialize {
        return initialize::answer(call, &head, body, config, settings).await;
    }
    if body.is_end_stream() || matches!(head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
        return Ok(whole(head.status, HeaderMap::new(), Bytes::new(), OK));
    }
    match media(&head.headers) {
        Media::Json if call.operation() == Operation::List || is_small(&body) => json(call, &head, body, settings).await,
        Media::Json => {
            let (_, seat) = call.into_parts();
            Ok(flowing(&head, Flow::json(body, seat, settings.timeouts.stream_idle)))
        }
        Media::Events => {
            tracing::trace!(request_id = trail.request_id(), "a stream begins");
            Ok(flowing(&head, Flow::events(call, body, settings).map_err(RouteDenial::from)?))
        }
        Media::Other => Err(RelayDenial::ContentType.into()),
    }
}

const OK: Ending = Ending { outcome: Outcome::Ok, error_code: 0, bytes: 0, events: 0 };

/// What is not passed on at all.
fn check(head: &Parts) -> Result<(), RelayDenial> {
    // A redirect would lead the client past the gateway; a challenge is about the gateway's credential, not the client's.
    let ours = [StatusCode::UNAUTHORIZED, StatusCode::PROXY_AUTHENTICATION_REQUIRED].contains(&head.status);
    if head.status.is_redirection() || head.status.is_informational() || ours {
        return Err(RelayDenial::Status(head.status));
    }
    match head.headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(RelayDenial::Encoding),
        Some(_) | None => Ok(()),
    }
}

fn media(headers: &HeaderMap) -> Media {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = text.split(';').next().unwrap_or_default().trim();
    if name.eq_ignore_ascii_case("application/json") {
        Media::Json
    } else if name.eq_ignore_ascii_case("text/event-stream") {
        Media::Events
    } else {
        Media::Other
    }
}

fn is_small(body: &Incoming) -> bool {
    body.size_hint().exact().is_some_and(|bytes| bytes <= outcome::LOOK_AT as u64)
}

/// A JSON answer that is looked at whole: a list, or one small enough to cost nothing.
async fn json(call: Routed, head: &Parts, body: Incoming, settings: &Settings) -> Result<Reply, Denial> {
    let bytes = collect(body, settings.limits.list_bytes, settings.timeouts.stream_idle).await?;
    let bytes = Guard::of(&call).filter(&bytes, settings.limits.list_bytes)?.unwrap_or(bytes);
    let (outcome, error_code) = outcome::of(&bytes).unwrap_or((Outcome::Unknown, 0));
    let ending = Ending { outcome, error_code, ..OK };
    Ok(whole(head.status, passed_on(&head.headers), bytes, ending))
}

/// A refusal of the server's own: passed on as it is, within bounds.
async fn refused_by_server(call: &Routed, head: &Parts, body: Incoming, settings: &Settings) -> Result<Reply, Denial> {
    let bytes = collect(body, settings.limits.error_bytes, settings.timeouts.stream_idle).await?;
    if call.session().is_some() && lost_session(head.status, &bytes) {
        return Err(RouteDenial::NoSession.into());
    }
    let json = media(&head.headers) == Media::Json;
    // What a failing server says about itself is for its operator, unless it says it in the protocol's own terms.
    if head.status.is_server_error() && !json {
        return Err(RelayDenial::Status(head.status).into());
    }
    let mut headers = passed_on(&head.headers);
    if !json && headers.contains_key(header::CONTENT_TYPE) {
        // Never markup: it would run in the gateway's origin.
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    let error_code = outcome::of(&bytes).map_or(0, |(_, code)| code);
    Ok(whole(head.status, headers, bytes, Ending { outcome: Outcome::Error, error_code, ..OK }))
}

/// Servers in the wild say 400 where the protocol says 404; the client only starts again on 404.
fn lost_session(status: StatusCode, body: &[u8]) -> bool {
    const WORDS: [&str; 4] = ["session not found", "no valid session", "unknown session", "invalid session"];
    let text = || String::from_utf8_lossy(body).to_ascii_lowercase();
    status == StatusCode::NOT_FOUND || (status == StatusCode::BAD_REQUEST && WORDS.iter().any(|words| text().contains(words)))
}

/// Reads a body whole, at most `limit` bytes and `deadline` long.
async fn collect(body: Incoming, limit: u64, deadline: Duration) -> Result<Bytes, RelayDenial> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    match tokio::time::timeout(deadline, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(RelayDenial::TooLarge { limit }),
        Ok(Err(_)) | Err(_) => Err(RelayDenial::Broken),
    }
}

/// Headers of an answer that mean something to a client.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(8);
    for name in [header::CONTENT_TYPE, header::ALLOW, header::RETRY_AFTER] {
        if let Some(value) = headers.get(&name) {
            passed.insert(name, value.clone());
        }
    }
    passed
}

fn whole(status: StatusCode, headers: HeaderMap, bytes: Bytes, ending: Ending) -> Reply {
    Reply { status, headers, answer: Answer::Whole(bytes, ending) }
}

fn flowing(head: &Parts, flow: Flow) -> Reply {
    let mut headers = passed_on(&head.headers);
    if let (true, Some(length)) = (flow.is_unchanged(), head.headers.get(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    // nginx and its like would otherwise hold events back (MCP.md 1.3).
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    Reply { status: head.status, headers, answer: Answer::Flow(Box::new(flow)) }
}
