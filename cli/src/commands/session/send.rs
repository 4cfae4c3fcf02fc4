//! `mcpgw session send`: one notification to its client.

use clap::Args as Flags;
use serde_json::json;
use uuid::Uuid;

use super::act;
use crate::commands::desk::{Desk, Order};
use crate::context::Context;

/// Flags of `session send`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw session send 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001 notice.json\n  mcpgw session send 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001 '{\"jsonrpc\": \"2.0\", \"method\": \"notifications/tools/list_changed\"}'"
)]
pub struct Args {
    /// The session, as `session list` shows it
    session: Uuid,
    /// A JSON-RPC notification whose method begins with notifications/, or a file that has one, - for stdin
    #[arg(value_name = "FILE|JSON")]
    message: String,
    #[command(flatten)]
    desk: Desk,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let order = Order::post("/ws/send", json!({ "session": args.session, "message": super::message(&args.message)? }));
    act(cx, &args.desk, args.session, order, "sent it to").await
}
