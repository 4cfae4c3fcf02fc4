//! Wires the control plane: [`App::build`] binds and returns the addresses, [`App::run`] serves until told to stop, then drains.
//!
//! Decides nothing itself. Called by `main`, by standalone and by tests, all in the same way.

use std::{net::SocketAddr, sync::Arc};

use secrecy::SecretString;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api,
    config::Config,
    evidence::checkpoint,
    follow::Arrivals,
    http,
    ingest::names::Names,
    keys::{self, Custody},
    maintenance,
    metrics::Metrics,
    nodes, open,
    publish::Publications,
    rollouts,
    status::overview::Overview,
    store::{self, Store},
    tasks::{OnExit, Tasks},
};

/// Why the control plane cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{name}: cannot listen on {address}: {cause}")]
    Bind { name: &'static str, address: SocketAddr, cause: std::io::Error },
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("{0}: {1}")]
    Tls(&'static str, String),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("stopped before the database was reached")]
    Stopped,
    #[error("cannot start: {0}")]
    Start(String),
    #[error("still busy after {0:?}: calls or streams were cut off")]
    Drain(std::time::Duration),
}

/// What every part of the control plane shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Core {
    pub config: Arc<Config>,
    pub store: Store,
    pub custody: Custody,
    pub tasks: Tasks,
    pub metrics: Arc<Metrics>,
    /// What nodes are brought to.
    pub publications: Publications,
    /// How the fleet stands.
    pub overview: Overview,
    /// What followers of the logs share.
    pub arrivals: Arrivals,
    /// Which names rollups keep apart.
    pub names: Arc<Names>,
    /// Whether database and keys have been reached since the start.
    pub opened: watch::Receiver<Opening>,
}

impl Core {
    /// Whether database and keys have been reached since the start.
    pub fn is_open(&self) -> bool {
        matches!(*self.opened.borrow(), Opening::Open(_))
    }
}

/// How far the start has come.
#[derive(Debug, Clone)]
pub enum Opening {
    /// The database is not reached yet: why not, once known.
    Waiting(Option<String>),
    /// Serving. The owner's credential if this start created it.
    Open(Option<Owner>),
    /// It will not get better by waiting.
    Failed(String),
}

/// The credential of the owner that a first start creates; shown once.
#[derive(Debug, Clone)]
pub struct Owner {
    pub email: String,
    pub password: SecretString,
    /// Whether the password was made up here rather than given.
    pub generated: bool,
    /// The slug of the organisation that the owner owns.
    pub organization: String,
}

/// Where the control plane listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub admin: SocketAddr,
    pub node: SocketAddr,
    pub http: SocketAddr,
}

/// A bound control plane.
pub struct App {
    core: Core,
    opening: watch::Sender<Opening>,
    admin: TcpListener,
    node: TcpListener,
    http: TcpListener,
    addresses: Addresses,
}

/// Waits for the end of the start.
#[derive(Debug, Clone)]
pub struct Opened(watch::Receiver<Opening>);

impl Opened {
    /// Returns once database and keys are reached: with the owner's credential, if this start created it.
    pub async fn wait(mut self) -> Result<Option<Owner>, Error> {
        let reached = self.0.wait_for(|opening| !matches!(opening, Opening::Waiting(_))).await;
        match reached.as_deref() {
            Ok(Opening::Open(owner)) => Ok(owner.clone()),
            Ok(Opening::Failed(why)) => Err(Error::Start(why.clone())),
            Ok(Opening::Waiting(_)) | Err(_) => Err(Error::Stopped),
        }
    }
}

impl App {
    /// Judges the settings and binds every listener. Nothing is served yet and the database is not asked.
    pub async fn build(config: Config) -> Result<Self, Error> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(crate::config::Error(problems).into());
        }
        let admin = bind("admin_listen", config.admin_listen).await?;
        let node = bind("node_listen", config.node_listen).await?;
        let http = bind("http_listen", config.http_listen).await?;
        let local =
            |name, listener: &TcpListener, address| listener.local_addr().map_err(|cause| Error::Bind { name, address, cause });
        let addresses = Addresses {
            admin: local("admin_listen", &admin, config.admin_listen)?,
            node: local("node_listen", &node, config.node_listen)?,
            http: local("http_listen", &http, config.http_listen)?,
        };
        let store = Store::new(&config)?;
        let master_key = config.master_key_bytes().unwrap_or_default(); // judged above
        let custody = Custody::new(store.clone(), master_key, &config.trust_domain);
        let (opening, opened) = watch::channel(Opening::Waiting(None));
        let tasks = Tasks::new(CancellationToken::new());
        let metrics = Arc::new(Metrics::default());
        let publications = Publications::new(&metrics);
        let overview = Overview::new(uuid::Uuid::now_v7().to_string(), &metrics);
        let names = Arc::default();
        let core = Core {
            config: Arc::new(config),
            store,
            custody,
            tasks,
            metrics,
            publications,
            overview,
            arrivals: Arrivals::default(),
            names,
            opened,
        };
        Ok(Self { core, opening, admin, node, http, addresses })
    }

    /// Where it listens: the real ports, also where the settings said 0.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the parts share; for embedding.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// To wait for the end of the start with, while [`App::run`] runs.
    pub fn opened(&self) -> Opened {
        Opened(self.core.opened.clone())
    }

    /// Serves until `stop`, then lets calls and streams end within the drain deadline.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Self { core, opening, admin, node, http, addresses } = self;
        info!(admin = %addresses.admin, node = %addresses.node, http = %addresses.http, "listening");
        let ended = core.tasks.stop_token().clone();
        http::spawn(&core, http);
        if let Err(error) = api::spawn(&core, admin) {
            ended.cancel();
            core.tasks.drain(core.config.drain()).await;
            return Err(error);
        }
        core.tasks.spawn("open", OnExit::Ignore, {
            let core = core.clone();
            async move {
                if open::until_open(&core, &opening).await {
                    fleet(&core, node);
                }
            }
        });
        tokio::select! {
            () = stop.cancelled() => info!("stopping"),
            () = ended.cancelled() => warn!("stopping because a part of this process ended"),
        }
        ended.cancel();
        let drained = core.tasks.drain(core.config.drain()).await;
        core.store.close().await;
        let failed = match &*core.opened.borrow() {
            Opening::Failed(why) => Some(why.clone()),
            Opening::Waiting(_) | Opening::Open(_) => None,
        };
        match (failed, drained) {
            (Some(why), _) => Err(Error::Start(why)),
            (None, true) => Ok(()),
            (None, false) => Err(Error::Drain(core.config.drain())),
        }
    }
}

/// Starts what serves nodes, once database and keys are reached.
fn fleet(core: &Core, listener: TcpListener) {
    let (custody, stop) = (core.custody.clone(), core.tasks.stop_token().clone());
    core.tasks.spawn("keys", OnExit::Ignore, async move { custody.follow(stop).await });
    core.publications.start(core);
    core.tasks.supervise("fleet-overview", {
        let core = core.clone();
        move || core.overview.clone().run(core.clone())
    });
    core.tasks.supervise("arrivals", {
        let core = core.clone();
        move || core.arrivals.clone().run(core.clone())
    });
    maintenance::spawn(core);
    checkpoint::spawn(core);
    rollouts::spawn(core);
    if let Err(error) = nodes::spawn(core, listener) {
        tracing::error!(%error, "nodes cannot be served: stopping");
        core.tasks.stop_token().cancel();
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|cause| Error::Bind { name, address, cause })
}
