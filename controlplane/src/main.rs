//! `mcpgw-controlplane`: flags, globals, signals. Everything else is in the library.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use figment::value::{Dict, Value};
use mcpgw_controlplane::{
    app::{App, Opened},
    config::Config,
    store::{Store, migrate::Migration},
};
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The control plane of MCP Gateway.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the admin API and the nodes (the default).
    Serve(Flags),
    /// Bring the database up to date, or say how far behind it is.
    Migrate {
        #[command(subcommand)]
        what: Option<Migrate>,
        #[command(flatten)]
        flags: Flags,
    },
}

#[derive(Subcommand, Clone, Copy)]
enum Migrate {
    /// List the migrations and whether the database has them.
    Status,
}

/// Every setting can also be given in the file or as MCPGW_<SETTING>.
#[derive(Args, Clone)]
struct Flags {
    /// A YAML file of settings.
    #[arg(long, env = "MCPGW_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Refuse to start when the database is behind, instead of migrating it.
    #[arg(long)]
    no_migrate: bool,
    /// Any setting, as `name=value`; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", global = true)]
    set: Vec<String>,
}

impl Flags {
    fn load(&self) -> anyhow::Result<Config> {
        let mut given = Dict::new();
        for pair in &self.set {
            let (name, value) = pair.split_once('=').with_context(|| format!("--set {pair}: expected name=value"))?;
            given.insert(name.to_owned(), mcpgw_controlplane::config::value(name, value));
        }
        if self.no_migrate {
            given.insert("migrate".into(), Value::from(false));
        }
        Ok(Config::load(self.config.as_deref(), given)?)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(&cli.flags),
        Some(Command::Serve(flags)) => serve(&flags),
        Some(Command::Migrate { what, flags }) => migrate(what, &flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcpgw-controlplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(flags: &Flags) -> anyhow::Result<()> {
    let config = flags.load()?;
    globals(&config)?;
    runtime()?.block_on(async move {
        let app = App::build(config).await?;
        let opened = app.opened();
        let stop = CancellationToken::new();
        let (run, shown, signals) = (app.run(stop.clone()), show_owner(opened), signals());
        tokio::pin!(run, shown, signals);
        let mut owner_shown = false;
        loop {
            tokio::select! {
                ended = &mut run => return Ok(ended?),
                () = &mut shown, if !owner_shown => owner_shown = true,
                signal = &mut signals => {
                    signal?;
                    stop.cancel();
                    return Ok(run.await?);
                }
            }
        }
    })
}

/// Prints the credential that a first start made up. Once: it is stored only as a hash.
#[allow(clippy::print_stdout)] // the one place where an operator of a fleet can see it
async fn show_owner(opened: Opened) {
    if let Ok(Some(owner)) = opened.wait().await
        && owner.generated
    {
        let password = owner.password.expose_secret();
        println!("owner of organizations/{}: {} with password {password} (shown once)", owner.organization, owner.email);
    }
}

#[allow(clippy::print_stdout)] // data on stdout
fn list(migrations: &[Migration]) {
    for m in migrations {
        println!("{:>5}  {:8}  {}", m.version, if m.applied { "applied" } else { "missing" }, m.description);
    }
}

/// Returns on SIGINT or SIGTERM.
async fn signals() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// What only a binary may install.
fn globals(config: &Config) -> anyhow::Result<()> {
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "a crypto provider was installed before main");
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("log: {}", config.log))?;
    let colours = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    if config.log_json {
        subscriber.json().init()
    } else {
        subscriber.init()
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn migrate(what: Option<Migrate>, flags: &Flags) -> anyhow::Result<()> {
    let config = flags.load()?;
    globals(&config)?;
    runtime()?.block_on(async move {
        let store = Store::new(&config)?;
        match what {
            None => Ok(store.migrate().await?),
            Some(Migrate::Status) => {
                let migrations = store.migrations().await?;
                list(&migrations);
                Ok(())
            }
        }
    })
}
