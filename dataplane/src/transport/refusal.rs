//! Every way the Streamable HTTP codec refuses a request, with the status and JSON-RPC code that real peers expect.
//! Texts never carry values from the request, except the version that -32022 must echo. The pipeline's error table
//! turns them into a response.

use http::StatusCode;
use serde_json::{Value, json};

use super::scan::ScanError;
use super::version::Version;

/// JSON-RPC: invalid request.
pub const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: method not found.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: invalid params.
pub const INVALID_PARAMS: i32 = -32602;
/// What legacy implementations answer for transport-level refusals.
pub const LEGACY_REFUSAL: i32 = -32000;
/// MCP 2026-07-28: a header is missing or differs from the body.
pub const HEADER_MISMATCH: i32 = -32020;
/// MCP 2026-07-28: unsupported protocol version.
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Not there.
    Missing,
    /// There more than once.
    Doubled,
    /// Not visible ASCII, or an invalid Base64 sentinel.
    Malformed,
    /// Not what the body says.
    Differs,
}

impl Wrong {
    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Doubled => "is there more than once",
            Self::Malformed => "is malformed",
            Self::Differs => "differs from the body",
        }
    }
}

/// Why the transport refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The HTTP method has no meaning here, or none in this era.
    #[error("method not allowed: use {allow}")]
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// `Accept` does not list what the answer may be.
    #[error("not acceptable: Accept must list {wanted}")]
    NotAcceptable {
        /// What it must list.
        wanted: &'static str,
    },
    /// The body is not declared as JSON, or is encoded.
    #[error("unsupported media type: send Content-Type: application/json without Content-Encoding")]
    UnsupportedMediaType,
    /// A header of the transport is unusable, whatever the era.
    #[error("header {header} {}", wrong.as_str())]
    Header {
        /// The header's name.
        header: &'static str,
        /// What is wrong with it.
        wrong: Wrong,
    },
    /// The body failed the strict scan.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A legacy request, or one of no recognisable era, without `Mcp-Session-Id`.
    #[error("Mcp-Session-Id is required: initialize first, or send the _meta of protocol version 2026-07-28")]
    MissingSession,
    /// A legacy request with a version header that names no legacy version.
    #[error("unsupported MCP-Protocol-Version: use 2025-03-26, 2025-06-18 or 2025-11-25 in a session")]
    LegacyVersion,
    /// A batch where the protocol version has none.
    #[error("JSON-RPC batches exist only in protocol version 2025-03-26")]
    Batch,
    /// Several messages where one is expected.
    #[error("one message is expected here, not a batch")]
    OneMessage,
    /// What needs a session of the client's own, where there is none.
    #[error("this endpoint has no sessions: send requests and notifications, not initialize and not answers")]
    Sessionless,
    /// `Last-Event-ID` that names no event.
    #[error("Last-Event-ID names no event of this session")]
    EventId,
    /// A request over a connection that has another with this id, or as many as it may.
    #[error("a request with this id is under way, or as many as may be are")]
    UnderWay,
    /// `initialize` inside a batch.
    #[error("initialize must not be part of a batch")]
    InitializeInBatch,
    /// A modern request without a required member of `params._meta`.
    #[error("params._meta has no valid `{key}`")]
    MissingMeta {
        /// The key.
        key: &'static str,
    },
    /// A modern request whose headers do not agree with its body.
    #[error("header mismatch: {header} {}", wrong.as_str())]
    HeaderMismatch {
        /// The header's name.
        header: &'static str,
        /// What is wrong with it.
        wrong: Wrong,
    },
    /// A modern request for a version that is not served.
    #[error("unsupported protocol version")]
    UnsupportedVersion {
        /// What the client asked for.
        requested: Box<str>,
    },
    /// A modern request for a method that its version removed.
    #[error("method not found: protocol version 2026-07-28 removed it")]
    RemovedMethod,
    /// A client's answer to a request, which modern servers cannot make.
    #[error("protocol version 2026-07-28 has no responses from clients")]
    ResponseFromClient,
    /// Not a request for a WebSocket.
    #[error("this endpoint is a WebSocket: upgrade to version 13 (RFC 6455), subprotocol mcp")]
    NoUpgrade,
    /// A later version over a transport that it does not have here.
    #[error("protocol version 2026-07-28 is not served over this transport: use Streamable HTTP or WebSocket")]
    LegacyTransport,
    /// A member of `params` that the method needs is missing or not a string.
    #[error("params.{member} must be a string")]
    InvalidParams {
        /// The member.
        member: &'static str,
    },
}

impl Refusal {
    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Scan(ScanError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RemovedMethod => StatusCode::NOT_FOUND,
            Self::NoUpgrade => StatusCode::UPGRADE_REQUIRED,
            Self::Header { .. }
            | Self::Scan(_)
            | Self::MissingSession
            | Self::LegacyVersion
            | Self::Batch
            | Self::OneMessage
            | Self::Sessionless
            | Self::EventId
            | Self::UnderWay
            | Self::InitializeInBatch
            | Self::MissingMeta { .. }
            | Self::HeaderMismatch { .. }
            | Self::UnsupportedVersion { .. }
            | Self::ResponseFromClient
            | Self::LegacyTransport
            | Self::InvalidParams { .. } => StatusCode::BAD_REQUEST,
        }
    }

    /// The JSON-RPC error code of the answer.
    pub fn code(&self) -> i32 {
        match self {
            Self::MethodNotAllowed { .. }
            | Self::NotAcceptable { .. }
            | Self::UnsupportedMediaType
            | Self::MissingSession
            | Self::NoUpgrade
            | Self::LegacyVersion => LEGACY_REFUSAL,
            Self::Header { .. }
            | Self::Batch
            | Self::OneMessage
            | Self::Sessionless
            | Self::EventId
            | Self::UnderWay
            | Self::InitializeInBatch
            | Self::ResponseFromClient => INVALID_REQUEST,
            Self::Scan(error) => error.code(),
            Self::MissingMeta { .. } | Self::InvalidParams { .. } | Self::LegacyTransport => INVALID_PARAMS,
            Self::HeaderMismatch { .. } => HEADER_MISMATCH,
            Self::UnsupportedVersion { .. } => UNSUPPORTED_VERSION,
            Self::RemovedMethod => METHOD_NOT_FOUND,
        }
    }

    /// `error.data` of the answer, where the protocol defines it.
    pub fn data(&self) -> Option<Value> {
        match self {
            Self::UnsupportedVersion { requested } => Some(json!({ "supported": Version::MODERN, "requested": requested })),
            _ => None,
        }
    }

    /// The value of `Allow`, which goes with 405.
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }

    /// A short, closed name for metrics and audit records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::NotAcceptable { .. } => "not_acceptable",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Header { .. } => "bad_header",
            Self::Scan(error) => error.reason(),
            Self::MissingSession => "missing_session",
            Self::LegacyVersion | Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::Batch | Self::OneMessage | Self::InitializeInBatch => "batch",
            Self::UnderWay => "under_way",
            Self::MissingMeta { .. } => "missing_meta",
            Self::HeaderMismatch { .. } => "header_mismatch",
            Self::RemovedMethod => "removed_method",
            Self::ResponseFromClient => "response_from_client",
            Self::NoUpgrade => "no_upgrade",
            Self::Sessionless => "sessionless",
            Self::EventId => "event_id",
            Self::LegacyTransport => "legacy_transport",
            Self::InvalidParams { .. } => "invalid_params",
        }
    }
}
