//! From the server's answer to the client's: same era, no translation. Streams flow through, lists are filtered by
//! shape on every path, sessions are sealed when they are opened.
//!
//! Owns what of an answer is passed on; never reads more of a stream than one event. Called by the pipeline's last line.

mod announcements;
pub mod batch;
mod body;
mod flow;
mod gather;
pub(crate) mod guard;
mod initialize;
pub mod outcome;
pub mod sessions;
mod shape;
mod standing;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::Snapshot;
use tokio_util::sync::CancellationToken;

use crate::children::Children;
use crate::config::{Config, Limits, Timeouts};
use crate::lists;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::pipeline::denial::{Denial, RelayDenial, RouteDenial};
use crate::pipeline::route::Routed;
use crate::pipeline::trail::{Ending, Trail};
use crate::pipeline::{Answer, Reply};
use crate::tasks::Tasks;
use crate::transport::scan::Message;
use crate::transport::{Era, Operation};
use crate::upstream::{Asked, Received, Sent, Upstreams, Waiting};

pub use announcements::Announcements;
pub use body::Body;
pub use flow::Flow;
use flow::Source;
use gather::{Gathered, collect};
use guard::{Examined, Guard, Passage};
use outcome::Answered;
pub use standing::{Lost, Standing};

/// What relaying needs beside the call.
#[derive(Clone)]
pub struct Settings {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    upstreams: Upstreams,
    surroundings: Surroundings,
    announcements: Arc<Announcements>,
    limits: Limits,
    timeouts: Timeouts,
}

/// The process around the relay.
#[derive(Clone)]
pub struct Surroundings {
    /// Run what outlives a request by a moment, such as telling a server that its question was refused.
    pub tasks: Tasks,
    /// Servers that are processes of this node.
    pub children: Children,
    /// Cancelled when streams that nobody waits on should end.
    pub draining: CancellationToken,
}

impl Settings {
    /// What operators say to all.
    pub(crate) fn announcements(&self) -> &Announcements {
        &self.announcements
    }

    /// Servers that are processes of this node.
    pub fn children(&self) -> &Children {
        &self.surroundings.children
    }

    /// What runs beside requests.
    pub fn tasks(&self) -> &Tasks {
        &self.surroundings.tasks
    }

    /// Cancelled when streams that nobody waits on should end.
    pub fn draining(&self) -> CancellationToken {
        self.surroundings.draining.clone()
    }

