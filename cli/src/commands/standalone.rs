//! `mcpgw standalone`: both planes in one process.

use clap::Args as Flags;

use crate::output::Output;
use crate::standalone;

/// Flags of `standalone`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw standalone\n  mcpgw standalone --demo --demo-server http://127.0.0.1:8090/mcp\n  DATABASE_URL=postgres://gateway@db/gateway mcpgw standalone --config configs/production.yaml"
)]
pub struct Args {
    #[command(flatten)]
    options: standalone::Options,
}

pub async fn run(out: Output, args: Args) -> anyhow::Result<()> {
    standalone::run(out, args.options).await
}
