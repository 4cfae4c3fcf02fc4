//! Wiring: builds the data plane from its configuration, brings back what is on disk, binds, serves, connects, drains. The only place
//! that knows every part.
//!
//! Installs no globals: the binary, `mcpgw standalone` and tests run it side by side with other things.

mod control;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admin;
use crate::audit::{self, Spool};
use crate::children::{Children, Program};
use crate::config::{Config, Listen};
use crate::files::{self, Files};
use crate::limits::LinkError;
use crate::listener::tls::{Certificates, TlsError};
use crate::listener::{Listener, Shared, Tls};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::node::Identity;
use crate::peers::{self, Door, Peers};
use crate::pipeline::Pipeline;
use crate::pipeline::trail::Recorder;
use crate::relay::Surroundings;
use crate::tasks::{OnExit, Tasks};
use crate::upstream::Upstreams;
use crate::xds::{self, Restored};

use control::Control;
pub use control::JoinError;

/// How long background tasks get to end after the last call has.
const BACKGROUND_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// How long servers' processes get to end after the last call has.
const CHILDREN_DEADLINE: std::time::Duration = std::time::Duration::from_secs(6);

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("state_dir {}: {source}", path.display())]
    StateDir { path: PathBuf, source: io::Error },
    #[error("listening on {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Spool(#[from] audit::OpenError),
    #[error("starting a thread: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Files(#[from] files::LoadError),
    #[error(transparent)]
    Redis(#[from] LinkError),
}

/// Why the data plane stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("a task that the data plane cannot do without has ended; see the log")]
    TaskLost,
}

/// Where a data plane listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// For MCP clients, in the order of the configuration.
    pub listen: Vec<SocketAddr>,
    /// Health, readiness and metrics.
    pub admin: SocketAddr,
    /// For other nodes, where that was asked for.
    pub peer: Option<SocketAddr>,
}

/// A data plane that is bound and not yet serving.
pub struct App {
    config: Arc<Config>,
    live: Arc<Live>,
    pipeline: Arc<Pipeline>,
    front: Front,
    admin: TcpListener,
    /// For other nodes.
    door: Option<Listener>,
    addresses: Addresses,
    control: Option<Control>,
    files: Option<Files>,
    /// Servers that are processes of this node.
    children: Children,
    tasks: Tasks,
    /// Connections only: they end after everybody was told to drain and before everything else stops.
    connections: Tasks,
    draining: CancellationToken,
}

/// Where the configuration comes from.
#[derive(Clone, Copy)]
enum From {
    ControlPlane,
    Files,
    /// Whoever built the app swaps it.
    Caller,
}

/// The client-facing side.
struct Front {
    listeners: Vec<Listener>,
    certificates: Vec<Arc<Certificates>>,
}

