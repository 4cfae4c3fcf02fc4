//! Turns what the stages say into the answer on the wire, and closes the record of answers that are whole.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use uuid::Uuid;

use super::denial::{Denial, Wire};
use super::trail::{Ending, Trail};
use crate::limits::Room;
use crate::relay::sessions::ClientStream;
use crate::relay::{Body, Flow};

/// The header that names the request in records.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("mcpgw-request-id");

/// What may be read by browsers of an allowed origin.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "mcp-session-id, mcpgw-request-id, mcp-protocol-version, www-authenticate, retry-after, ratelimit, ratelimit-policy",
);

/// An answer that was not refused.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub answer: Answer,
}

/// The body of a reply.
pub enum Answer {
    /// Known whole, with its outcome.
    Whole(Bytes, Ending),
    /// Still coming from a server.
    Flow(Box<Flow>),
    /// What a session says, recorded there.
    Stream(Box<ClientStream>),
    /// What another node answers, recorded there.
    Forwarded(Incoming),
}

impl Reply {
    /// A JSON answer of the gateway's own.
    pub fn json(status: StatusCode, body: impl Into<Bytes>, ending: Ending) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { status, headers, answer: Answer::Whole(body.into(), ending) }
    }
}

/// Finishes a request: its record where the answer is whole, its headers in any case. Returns once that record is written: what hyper gets
/// may leave.
pub(crate) async fn finish(
    outcome: Result<Reply, Denial>,
    mut trail: Trail,
    request_id: Uuid,
    origin: Option<HeaderValue>,
) -> Response<Body> {
    let room = trail.take_room();
    let mut response = match outcome {
        Ok(Reply { status, headers, answer }) => {
            trail.status(status);
            let body = match answer {
                Answer::Whole(bytes, ending) => {
                    trail.keep_result(&bytes);
                    trail.end(Ending { bytes: bytes.len() as u64, ..ending });
                    trail.settled().await;
                    Body::whole(bytes)
                }
                Answer::Flow(mut flow) => {
                    flow.recorded_by(trail);
                    Body::flow(flow)
                }
                Answer::Stream(stream) => Body::stream(stream),
                Answer::Forwarded(body) => Body::forwarded(body),
            };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
        Err(denial) => refusal(&denial, trail).await,
    };
    if let Some(room) = room {
        limit_headers(response.headers_mut(), &room);
    }
    common_headers(response.headers_mut(), request_id, origin);
    response
}

/// How the tightest limit stands (draft-ietf-httpapi-ratelimit-headers-10): a quota `q` in a window of `w` seconds, of which `r` remain,
/// and more in `t` seconds. Names of limits are tokens, so they can be quoted as they are.
fn limit_headers(headers: &mut HeaderMap, room: &Room) {
    const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    const NOW: HeaderName = HeaderName::from_static("ratelimit");
    // One allocation for both.
    let mut text = BytesMut::with_capacity(2 * (room.name.len() + 48));
    let written = write!(text, "\"{}\";q={};w={}", room.name, room.limit, room.length);
    let policy = text.split().freeze();
    let reset = room.reset.div_ceil(1_000_000);
    let written = written.and_then(|()| write!(text, "\"{}\";r={};t={reset}", room.name, room.remaining));
    written.expect("a buffer grows");
    for (name, text) in [(POLICY, policy), (NOW, text.freeze())] {
        headers.insert(name, HeaderValue::from_maybe_shared(text).expect("slugs and numbers are visible ASCII"));
    }
}

/// An answer that is no call's, with what every answer carries.
pub(super) fn named(mut response: Response<Body>, request_id: Uuid) -> Response<Body> {
    common_headers(response.headers_mut(), request_id, None);
    response
}

async fn refusal(denial: &Denial, mut trail: Trail) -> Response<Body> {
    let wire = denial.wire();
    tracing::debug!(request_id = trail.request_id(), reason = %wire.label, %denial, "request refused");
    let body = wire.body(trail.echoed());
    trail.refused(denial, &wire, body.len() as u64);
    trail.settled().await;
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = wire.status;
    refusal_headers(response.headers_mut(), &wire);
    response
}

fn refusal_headers(headers: &mut HeaderMap, wire: &Wire) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(challenge) = wire.challenge {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(allow) = wire.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(seconds) = wire.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

fn common_headers(headers: &mut HeaderMap, request_id: Uuid, origin: Option<HeaderValue>) {
    let mut buffer = Uuid::encode_buffer();
    let id = request_id.hyphenated().encode_lower(&mut buffer);
    headers.insert(REQUEST_ID, HeaderValue::from_str(id).expect("a UUID is visible ASCII"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(const { HeaderValue::from_static("no-store") });
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}
