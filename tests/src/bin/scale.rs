//! `mcpgw-scale`: what configuration distribution costs at a given size, on this machine.

use std::io::Write as _;

use clap::Parser;
use mcpgw_tests::scale::{self, Options};

/// Starts a private Postgres and a control plane, generates an installation, attaches a fleet of simulated nodes over mutual TLS, and
/// prints what distribution costs: first load, attach, changes of one organisation, reconnects, a restart of the control plane.
///
/// Examples:
///   mcpgw-scale                                     as documented in docs/PERFORMANCE.md
///   mcpgw-scale --streams 50 --organizations 20 --servers 200 --policies 2000 --changes 5
///   mcpgw-scale --json > run.json
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let report = scale::run(arguments.options).await?;
    let text = if arguments.json { format!("{:#}\n", report.json()) } else { report.table() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
