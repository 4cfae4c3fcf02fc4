//! Both planes in one process, over the same gRPC and mutual TLS as a fleet, on a private Postgres unless a database is
//! named. Owns the order of start and stop; never a plane's business. Called by `commands/standalone`.

mod admin;
mod announce;
mod demo;
pub mod home;
mod node;
mod owner;
mod plan;
pub mod postgres;

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;

use anyhow::Context as _;
use clap::Args as Flags;
use mcpgw_controlplane::app::App as ControlPlane;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::output::Output;
use home::Home;
use owner::{Owner, OwnerFlags};
use plan::Plan;
use postgres::Postgres;

/// Flags of `standalone`.
#[derive(Debug, Flags)]
pub struct Options {
    /// Where everything is kept [default: the XDG state directory; for root /var/lib/mcpgw]
    #[arg(long, env = "MCPGW_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A Postgres of yours; without it a private one is initialised and supervised
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// Where PostgreSQL's initdb and postgres are [default: found in PATH and /usr/lib/postgresql]
    #[arg(long, env = "MCPGW_PG_BIN", value_name = "DIR")]
    pg_bin: Option<PathBuf>,
    #[command(flatten)]
    settings: plan::Settings,
    #[command(flatten)]
    owner: OwnerFlags,
    #[command(flatten)]
    demo: demo::DemoFlags,
}

/// Runs until it is told to stop.
pub async fn run(out: Output, args: Options) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let home = Home::open(&args.data_dir.map_or_else(config::state_dir, Ok)?)?;
    let plan = Plan::new(args.settings)?;
    let owner = Owner::load_or_make(&args.owner, &home, Plan::has_joined(&home)?)?;
    let mut database = tokio::select! {
        started = Database::start(&home, args.database_url, args.pg_bin) => started?,
        () = signals.next() => return Ok(()),
    };
    let control = ControlPlane::build(plan.control_plane(&home, database.url(), &owner)?).await?;
    let addresses = control.addresses();
    let opened = control.opened();
    let control_stop = CancellationToken::new();
    let mut control = pin!(control.run(control_stop.clone()));

    let own = node::Node { out, home: &home, plan: &plan, owner: &owner, demo: &args.demo, addresses };
    let mut node = Box::pin(own.run(opened, &mut signals));
    let (result, control_runs) = tokio::select! {
        result = &mut node => (result, true),
        ended = &mut control => (Err(ended.map_or_else(Into::into, |()| anyhow::anyhow!("the control plane ended"))), false),
        // Without its database the control plane has nothing left to finish.
        ended = database.ended() => (Err(anyhow::anyhow!("Postgres ended: {}", ended?)), false),
    };
    drop(node);
    control_stop.cancel();
    let stopped = if control_runs {
        tokio::select! {
            ended = &mut control => ended.context("stopping the control plane"),
            ended = database.ended() => Err(anyhow::anyhow!("Postgres ended: {}", ended?)),
            // Whoever asks twice does not want to wait.
            () = signals.next() => Ok(()),
        }
    } else {
        Ok(())
    };
    result.and(stopped).and(database.stop().await)
}

/// Ctrl-C and what service managers send.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ours, or somebody else's.
enum Database {
    Private(Box<Postgres>),
    Given(String),
}

impl Database {
    async fn start(home: &Home, url: Option<String>, pg_bin: Option<PathBuf>) -> anyhow::Result<Self> {
        match url {
            Some(url) => Ok(Self::Given(url)),
            None => Ok(Self::Private(Box::new(Postgres::start(home.dir(), pg_bin.as_deref()).await?))),
        }
    }

    fn url(&self) -> &str {
        match self {
            Self::Private(postgres) => postgres.url(),
            Self::Given(url) => url,
        }
    }

    /// Returns if ours ends; somebody else's is the control plane's to watch.
    async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Private(postgres) => postgres.ended().await,
            Self::Given(_) => std::future::pending().await,
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Private(postgres) => postgres.stop().await,
            Self::Given(_) => Ok(()),
        }
    }
}