    pub fn new(config: &Config, live: Arc<Live>, metrics: Arc<Metrics>, upstreams: Upstreams, around: Surroundings) -> Self {
        Self {
            live,
            metrics,
            upstreams,
            surroundings: around,
            announcements: Arc::default(),
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
        }
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
pub async fn answer(call: Routed, sent: Sent, config: &Snapshot, settings: &Settings, trail: &Trail) -> Result<Reply, Denial> {
    let response = match sent {
        Sent::Answered(response) => response,
        Sent::Waiting(waiting) => return silent(call, waiting, settings),
    };
    let (head, body) = response.into_parts();
    check(&head)?;
    if !head.status.is_success() {
        return refused_by_server(&call, &head, body, settings).await;
    }
    if call.era() == Era::Legacy && call.operation() == Operation::Initialize {
        return initialize::answer(call, &head, body, config, settings).await;
    }
    // What a server says to a notification or a response is for nobody.
    let asks = call.http_method() == Method::GET || call.call().call().message().is_some_and(Message::is_request);
    if !asks || body.is_end_stream() || matches!(head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
        let accepted = !asks && call.http_method() == Method::POST;
        let status = if accepted { StatusCode::ACCEPTED } else { head.status };
        return Ok(whole(status, HeaderMap::new(), Bytes::new(), OK));
    }
    match media(&head.headers) {
        Media::Json => json(call, &head, body, settings).await,
        Media::Events => {
            tracing::trace!(request_id = trail.request_id(), "a stream begins");
            Ok(flowing(&head, Flow::events(call, Source::Flowing(body), settings).map_err(RouteDenial::from)?))
        }
        Media::Other => Err(RelayDenial::ContentType.into()),
    }
}

/// A stream whose server has not even sent a head: the client gets one, and keep-alives.
fn silent(call: Routed, waiting: Waiting, settings: &Settings) -> Result<Reply, Denial> {
    let (mut head, ()) = Response::new(()).into_parts();
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(flowing(&head, Flow::events(call, Source::Awaited(waiting), settings).map_err(RouteDenial::from)?))
}

pub(crate) const OK: Ending = Ending::of(Answered::new(Outcome::Ok, 0));

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

/// A JSON answer: looked at whole where it is small or has to be, passed through where it is large.
async fn json(call: Routed, head: &Parts, body: Received, settings: &Settings) -> Result<Reply, Denial> {
    let guard = Guard::of(&call);
    let (limit, idle) = (settings.limits.list_bytes, settings.timeouts.stream_idle);
    let bytes = if call.operation().may_list() || guard.denies_questions() {
        collect(body, limit, idle).await?
    } else {
        match gather::gather(body, idle).await? {
            Gathered::Whole(bytes) => bytes,
            Gathered::Part(held, rest) => return Ok(flowing(head, Flow::json(held, rest, call.into_parts().1, idle))),
        }
    };
    let Examined { passage, answer } = guard.examine(&bytes, limit)?;
    let bytes = match passage {
        Passage::AsItIs => bytes,
        Passage::Changed(message) => message,
        // A question is no answer to a call.
        Passage::Withheld(_) => return Err(RelayDenial::Unreadable.into()),
    };
    let answered = answer.unwrap_or(Answered::new(Outcome::Unknown, 0));
    Ok(whole(head.status, passed_on(&head.headers), bytes, Ending::of(answered)))
}

/// A refusal of the server's own: passed on as it is, within bounds.
async fn refused_by_server(call: &Routed, head: &Parts, body: Received, settings: &Settings) -> Result<Reply, Denial> {
    let bytes = collect(body, settings.limits.error_bytes, settings.timeouts.stream_idle).await?;
    if is_of_a_session_that_only_we_have(call, head.status) {
        let headers = HeaderMap::from_iter([(header::ALLOW, HeaderValue::from_static("POST"))]);
        return Ok(whole(StatusCode::METHOD_NOT_ALLOWED, headers, Bytes::new(), Ending::of(Answered::new(Outcome::Error, 0))));
    }
    let asked = Asked { url: call.url(), era: call.era(), opens: call.operation() == Operation::Initialize };
    settings.upstreams.doubts(asked, head.status, &bytes);
    if call.session().is_some() && lost_session(head.status, &bytes) {
        return Err(RouteDenial::NoSession.into());
    }
    let json = media(&head.headers) == Media::Json;
    let answer = outcome::of(&bytes);
    // What a failing server says about itself is for its operator, unless it says it in the protocol's own terms.
    if head.status.is_server_error() && answer.is_none() {
        return Err(RelayDenial::Status(head.status).into());
    }
    let mut headers = passed_on(&head.headers);
    if !json && headers.contains_key(header::CONTENT_TYPE) {
        // Never markup: it would run in the gateway's origin.
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    let answered = answer.unwrap_or(Answered::new(Outcome::Error, 0));
    let bytes = match Guard::of_refused(call).examine(&bytes, settings.limits.error_bytes) {
        Ok(Examined { passage: Passage::AsItIs, .. }) => bytes,
        Ok(Examined { passage: Passage::Changed(message), .. }) => message,
        // Not a message at all: words of a proxy or a framework, as long as nobody could take them for a list.
        Err(_) if !lists::may_be_list(&bytes) => bytes,
        Ok(Examined { passage: Passage::Withheld(_), .. }) | Err(_) => return Err(RelayDenial::Status(head.status).into()),
    };
    Ok(whole(head.status, headers, bytes, Ending::of(Answered { outcome: Outcome::Error, ..answered })))
}

/// Whether the server refuses to know a session that it never opened. It then has neither a stream nor an end of sessions, which is all that
/// the client is told: 404 would mean that its session was lost.
fn is_of_a_session_that_only_we_have(call: &Routed, status: StatusCode) -> bool {
    let refused = matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST);
    refused && call.http_method() != Method::POST && call.session().is_some() && call.upstream_session().is_none()
}

/// Servers in the wild say 400 where the protocol says 404; the client only starts again on 404.
pub(crate) fn lost_session(status: StatusCode, body: &[u8]) -> bool {
    const WORDS: [&str; 4] = ["session not found", "no valid session", "unknown session", "invalid session"];
    let text = || String::from_utf8_lossy(body).to_ascii_lowercase();
    status == StatusCode::NOT_FOUND || (status == StatusCode::BAD_REQUEST && WORDS.iter().any(|words| text().contains(words)))
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

pub(crate) fn whole(status: StatusCode, headers: HeaderMap, bytes: Bytes, ending: Ending) -> Reply {
    Reply { status, headers, answer: Answer::Whole(bytes, ending) }
}

fn flowing(head: &Parts, flow: Flow) -> Reply {
    let mut headers = passed_on(&head.headers);
    if let (true, Some(length)) = (flow.is_unchanged(), head.headers.get(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    // nginx and its like would otherwise hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    Reply { status: head.status, headers, answer: Answer::Flow(Box::new(flow)) }
}
