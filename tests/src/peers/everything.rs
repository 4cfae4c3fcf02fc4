//! The published `server-everything`: a legacy server that is not ours, to put behind the gateway.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use crate::foreign::{Foreign, Service};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A port may be taken between finding and using it, so another one is tried then.
const PORTS_TRIED: usize = 5;

/// How server-everything is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EverythingTransport {
    /// Streamable HTTP at `/mcp`
    StreamableHttp,
    /// HTTP+SSE: GET `/sse`, POST `/message`
    Sse,
}

/// A running server-everything; it ends with this handle.
#[derive(Debug)]
pub struct Everything {
    service: Service,
    url: String,
}

impl Everything {
    /// Starts it on a free loopback port and waits until it listens.
    pub async fn start(transport: EverythingTransport) -> anyhow::Result<Self> {
        let foreign = Foreign::installed()?;
        let (mode, path) = match transport {
            EverythingTransport::StreamableHttp => ("streamableHttp", "mcp"),
            EverythingTransport::Sse => ("sse", "sse"),
        };
        let mut failure = None;
        for _ in 0..PORTS_TRIED {
            let port = free_port()?;
            let mut command = Command::new(foreign.node());
            command
                .arg(foreign.package("@modelcontextprotocol/server-everything/dist/index.js"))
                .arg(mode)
                .env("PORT", port.to_string());
            let listens = |line: &str| line.contains("on port");
            match Service::start(&mut command, listens, START_TIMEOUT).await {
                Ok(service) => {
                    let url = format!("http://127.0.0.1:{port}/{path}");
                    return Ok(Self { service, url });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no port was tried")?).context("server-everything does not start")
    }

    /// Where clients connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills it, as a crash would.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.service.kill().await
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
