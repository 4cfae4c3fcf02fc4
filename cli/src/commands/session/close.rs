//! `mcpgw session close`: ends it; its client is told by its transport.

use clap::Args as Flags;
use http::Method;
use serde_json::json;
use uuid::Uuid;

use super::act;
use crate::commands::desk::{Desk, Order};
use crate::context::Context;

/// Flags of `session close`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw session close 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001\n  mcpgw session close 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001 --org acme -o json"
)]
pub struct Args {
    /// The session, as `session list` shows it
    session: Uuid,
    #[command(flatten)]
    desk: Desk,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let order = Order::new(Method::DELETE, "/ws/close").with_body(json!({ "session": args.session }));
    act(cx, &args.desk, args.session, order, "ended").await
}
