//! `mcpgw-bench`: what a request costs on this machine, beside nginx.

use std::alloc::System;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use mcpgw_tests::bench::{self, Options, counted, hold, load, mock};
use serde::de::DeserializeOwned;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// The system's, counted: how often something is allocated does not depend on by whom.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures requests through mcpgw-dataplane beside nginx and no proxy at all: a mock server and the load on processor 0, the proxy alone
/// on processor 1 with one worker, everything in interleaved rounds, every answer checked.
///
/// Examples:
///   mcpgw-bench                                     as documented in docs/PERFORMANCE.md
///   mcpgw-bench --quick --only nginx,on
///   mcpgw-bench --only ingest
///   mcpgw-bench --json > run.json
#[derive(Parser)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The processes of a run; the benchmark starts them itself.
#[derive(Subcommand)]
enum Part {
    /// The mock server
    #[command(hide = true)]
    Mock { listen: SocketAddr },
    /// One window of load
    #[command(hide = true)]
    Load { window: PathBuf },
    /// A data plane that counts what it allocates
    #[command(hide = true)]
    Node {
        #[arg(long)]
        config: PathBuf,
    },
    /// Streams that are held open
    #[command(hide = true)]
    Hold { holding: PathBuf },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        None => several()?.block_on(measure(arguments.options, arguments.json)),
        Some(Part::Mock { listen }) => one()?.block_on(async {
            let listener = tokio::net::TcpListener::bind(listen).await?;
            mock::serve(listener).await
        }),
        Some(Part::Load { window }) => {
            let outcome = one()?.block_on(load::run(told(&window)?))?;
            Ok(serde_json::to_writer(std::io::stdout(), &outcome)?)
        }
        Some(Part::Node { config }) => counted::serve(&config, || {
            let stats = ALLOCATOR.stats();
            stats.allocations + stats.reallocations
        }),
        Some(Part::Hold { holding }) => one()?.block_on(hold::serve(told(&holding)?)),
    }
}

/// What the run wants of one of its processes.
fn told<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

async fn measure(options: Options, json: bool) -> anyhow::Result<()> {
    let report = bench::run(options).await?;
    let text = if json { format!("{:#}\n", serde_json::to_value(&report)?) } else { report.table() };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn one() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn several() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
