//! `mcpgw session broadcast`: one notification to every client of the organisation that listens.

use clap::Args as Flags;
use serde::{Deserialize, Serialize};

use super::message;
use crate::commands::desk::{Answer, Desk, Order};
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  mcpgw session broadcast --ws maintenance.json
  mcpgw session broadcast --sse '{\"jsonrpc\": \"2.0\", \"method\": \"notifications/message\", \"params\": {\"level\": \"warning\", \"data\": \"Maintenance at noon\"}}'";

/// Flags of `session broadcast`.
#[derive(Debug, Flags)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    to: To,
    /// A JSON-RPC notification whose method begins with notifications/, or a file that has one, - for stdin
    #[arg(value_name = "FILE|JSON")]
    message: String,
    #[command(flatten)]
    desk: Desk,
}

#[derive(Debug, Serialize, Deserialize)]
struct Told {
    #[serde(default)]
    reached: u64,
}

#[derive(Debug, Flags)]
#[group(required = true, multiple = false)]
struct To {
    /// To WebSockets
    #[arg(long)]
    ws: bool,
    /// To event streams: HTTP+SSE and Streamable HTTP
    #[arg(long)]
    sse: bool,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let path = if args.to.ws { "/ws/broadcast" } else { "/sse/broadcast" };
    let answer: Answer<Told> = args.desk.order(cx, Order::post(path, message(&args.message)?)).await?;
    cx.out.value(&answer, || format!("{} clients were told", answer.told.reached))?;
    Ok(answer.complete()?)
}
