//! The one table: status, code, words, headers, label and outcome of every refusal.

use std::borrow::Cow;
use std::fmt::Write;

use http::StatusCode;
use mcp_gateway::proto::node::v1::Outcome;

use super::{
    AuthenticateDenial, AuthorizeDenial, Crowded, DecodeDenial, Denial, LimitDenial, OperateDenial, RecordDenial, RelayDenial,
    RouteDenial, TargetDenial, Thing,
};
use crate::pipeline::authenticate::TokenError;
use crate::relay::Lost;
use crate::transport::{Era, Refusal};
use crate::upstream::Fault;

/// What a refusal looks like.
#[derive(Debug)]
pub struct Wire {
    pub status: StatusCode,
    /// JSON-RPC error code.
    pub code: i32,
    pub message: Cow<'static, str>,
    /// JSON for the member `data`.
    pub data: Option<String>,
    /// The value of `Allow`.
    pub allow: Option<&'static str>,
    /// The value of `WWW-Authenticate`.
    pub challenge: Option<&'static str>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// Stage and reason, for records and metrics.
    pub label: Cow<'static, str>,
    pub outcome: Outcome,
}

/// JSON-RPC: the server's side failed.
const INTERNAL: i32 = -32603;
/// JSON-RPC: the parameters are wrong; MCP: the name is unknown.
const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC: not a request.
const INVALID_REQUEST: i32 = -32600;
/// MCP up to 2025-11-25: no such resource.
const RESOURCE_NOT_FOUND: i32 = -32002;

/// RFC 6750 section 3: no error code where no credential was sent.
const CHALLENGE: &str = "Bearer realm=\"mcpgw\"";
const CHALLENGE_INVALID: &str = "Bearer realm=\"mcpgw\", error=\"invalid_token\"";

impl Wire {
    fn new(status: StatusCode, code: i32, label: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        let (label, message, outcome) = (label.into(), message.into(), Outcome::Denied);
        Self { status, code, message, data: None, allow: None, challenge: None, retry_after: None, label, outcome }
    }

