//! The fixture on every transport that servers speak: one logical server, built on a foreign SDK or library each time.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use super::clients::Endpoint;
use crate::foreign::{Foreign, Service};
use crate::peers::script;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const READY: &str = "listening on ";

/// What a server of the matrix speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// HTTP+SSE of 2024-11-05: TypeScript SDK 1.x
    Sse,
    /// Streamable HTTP with sessions, up to 2025-11-25: TypeScript SDK 1.x
    StreamableHttp,
    /// One message per text frame: Python SDK 1.x
    #[serde(rename = "websocket")]
    WebSocket,
    /// One message per line: TypeScript SDK 1.x
    Stdio,
    /// One JSON answer per POST, no sessions: the library jayson
    JsonRpc,
    /// Streamable HTTP of the modern era alone: TypeScript SDK 2.x
    #[serde(rename = "streamable-http-2026-07-28")]
    StreamableHttp20260728,
    /// One message per line, of the modern era alone: TypeScript SDK 2.x
    #[serde(rename = "stdio-2026-07-28")]
    Stdio20260728,
}

impl Server {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 7] = [
        Self::Sse,
        Self::StreamableHttp,
        Self::WebSocket,
        Self::Stdio,
        Self::JsonRpc,
        Self::StreamableHttp20260728,
        Self::Stdio20260728,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sse => "HTTP+SSE 2024-11-05",
            Self::StreamableHttp => "Streamable HTTP 2025-11-25",
            Self::WebSocket => "WebSocket",
            Self::Stdio => "stdio",
            Self::JsonRpc => "JSON-RPC over POST",
            Self::StreamableHttp20260728 => "Streamable HTTP 2026-07-28",
            Self::Stdio20260728 => "stdio 2026-07-28",
        }
    }

    /// Starts it on a free loopback port and waits until it listens. A server on stdio is started by its client.
    pub async fn start(self) -> anyhow::Result<Running> {
        let foreign = Foreign::installed()?;
        let (file, transport): (&str, &[&str]) = match self {
            Self::Sse => ("servers/ts1.mjs", &["sse"]),
            Self::StreamableHttp => ("servers/ts1.mjs", &["http"]),
            Self::WebSocket => ("servers/python1.py", &[]),
            Self::Stdio => ("servers/ts1.mjs", &["stdio"]),
            Self::JsonRpc => ("servers/rpc.mjs", &[]),
            Self::StreamableHttp20260728 => ("servers/ts2.mjs", &["http"]),
            Self::Stdio20260728 => ("servers/ts2.mjs", &["stdio"]),
        };
        let mut command = if self == Self::WebSocket { script(foreign.python1(), file) } else { script(foreign.node(), file) };
        command.args(transport);
        if matches!(self, Self::Stdio | Self::Stdio20260728) {
            let words = std::iter::once(command.as_std().get_program()).chain(command.as_std().get_args());
            let words: Result<Vec<String>, OsString> = words.map(|word| word.to_owned().into_string()).collect();
            let words = words.ok().context("the paths of the tests are UTF-8")?;
            return Ok(Running { endpoint: Endpoint::Command(words), service: None });
        }
        let url = OnceLock::new();
        let listens = |line: &str| line.strip_prefix(READY).is_some_and(|said| url.set(said.to_owned()).is_ok());
        let service = Service::start(&mut command, listens, START_TIMEOUT).await.with_context(|| format!("{self:?}"))?;
        let url = url.into_inner().context("a server that listens has said where")?;
        Ok(Running { endpoint: Endpoint::Url(url), service: Some(service) })
    }
}

/// A running server of the matrix; it ends with this handle.
#[derive(Debug)]
pub struct Running {
    endpoint: Endpoint,
    service: Option<Service>,
}

impl Running {
    /// How clients reach it: a URL, or the command line of a server on stdio.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The process id, for tests that stop or inspect it; none for a server on stdio.
    pub fn id(&self) -> Option<u32> {
        self.service.as_ref()?.id()
    }
}
