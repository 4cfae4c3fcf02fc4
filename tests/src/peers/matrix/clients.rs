//! The clients of the matrix: one foreign SDK release per protocol version and transport.

use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use super::report::{Check, Report};
use super::servers::Server;
use crate::foreign::{self, Foreign};
use crate::peers::{Document, script};

/// Every check at its deadline, connecting and closing at theirs, on a machine that is busy with builds.
const MATRIX_TIMEOUT: Duration = Duration::from_secs(200);

/// Where a client connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A server or gateway that listens
    Url(String),
    /// A program on whose stdio the server speaks: `mcpgw connect`, or the server itself
    Command(Vec<String>),
}

/// A client of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Client {
    /// HTTP+SSE: the last TypeScript SDK whose latest version was 2024-11-05
    #[serde(rename = "sse-2024-11-05")]
    Sse20241105,
    /// Streamable HTTP: the last TypeScript SDK whose latest version was 2025-03-26
    #[serde(rename = "streamable-http-2025-03-26")]
    StreamableHttp20250326,
    /// Streamable HTTP: the last TypeScript SDK whose latest version was 2025-06-18
    #[serde(rename = "streamable-http-2025-06-18")]
    StreamableHttp20250618,
    /// Streamable HTTP: the newest TypeScript SDK 1.x, of 2025-11-25
    #[serde(rename = "streamable-http-2025-11-25")]
    StreamableHttp20251125,
    /// WebSocket: the newest TypeScript SDK 1.x; cannot send a header
    #[serde(rename = "websocket")]
    WebSocket,
    /// Plain JSON-RPC over POST, with batches: the library json-rpc-2.0
    #[serde(rename = "json-rpc")]
    JsonRpc,
    /// stdio: the newest TypeScript SDK 1.x, which starts a program
    #[serde(rename = "stdio")]
    Stdio,
    /// Streamable HTTP of the modern era alone: TypeScript SDK 2.x
    #[serde(rename = "streamable-http-2026-07-28")]
    StreamableHttp20260728,
    /// Streamable HTTP: Python SDK 2.x, which finds out the era and takes the modern one if there is a choice
    #[serde(rename = "streamable-http-2026-07-28-python")]
    StreamableHttp20260728Python,
    /// stdio of the modern era alone: TypeScript SDK 2.x, which starts a program
    #[serde(rename = "stdio-2026-07-28")]
    Stdio20260728,
}

