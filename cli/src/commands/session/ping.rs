//! `mcpgw session ping`: whether its client still answers; a client that does not loses the session.

use clap::Args as Flags;
use serde_json::json;
use uuid::Uuid;

use super::act;
use crate::commands::desk::{Desk, Order};
use crate::context::Context;

/// Flags of `session ping`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw session ping 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001\n  mcpgw session ping 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001 -o json"
)]
pub struct Args {
    /// The session, as `session list` shows it
    session: Uuid,
    #[command(flatten)]
    desk: Desk,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let order = Order::post("/ws/ping", json!({ "session": args.session }));
    act(cx, &args.desk, args.session, order, "asked the client of").await
}
