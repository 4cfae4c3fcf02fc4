//! The MCP server that tests put behind the gateway: both eras over Streamable HTTP, every fixture that the
//! official conformance suite names, and a record of what reached it. Never judges; tests read `Stats`.

mod dialogue;
mod http;
mod notices;
mod prompts;
mod resources;
mod server;
mod stats;
mod tools;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::RequestStateCodec;
use rmcp::task_manager::TaskManager;
use rmcp::transport::StreamableHttpServerConfig;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio_util::sync::CancellationToken;

use crate::serve::Served;
pub use notices::Change;
use notices::Notices;
pub use stats::{SeenRequest, Snapshot, Stats};

/// What clients are told to wait before they reconnect to a stream; short, because tests wait for it.
const RECONNECT_AFTER: Duration = Duration::from_millis(300);

/// What all sessions of one backend share.
struct Shared {
    stats: Arc<Stats>,
    notices: Notices,
    tasks: TaskManager,
    seals: RequestStateCodec,
    sessions: Arc<LocalSessionManager>,
    stop: CancellationToken,
}

/// A running backend. Dropping it ends every stream it serves.
pub struct Backend {
    served: Served,
    shared: Arc<Shared>,
}

impl Backend {
    /// Starts a backend on `listen`; port 0 picks a free port.
    pub async fn start(listen: SocketAddr) -> anyhow::Result<Self> {
        let mut sessions = LocalSessionManager::default();
        sessions.session_config.sse_retry = Some(RECONNECT_AFTER);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            stats: Arc::new(Stats::default()),
            notices: Notices::new(),
            tasks: TaskManager::new(),
            seals: RequestStateCodec::new(rand::random::<[u8; 32]>()),
            sessions: Arc::new(sessions),
            stop: stop.clone(),
        });
        let config = StreamableHttpServerConfig::default()
            .with_sse_retry(Some(RECONNECT_AFTER))
            .with_allowed_origins(["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"])
            .with_cancellation_token(stop.child_token());
        let served = Served::start(listen, http::router(&shared, config), stop).await?;
        Ok(Self { served, shared })
    }

    /// Starts a backend on a free loopback port.
    pub async fn on_free_port() -> anyhow::Result<Self> {
        Self::start(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Where MCP clients connect: `http://127.0.0.1:PORT/mcp`.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// What reached this backend so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Tells every subscribed client of a change, in both eras.
    pub async fn announce(&self, change: Change) {
        self.shared.notices.announce(change).await;
    }

    /// Stops serving and waits for open requests to end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.served.stop().await
    }

    /// Gives up the handle to the shared state, for a process that only serves.
    pub fn into_served(self) -> Served {
        self.served
    }
}