    /// With a code of our own for the status.
    fn own(status: StatusCode, label: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, -31000 - i32::from(status.as_u16()), label, message)
    }

    fn challenge(self, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    fn data(self, data: String) -> Self {
        Self { data: Some(data), ..self }
    }

    fn outcome(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// The JSON-RPC error response; `id` as the client wrote it, `None` where it is not known.
    pub fn body(&self, id: Option<&str>) -> String {
        let mut body = String::with_capacity(128);
        body.push_str(r#"{"jsonrpc":"2.0","id":"#);
        body.push_str(id.unwrap_or("null"));
        // Writing to a String cannot fail.
        let _ = write!(body, r#","error":{{"code":{},"message":{}"#, self.code, quoted(&self.message));
        if let Some(data) = &self.data {
            body.push_str(r#","data":"#);
            body.push_str(data);
        }
        body.push_str("}}");
        body
    }
}

impl Denial {
    /// The table: status, code, words, headers, label and outcome of every refusal.
    pub fn wire(&self) -> Wire {
        match self {
            Self::Target(denial) => denial.wire(),
            Self::Decode(denial) => denial.wire(),
            Self::Authenticate(denial) => denial.wire(),
            Self::Authorize(denial) => denial.wire(),
            Self::Limit(denial) => denial.wire(),
            Self::Route(denial) => denial.wire(),
            Self::Record(RecordDenial(_)) => {
                Wire::own(StatusCode::SERVICE_UNAVAILABLE, "record.full", "The call cannot be recorded now; try again later")
                    .retry_after(5)
                    .outcome(Outcome::GatewayFailed)
            }
            Self::Upstream(fault) => upstream(fault),
            Self::Relay(denial) => denial.wire(),
            Self::Operate(denial) => denial.wire(),
            Self::Panicked => Wire::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, "gateway.panicked", "Internal error")
                .outcome(Outcome::GatewayFailed),
        }
    }
}

impl TargetDenial {
    fn wire(self) -> Wire {
        match self {
            Self::NotReady => {
                Wire::own(StatusCode::SERVICE_UNAVAILABLE, "target.not_ready", "The gateway has no configuration yet")
                    .retry_after(1)
            }
            Self::UriTooLong => Wire::own(StatusCode::URI_TOO_LONG, "target.uri_too_long", "The URI is too long"),
            Self::HeadersTooLarge => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                Wire::own(status, "target.headers_too_large", "The headers are too large")
            }
            Self::BadHeader => {
                Wire::own(StatusCode::BAD_REQUEST, "target.bad_header", "Header names must not contain underscores")
            }
            Self::Door(refusal) => Wire::own(refusal.status(), format!("target.{}", refusal.reason()), refusal.to_string()),
            Self::NoEndpoint => Wire::own(StatusCode::NOT_FOUND, "target.no_endpoint", "Nothing is served at this path"),
            Self::Method { allow } => {
                let wire = Wire::own(StatusCode::METHOD_NOT_ALLOWED, "target.method", "The endpoint does not have this method");
                Wire { allow: Some(allow), ..wire }
            }
        }
    }
}

impl DecodeDenial {
    fn wire(&self) -> Wire {
        match self {
            Self::TooLarge { limit } => {
                let message = format!("The body is larger than {limit} bytes");
                Wire::own(StatusCode::PAYLOAD_TOO_LARGE, "decode.too_large", message)
            }
            Self::Slow => Wire::own(StatusCode::REQUEST_TIMEOUT, "decode.slow", "The body did not arrive in time"),
            Self::Broken => Wire::own(StatusCode::BAD_REQUEST, "decode.broken", "The body broke off"),
            Self::Refused(refusal) => codec(refusal),
        }
    }
}

impl AuthenticateDenial {
    fn wire(self) -> Wire {
        // One answer for every credential that does not hold: what is wrong with it helps only who is guessing.
        let invalid =
            |label| Wire::own(StatusCode::UNAUTHORIZED, label, "The credential is not valid").challenge(CHALLENGE_INVALID);
        match self {
            Self::Ambiguous => {
                let message = "More than one credential: send one Authorization or one X-Api-Key header";
                Wire::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "authenticate.ambiguous", message)
            }
            Self::Missing => {
                let message = "A credential is needed: send `Authorization: Bearer ...`";
                Wire::own(StatusCode::UNAUTHORIZED, "authenticate.missing", message).challenge(CHALLENGE)
            }
            Self::Unusable => invalid("authenticate.unusable"),
            Self::Ticket => invalid("authenticate.ticket"),
            Self::WrongKey => invalid("authenticate.wrong_key"),
            Self::ExpiredKey => invalid("authenticate.expired_key"),
            Self::Revoked => invalid("authenticate.revoked"),
            Self::Token(error) => invalid(match error {
                TokenError::Malformed => "authenticate.token_malformed",
                TokenError::UnknownKey => "authenticate.token_unknown_key",
                TokenError::WrongAlgorithm => "authenticate.token_wrong_algorithm",
                TokenError::BadSignature => "authenticate.token_bad_signature",
                TokenError::WrongIssuer => "authenticate.token_wrong_issuer",
                TokenError::WrongAudience => "authenticate.token_wrong_audience",
                TokenError::Expired => "authenticate.token_expired",
                TokenError::NotYet => "authenticate.token_not_yet",
                TokenError::BadClaims => "authenticate.token_bad_claims",
            }),
            Self::UnknownServer => Wire::own(StatusCode::NOT_FOUND, "authenticate.unknown_server", "No such server"),
        }
    }
}

impl AuthorizeDenial {
    /// As a server of that era answers for a name that it does not have: with status 200 and an error in the body.
    fn wire(&self) -> Wire {
        match self {
            Self::NotGranted { thing, name, era } => {
                let (code, message) = match (thing, era) {
                    (Thing::Tool, Era::Legacy | Era::Modern) => (INVALID_PARAMS, format!("Unknown tool: {name}")),
                    (Thing::Prompt, Era::Legacy | Era::Modern) => (INVALID_PARAMS, format!("Unknown prompt: {name}")),
                    (Thing::Resource, Era::Legacy) => (RESOURCE_NOT_FOUND, format!("Resource not found: {name}")),
                    (Thing::Resource, Era::Modern) => (INVALID_PARAMS, format!("Resource not found: {name}")),
                };
                Wire::new(StatusCode::OK, code, "authorize.not_granted", message)
            }
            // Nobody reads a body in answer to a notification: the status has to say it (2026-07-28, Streamable HTTP).
            Self::Notification => Wire::own(StatusCode::FORBIDDEN, "authorize.not_granted", "No policy allows this"),
            Self::Nothing { anonymous: true } => {
                let message = "A credential is needed: send `Authorization: Bearer ...`";
                Wire::own(StatusCode::UNAUTHORIZED, "authorize.nothing", message).challenge(CHALLENGE)
            }
            Self::Nothing { anonymous: false } => {
                Wire::own(StatusCode::FORBIDDEN, "authorize.nothing", "No policy allows you anything on this server")
            }
        }
    }
}

impl LimitDenial {
    fn wire(&self) -> Wire {
        match self {
            Self::InFlight => {
                Wire::own(StatusCode::SERVICE_UNAVAILABLE, "limit.in_flight", "The server is busy; try again").retry_after(1)
            }
            Self::Organization => {
                let message = "Your organisation has too many calls in flight; try again";
                Wire::own(StatusCode::SERVICE_UNAVAILABLE, "limit.organization", message).retry_after(1)
            }
            Self::Spent { room, wait } => {
                let message = format!("The limit {} is used up: {} in {} s", room.name, room.limit, room.length);
                let data = format!(r#"{{"limit":{},"retryAfterMs":{}}}"#, quoted(&room.name), wait.div_ceil(1000));
                let wire = Wire::own(StatusCode::TOO_MANY_REQUESTS, "limit.spent", message).data(data);
                wire.retry_after(u32::try_from(wait.div_ceil(1_000_000)).unwrap_or(u32::MAX))
            }
            Self::Concurrent { name, most } => {
                let message = format!("The limit {name} allows {most} calls in flight; try again when one has ended");
                let data = format!(r#"{{"limit":{},"retryAfterMs":1000}}"#, quoted(name));
                Wire::own(StatusCode::TOO_MANY_REQUESTS, "limit.concurrent", message).data(data).retry_after(1)
            }
            Self::Away { name } => {
                let message = format!("Whether the limit {name} has room cannot be told now; try again");
                let data = format!(r#"{{"limit":{},"retryAfterMs":1000}}"#, quoted(name));
                let wire = Wire::own(StatusCode::SERVICE_UNAVAILABLE, "limit.away", message).data(data).retry_after(1);
                wire.outcome(Outcome::GatewayFailed)
            }
            Self::Crowded => {
                let message = "Too many callers at once; try again, or show a credential";
                Wire::own(StatusCode::TOO_MANY_REQUESTS, "limit.crowded", message).retry_after(5)
            }
            Self::Failures { wait } => {
                let data = format!(r#"{{"retryAfterMs":{}}}"#, wait.div_ceil(1000));
                let message = "Too many requests were refused lately; try again later";
                let wire = Wire::own(StatusCode::TOO_MANY_REQUESTS, "limit.failures", message).data(data);
                wire.retry_after(u32::try_from(wait.div_ceil(1_000_000)).unwrap_or(u32::MAX))
            }
        }
    }
}

impl RouteDenial {
    fn wire(&self) -> Wire {
        match self {
            Self::NoSession => Wire::own(StatusCode::NOT_FOUND, "route.no_session", "Session not found: initialize a new one"),
            Self::ContinuationLost => {
                let message = "The call that waited for this answer is lost: start over, without requestState";
                Wire::new(StatusCode::OK, INTERNAL, "route.continuation_lost", message).outcome(Outcome::GatewayFailed)
            }
            Self::Continuation(_) => {
                let message = "requestState is not of this request: send what was sent before, or start over without it";
                Wire::new(StatusCode::OK, INVALID_PARAMS, "route.continuation", message)
            }
            Self::NotOpened => {
                let message = "The server wants a page opened before it carries the request out, and that was declined";
                Wire::new(StatusCode::OK, INTERNAL, "route.not_opened", message)
            }
            Self::NoSessionKey => own_fault("route.no_session_key"),
            Self::Transport => {
                Wire::new(StatusCode::NOT_IMPLEMENTED, INTERNAL, "route.transport", "This server's transport is not served yet")
                    .outcome(Outcome::GatewayFailed)
            }
            Self::Drained => {
                let message = "Every endpoint of this server is out of use for now; try again later";
                Wire::own(StatusCode::SERVICE_UNAVAILABLE, "route.drained", message).retry_after(5)
            }
            Self::NoCredential => own_fault("route.no_credential"),
            Self::Sessions(crowded) => {
                let message = match crowded {
                    Crowded::Node | Crowded::Lost(_) => "The gateway has as many sessions as it takes; try again",
                    Crowded::Organization => "Your organisation has as many sessions open as it may; end some, or try again",
                    Crowded::Principal => "You have as many sessions open as you may; end some, or try again",
                    Crowded::Server => "This server has as many sessions over this transport as it takes; try again",
                };
                Wire::own(StatusCode::TOO_MANY_REQUESTS, "route.sessions", message).retry_after(5)
            }
            Self::Tickets(_) => {
                let message = "Too many tickets were given out and not used; try again";
                Wire::own(StatusCode::TOO_MANY_REQUESTS, "route.tickets", message).retry_after(30)
            }
            Self::Lost(Lost::Revoked) => AuthenticateDenial::Revoked.wire(),
            Self::Lost(Lost::KeyGone) => AuthenticateDenial::Token(TokenError::UnknownKey).wire(),
            Self::Lost(Lost::ServerGone) => AuthenticateDenial::UnknownServer.wire(),
            Self::Lost(Lost::NothingGranted) => AuthorizeDenial::Nothing { anonymous: false }.wire(),
        }
    }
}

impl OperateDenial {
    fn wire(&self) -> Wire {
        match self {
            Self::NotOperator => {
                let message = "This is for operators of the organisation: roles owner, admin and operator";
                Wire::own(StatusCode::FORBIDDEN, "operate.not_operator", message)
            }
            Self::Organization => {
                let message = "The credential is not for this organisation";
                Wire::own(StatusCode::FORBIDDEN, "operate.organization", message)
            }
            Self::NotFound(what) => Wire::own(StatusCode::NOT_FOUND, "operate.not_found", format!("No such {what}")),
            Self::Unclear { what, silent } => {
                let message = format!("No such {what} on any node that answered; it may be on one that did not");
                let silent = serde_json::to_string(silent).expect("plain data serialises");
                let wire = Wire::own(StatusCode::SERVICE_UNAVAILABLE, "operate.unclear", message).retry_after(5);
                wire.data(format!(r#"{{"unreachable":{silent}}}"#)).outcome(Outcome::GatewayFailed)
            }
            Self::Bad(expected) => Wire::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "operate.bad", *expected),
            Self::TooLarge { limit } => {
                let message = format!("The body is larger than {limit} bytes");
                Wire::own(StatusCode::PAYLOAD_TOO_LARGE, "operate.too_large", message)
            }
        }
    }
}

impl RelayDenial {
    fn wire(&self) -> Wire {
        match self {
            Self::Status(_) => bad_gateway("relay.status"),
            Self::Encoding => bad_gateway("relay.encoding"),
            Self::ContentType => bad_gateway("relay.content_type"),
            Self::TooLarge { .. } => bad_gateway("relay.too_large"),
            Self::Unreadable => bad_gateway("relay.unreadable"),
            Self::AnotherAnswer => bad_gateway("relay.another_answer"),
            Self::Broken => bad_gateway("relay.broken"),
            Self::BadInitialize => bad_gateway("relay.bad_initialize"),
        }
    }
}

/// The codec knows what real peers expect of it.
fn codec(refusal: &Refusal) -> Wire {
    let label = format!("decode.{}", refusal.reason());
    let wire = Wire::new(refusal.status(), refusal.code(), label, refusal.to_string());
    Wire { data: refusal.data().map(|data| data.to_string()), allow: refusal.allow(), ..wire }
}

fn upstream(fault: &Fault) -> Wire {
    match fault {
        Fault::Connect { .. } => {
            let message = "The server cannot be reached";
            Wire::new(StatusCode::BAD_GATEWAY, INTERNAL, "upstream.connect", message).outcome(Outcome::UpstreamFailed)
        }
        Fault::Broke { .. } => {
            let message = "The server broke off before it answered";
            Wire::new(StatusCode::BAD_GATEWAY, INTERNAL, "upstream.broke", message).outcome(Outcome::UpstreamFailed)
        }
        Fault::Slow { .. } => {
            let message = "The server did not answer in time";
            Wire::new(StatusCode::GATEWAY_TIMEOUT, INTERNAL, "upstream.slow", message).outcome(Outcome::UpstreamFailed)
        }
    }
}

fn bad_gateway(label: &'static str) -> Wire {
    let message = "The server's answer cannot be passed on";
    Wire::new(StatusCode::BAD_GATEWAY, INTERNAL, label, message).outcome(Outcome::UpstreamFailed)
}

fn own_fault(label: &'static str) -> Wire {
    Wire::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, label, "Internal error").outcome(Outcome::GatewayFailed)
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serialises")
}
