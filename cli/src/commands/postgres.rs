//! `mcpgw postgres`: the private Postgres of standalone alone, for looking into it or backing it up.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args as Flags;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::config;
use crate::output::Output;
use crate::standalone::home::Home;
use crate::standalone::postgres::Postgres;

/// Flags of `postgres`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw postgres\n  mcpgw postgres --data-dir /var/lib/mcpgw -o json | jq -r .url")]
pub struct Args {
    /// Where standalone keeps its data [default: the XDG state directory; for root /var/lib/mcpgw]
    #[arg(long, env = "MCPGW_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where PostgreSQL's initdb and postgres are [default: found in PATH and /usr/lib/postgresql]
    #[arg(long, env = "MCPGW_PG_BIN", value_name = "DIR")]
    pg_bin: Option<PathBuf>,
}

/// Runs until it is told to stop.
pub async fn run(out: Output, args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let home = Home::open(&args.data_dir.map_or_else(config::state_dir, Ok)?)?;
    let mut postgres = Postgres::start(home.dir(), args.pg_bin.as_deref()).await?;
    out.value(&json!({ "url": postgres.url() }), || postgres.url().to_owned())?;
    eprintln!("Postgres runs until Ctrl-C");
    tokio::select! {
        ended = postgres.ended() => bail!("Postgres ended: {}", ended?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    postgres.stop().await
}