impl Client {
    /// All of them, in the order of the table's rows.
    pub const ALL: [Self; 10] = [
        Self::Sse20241105,
        Self::StreamableHttp20250326,
        Self::StreamableHttp20250618,
        Self::StreamableHttp20251125,
        Self::WebSocket,
        Self::JsonRpc,
        Self::Stdio,
        Self::StreamableHttp20260728,
        Self::StreamableHttp20260728Python,
        Self::Stdio20260728,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sse20241105 => "HTTP+SSE 2024-11-05",
            Self::StreamableHttp20250326 => "Streamable HTTP 2025-03-26",
            Self::StreamableHttp20250618 => "Streamable HTTP 2025-06-18",
            Self::StreamableHttp20251125 => "Streamable HTTP 2025-11-25",
            Self::WebSocket => "WebSocket",
            Self::JsonRpc => "JSON-RPC over POST",
            Self::Stdio => "stdio",
            Self::StreamableHttp20260728 => "Streamable HTTP 2026-07-28",
            Self::StreamableHttp20260728Python => "Streamable HTTP 2026-07-28, Python",
            Self::Stdio20260728 => "stdio 2026-07-28",
        }
    }

    /// The package whose release it is, as `tests/foreign/package.json` calls it, or `tests/foreign/requirements.txt`.
    pub fn package(self) -> &'static str {
        match self {
            Self::Sse20241105 => "sdk-2024-11-05",
            Self::StreamableHttp20250326 => "sdk-2025-03-26",
            Self::StreamableHttp20250618 => "sdk-2025-06-18",
            Self::StreamableHttp20251125 | Self::WebSocket | Self::Stdio => "@modelcontextprotocol/sdk",
            Self::JsonRpc => "json-rpc-2.0",
            Self::StreamableHttp20260728 | Self::Stdio20260728 => "@modelcontextprotocol/client",
            Self::StreamableHttp20260728Python => "mcp",
        }
    }

    /// The version it agrees on with a server that knows all of its era; none without a handshake.
    pub fn protocol_version(self) -> Option<&'static str> {
        match self {
            Self::Sse20241105 => Some("2024-11-05"),
            Self::StreamableHttp20250326 => Some("2025-03-26"),
            Self::StreamableHttp20250618 => Some("2025-06-18"),
            Self::StreamableHttp20251125 | Self::WebSocket | Self::Stdio => Some("2025-11-25"),
            Self::JsonRpc => None,
            Self::StreamableHttp20260728 | Self::StreamableHttp20260728Python | Self::Stdio20260728 => Some("2026-07-28"),
        }
    }

    /// The checks it cannot make, whoever the server is.
    pub fn absent(self) -> &'static [Check] {
        match self {
            Self::Sse20241105 | Self::StreamableHttp20250326 => &[Check::Elicitation, Check::Batch],
            Self::StreamableHttp20250618
            | Self::StreamableHttp20251125
            | Self::WebSocket
            | Self::Stdio
            | Self::StreamableHttp20260728
            | Self::StreamableHttp20260728Python
            | Self::Stdio20260728 => &[Check::Batch],
            Self::JsonRpc => &[Check::Progress, Check::Elicitation, Check::Sampling, Check::Subscription, Check::ListChanged],
        }
    }

    /// The servers to which it needs no gateway.
    pub fn counterparts(self) -> &'static [Server] {
        match self {
            Self::Sse20241105 => &[Server::Sse],
            Self::StreamableHttp20250326 | Self::StreamableHttp20250618 | Self::StreamableHttp20251125 => {
                &[Server::StreamableHttp]
            }
            Self::WebSocket => &[Server::WebSocket],
            Self::JsonRpc => &[Server::JsonRpc],
            Self::Stdio => &[Server::Stdio],
            Self::StreamableHttp20260728 | Self::StreamableHttp20260728Python => &[Server::StreamableHttp20260728],
            Self::Stdio20260728 => &[Server::Stdio20260728],
        }
    }

    /// Makes every check in one connection. Failed checks are part of the report; an error means that the client itself
    /// could not run. A WebSocket client sends no `token`: its URL carries a ticket.
    pub async fn check(self, endpoint: &Endpoint, token: Option<&str>) -> anyhow::Result<Report> {
        let foreign = Foreign::installed()?;
        let interpreter = if self == Self::StreamableHttp20260728Python { foreign.python() } else { foreign.node() };
        let mut command = script(interpreter, self.script());
        command.args(["--sdk", self.package(), "--transport", self.transport()]);
        if self == Self::StreamableHttp20260728Python {
            command.args(["--mode", "auto"]);
        }
        match endpoint {
            Endpoint::Url(url) => command.args(["--url", url]),
            Endpoint::Command(words) => command.args(["--command", &serde_json::to_string(words)?]),
        };
        if let Some(token) = token {
            command.args(["--token", token]);
        }
        let what = format!("{self:?} at {endpoint:?}");
        let output = foreign::run(command.arg("matrix"), MATRIX_TIMEOUT).await.with_context(|| what.clone())?.succeeded(&what)?;
        let printed: Document =
            serde_json::from_str(&output.stdout).with_context(|| format!("{what} printed {:?}", output.stdout))?;
        Report::read(&printed, self.absent()).context(what)
    }

    fn script(self) -> &'static str {
        match self {
            Self::Sse20241105
            | Self::StreamableHttp20250326
            | Self::StreamableHttp20250618
            | Self::StreamableHttp20251125
            | Self::WebSocket
            | Self::Stdio => "ts1.mjs",
            Self::JsonRpc => "rpc.mjs",
            Self::StreamableHttp20260728 | Self::Stdio20260728 => "ts2.mjs",
            Self::StreamableHttp20260728Python => "py2.py",
        }
    }

    fn transport(self) -> &'static str {
        match self {
            Self::Sse20241105 => "sse",
            Self::StreamableHttp20250326
            | Self::StreamableHttp20250618
            | Self::StreamableHttp20251125
            | Self::StreamableHttp20260728
            | Self::StreamableHttp20260728Python => "http",
            Self::WebSocket => "ws",
            Self::JsonRpc => "rpc",
            Self::Stdio | Self::Stdio20260728 => "stdio",
        }
    }
}
