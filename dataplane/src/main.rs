//! The data-plane process: configuration, logging, two runtimes, signals. Everything else is the library's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use mcpgw_dataplane::app::App;
use mcpgw_dataplane::children::helper;
use mcpgw_dataplane::config::{self, Config, Log, LogFormat, Overrides};
use mcpgw_dataplane::files;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long runtimes may take to end once the data plane has.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(5);

/// The data plane of MCP Gateway: takes MCP requests, decides them, relays them.
#[derive(Debug, Parser)]
#[command(
    name = "mcpgw-dataplane",
    version,
    disable_help_subcommand = true,
    override_usage = "mcpgw-dataplane [OPTIONS]",
    after_help = "Every key of the file can also be set as MCPGW_<KEY>, levels separated by two underscores: MCPGW_CONTROL_PLANE__JOIN_TOKEN."
)]
struct Arguments {
    /// The YAML configuration file.
    #[arg(long, short, value_name = "FILE", env = "MCPGW_DATAPLANE_CONFIG")]
    config: Option<PathBuf>,
    /// Where MCP clients connect (plain HTTP), in place of `listen`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The URL by which clients reach this node, in place of `public_url`.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Where health, readiness and metrics are served, in place of `admin_listen`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<SocketAddr>,
    /// Where identity, configuration and audit spool lie, in place of `state_dir`.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Serve the organisation of a document (YAML, as `mcpgw export` writes it), without any control plane; watched, may be repeated.
    #[arg(long = "static", value_name = "FILE")]
    static_files: Vec<PathBuf>,
    /// Check the configuration, and the documents of --static, and exit.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Hidden>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// Keeps one child process; started by this program
    #[command(hide = true)]
    Supervise(Box<helper::Args>),
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::parse();
    match arguments.command.take() {
        // Before any thread is started: the helper has to stay alone.
        Some(Hidden::Supervise(args)) => helper::run(*args),
        None => run(arguments).map(|()| ExitCode::SUCCESS),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let flags = Overrides {
        listen: arguments.listen,
        public_url: arguments.public_url,
        admin_listen: arguments.admin_listen,
        state_dir: arguments.state_dir,
        static_files: arguments.static_files,
    };
    let config = config::load(arguments.config.as_deref(), flags)?;
    if arguments.check {
        files::check(&config.static_files)?;
        return Ok(());
    }
    log(&config.log)?;
    // Requests never share threads with configuration and shipping.
    let requests = Builder::new_multi_thread().thread_name("requests").enable_all().build()?;
    let background = Builder::new_multi_thread().thread_name("background").worker_threads(1).enable_all().build()?;
    let result = requests.block_on(serve(config, &background));
    requests.shutdown_timeout(RUNTIME_DEADLINE);
    background.shutdown_timeout(RUNTIME_DEADLINE);
    result
}

async fn serve(config: Config, background: &Runtime) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let app = App::build_on(config, background.handle().clone()).await?;
    let mut running = std::pin::pin!(app.run(stop.clone()));
    tokio::select! {
        result = running.as_mut() => return Ok(result?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    tokio::select! {
        result = running.as_mut() => Ok(result?),
        // Whoever asks twice does not want to wait.
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn log(settings: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.filter).with_context(|| format!("log.filter `{}`", settings.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
