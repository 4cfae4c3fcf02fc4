//! Serves an axum router on a socket until its handle is dropped. Owns the listening task and the printed
//! address line; knows nothing of MCP. Used by the backend, the demo server and their binaries.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running server. Dropping it stops accepting and ends its open streams.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    stop: Option<DropGuard>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// Binds `listen` (port 0 picks a free one) and serves `router` until `stop` is cancelled.
    pub async fn start(listen: SocketAddr, router: axum::Router, stop: CancellationToken) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let ended = stop.clone();
        let serving = async move { axum::serve(listener, router).with_graceful_shutdown(ended.cancelled_owned()).await };
        // The task lives as long as this handle; there is no supervisor in a test server.
        #[allow(clippy::disallowed_methods)]
        let task = tokio::spawn(serving);
        Ok(Self { address, stop: Some(stop.drop_guard()), task })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where MCP clients connect.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Stops serving and waits until open requests have ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stop.take());
        self.task.await??;
        Ok(())
    }

    /// Prints `{"listening":URL}` on standard output and serves until the process is told to stop.
    pub async fn announce_and_run(self) -> anyhow::Result<()> {
        let line = serde_json::json!({ "listening": self.url() });
        writeln!(std::io::stdout(), "{line}")?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {}
            result = tokio::signal::ctrl_c() => result?,
        }
        self.stop().await
    }
}