impl App {
    /// A node of a fleet: begins with the last good configuration on disk, before it binds; [`App::run`] joins the control plane and
    /// follows its configuration. Or, with `static_files`, a lone node: begins with these, and follows them.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        Self::build_on(config, Handle::current()).await
    }

    /// As [`App::build`], with what is not about requests on a runtime of its own.
    pub async fn build_on(config: Config, background: Handle) -> Result<Self, BuildError> {
        let live = Arc::new(Live::new().map_err(BuildError::Thread)?);
        let from = if config.static_files.is_empty() { From::ControlPlane } else { From::Files };
        Self::assemble(config, live, background, from).await
    }

    /// Serves what `live` holds, without any control plane.
    pub async fn alone(config: Config, live: Arc<Live>) -> Result<Self, BuildError> {
        Self::assemble(config, live, Handle::current(), From::Caller).await
    }

    async fn assemble(config: Config, live: Arc<Live>, background: Handle, from: From) -> Result<Self, BuildError> {
        let config = Arc::new(config);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (tasks, connections) = (Tasks::new(background.clone()), Tasks::new(Handle::current()));
        let draining = CancellationToken::new();
        let spool = Arc::new(open_spool(&config)?);
        let metrics = Arc::new(Metrics::default());
        let (mut restored, mut files) = (None, None);
        match from {
            From::ControlPlane => restored = Some(restore(&config, &live, &metrics, &background).await?),
            From::Files => files = Some(Files::load(&config, &live, &metrics, &background).await?),
            From::Caller => {}
        }
        let upstreams = Upstreams::new(config.timeouts.connect, &provider);
        let (known, identity) = watch::channel(None);
        let peers = Peers::new(live.clone(), identity.clone(), &provider);
        let recorder = Recorder { spool: spool.clone(), metrics: metrics.clone() };
        let children = Children::new(config.children.clone(), Program::default(), tasks.clone());
        let surroundings = Surroundings { tasks: connections.clone(), children: children.clone(), draining: draining.clone() };
        let pipeline = Arc::new(Pipeline::new(config.clone(), live.clone(), recorder, (upstreams, peers), surroundings));
        reach_counts(&pipeline, &background).await?;
        let (front, listen) = Front::bind(&config, &provider).await?;
        let at = |source| BuildError::Bind { address: config.admin_listen, source };
        let admin = TcpListener::bind(config.admin_listen).await.map_err(at)?;
        let door = match config.peer.listen {
            Some(address) => Some(open_door(address, identity, provider).await?),
            None => None,
        };
        if door.is_some() && advertised(&config, config.peer.listen).is_empty() {
            tracing::warn!("peer.listen is every address and peer.advertise is not set: other nodes cannot reach this one");
        }
        let peer = door.as_ref().map(Listener::address).transpose().map_err(at)?;
        let addresses = Addresses { listen, admin: admin.local_addr().map_err(at)?, peer };
        let control = restored.map(|restored| Control {
            settings: config.control_plane.clone(),
            advertise: advertised(&config, peer),
            state_dir: config.state_dir.clone(),
            live: live.clone(),
            restored,
            spool,
            metrics,
            limits: pipeline.limits().clone(),
            findings: pipeline.findings(),
            known,
            tasks: tasks.clone(),
        });
        Ok(Self { config, live, pipeline, front, admin, door, addresses, control, files, children, tasks, connections, draining })
    }

    /// Where it is bound.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What it serves by.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Where records are written.
    #[cfg(test)]
    pub(crate) fn spool(&self) -> Arc<Spool> {
        self.pipeline.spool()
    }

    /// What it found out about servers.
    #[cfg(test)]
    pub(crate) fn findings(&self) -> crate::upstream::Findings {
        self.pipeline.findings()
    }

    /// Serves until `stop`, then drains: readiness fails first, calls finish, and after the configured deadline whatever
    /// is left is dropped.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self {
            config,
            live,
            pipeline,
            front,
            admin,
            door,
            addresses,
            control,
            files,
            children,
            tasks,
            connections,
            draining,
        } = self;
        let handler = Shared::new(pipeline.clone(), &config.limits, &config.timeouts, connections.clone(), draining.clone());
        front.serve(&Arc::new(handler), &tasks, &connections);
        if let Some(door) = door {
            let answers = Arc::new(Door(pipeline.clone()));
            let shared = Shared::new(answers, &config.limits, &config.timeouts, connections.clone(), draining.clone());
            connections.spawn("peer-listener", OnExit::Ignore, door.serve(Arc::new(shared)));
        }
        if let Some(files) = files {
            tasks.spawn("audit-retention", OnExit::Report, files.keep_room(pipeline.spool(), tasks.stopping()));
            tasks.spawn("static-files", OnExit::Report, files.follow(tasks.stopping()));
        }
        let (limits, stopping) = (pipeline.limits().clone(), tasks.stopping());
        tasks.spawn("shared-limits", OnExit::Stop, async move { limits.keep(stopping).await });
        let pages = admin::serve(admin, live, pipeline, draining.clone(), tasks.stopping());
        tasks.spawn("admin-listener", OnExit::Report, pages);
        tracing::info!(listen = ?addresses.listen, admin = %addresses.admin, "serving");
        let lost = tasks.stopping();
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = lost.cancelled() => Err(RunError::TaskLost),
            error = follow(control) => Err(error.into()),
        };
        draining.cancel();
        tracing::info!(deadline_seconds = config.timeouts.drain.as_secs(), "draining: calls may finish, connections close");
        if !connections.finish(config.timeouts.drain).await {
            tracing::warn!("the drain deadline passed with calls in flight; they were dropped");
        }
        if !children.shutdown(CHILDREN_DEADLINE).await {
            tracing::warn!("processes of servers did not end in time");
        }
        if !tasks.shutdown(BACKGROUND_DEADLINE).await {
            tracing::warn!("background tasks did not end in time");
        }
        result
    }
}

