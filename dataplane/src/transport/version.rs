//! The protocol versions that exist, the eras they belong to, and the ways in which clients come. Never decides which one a peer speaks:
//! codecs do.

use std::fmt;

use mcp_gateway::proto::config::v1 as wire;

/// How a protocol version treats state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// The initialize handshake and sessions: 2025-11-25 and earlier.
    Legacy,
    /// Self-contained requests: 2026-07-28 and later.
    Modern,
}

impl Era {
    /// `legacy` or `modern`, as in audit records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// A published version of the protocol, in order of publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP+SSE; may be negotiated over Streamable HTTP by old clients.
    V2024_11_05,
    /// Streamable HTTP with batches.
    V2025_03_26,
    /// No batches; the version header.
    V2025_06_18,
    /// The last one with sessions.
    V2025_11_25,
    /// No sessions.
    V2026_07_28,
}

impl Version {
    /// What a legacy request without a version header is taken for (2025-06-18 transports, protocol version header).
    pub const ASSUMED: Self = Self::V2025_03_26;
    /// The versions of the modern era that are served, newest first: `data.supported` of -32022.
    pub const MODERN: &'static [&'static str] = &["2026-07-28"];

    /// The version with this exact text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28]
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// The text on the wire: a date.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era it belongs to.
    pub fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => Era::Legacy,
            Self::V2026_07_28 => Era::Modern,
        }
    }

    /// Whether JSON-RPC batches exist in it (only 2025-03-26 defines them).
    pub fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a client reaches the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientTransport {
    /// Streamable HTTP: 2025-03-26 and later.
    StreamableHttp,
    /// HTTP+SSE: 2024-11-05.
    HttpSse,
    /// WebSocket, one message per text frame.
    WebSocket,
    /// JSON-RPC over POST, one request and one answer.
    JsonRpc,
}

impl ClientTransport {
    /// As in records, labels and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StreamableHttp => "streamable-http",
            Self::HttpSse => "http-sse",
            Self::WebSocket => "websocket",
            Self::JsonRpc => "json-rpc",
        }
    }
}

impl From<ClientTransport> for wire::ClientTransport {
    fn from(transport: ClientTransport) -> Self {
        match transport {
            ClientTransport::StreamableHttp => Self::StreamableHttp,
            ClientTransport::HttpSse => Self::HttpSse,
            ClientTransport::WebSocket => Self::Websocket,
            ClientTransport::JsonRpc => Self::JsonRpc,
        }
    }
}