/// What other nodes are told: what the configuration says, or where this one listens, unless that is everywhere.
fn advertised(config: &Config, bound: Option<SocketAddr>) -> String {
    let bound = bound.filter(|bound| !bound.ip().is_unspecified()).map(|bound| bound.to_string());
    config.peer.advertise.clone().or(bound).unwrap_or_default()
}

/// The listener for other nodes.
async fn open_door(
    address: SocketAddr,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    provider: Arc<CryptoProvider>,
) -> Result<Listener, BuildError> {
    let tls = Tls::Now(Box::new(move || peers::acceptor(&identity, &provider)));
    Listener::bind(address, tls).await.map_err(|source| BuildError::Bind { address, source })
}

/// Joins the control plane; returns only if that fails.
async fn follow(control: Option<Control>) -> JoinError {
    if let Some(control) = control
        && let Err(error) = control.start().await
    {
        return error;
    }
    std::future::pending().await
}

impl Front {
    async fn bind(config: &Config, provider: &Arc<CryptoProvider>) -> Result<(Self, Vec<SocketAddr>), BuildError> {
        let (mut listeners, mut certificates, mut bound) = (Vec::new(), Vec::new(), Vec::new());
        for listen in &config.listen {
            let loaded = load(listen, provider)?;
            let acceptor = loaded.as_ref().map(Certificates::acceptor).transpose()?.map_or(Tls::None, Tls::Always);
            certificates.extend(loaded);
            let at = |source| BuildError::Bind { address: listen.address, source };
            let listener = Listener::bind(listen.address, acceptor).await.map_err(at)?;
            bound.push(listener.address().map_err(at)?);
            listeners.push(listener);
        }
        Ok((Self { listeners, certificates }, bound))
    }

    fn serve(self, shared: &Arc<Shared<Pipeline>>, tasks: &Tasks, connections: &Tasks) {
        for certificates in self.certificates {
            tasks.spawn("certificates", OnExit::Report, certificates.keep_fresh(tasks.stopping()));
        }
        for listener in self.listeners {
            connections.spawn("listener", OnExit::Ignore, listener.serve(shared.clone()));
        }
    }
}

/// Disk, listen, connect: what is on disk is in force before a client can connect. Compiling it is not for a runtime's own threads.
async fn restore(config: &Config, live: &Arc<Live>, metrics: &Arc<Metrics>, background: &Handle) -> Result<Restored, BuildError> {
    let (path, live, metrics) = (config.state_dir.clone(), live.clone(), metrics.clone());
    let restored = background.spawn_blocking(move || xds::restore(&path, &live, &metrics.discovery)).await;
    let restored = restored.unwrap_or_else(|error| Err(io::Error::other(error)));
    restored.map_err(|source| BuildError::StateDir { path: config.state_dir.clone(), source })
}

/// Reaches for the counts that nodes share, from where they are kept in reach later.
async fn reach_counts(pipeline: &Pipeline, background: &Handle) -> Result<(), LinkError> {
    let limits = pipeline.limits().clone();
    let reached = background.spawn(async move { limits.connect().await }).await;
    // Only a runtime that stops drops a task; nobody is served then.
    reached.unwrap_or(Ok(()))
}

fn open_spool(config: &Config) -> Result<Spool, BuildError> {
    let dir = config.state_dir.join("spool");
    std::fs::create_dir_all(&dir).map_err(|source| BuildError::StateDir { path: dir.clone(), source })?;
    let lanes = match config.audit.lanes {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        lanes => lanes,
    };
    let limits = audit::Limits { max_bytes: config.audit.spool_max_bytes, ..audit::Limits::default() };
    Ok(Spool::open(&dir, Uuid::now_v7(), lanes, limits)?)
}

fn load(listen: &Listen, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<Certificates>>, TlsError> {
    if listen.certificates.is_empty() {
        return Ok(None);
    }
    Certificates::load(listen.certificates.clone(), provider.clone()).map(Some)
}
