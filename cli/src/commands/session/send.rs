//! `mcpgw session send`: one notification to its client.

use clap::Args as Flags;
use http::Method;
use serde_json::json;
use uuid::Uuid;

use super::Reached;
use crate::commands::desk::Desk;
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
    let body = json!({ "session": args.session, "message": super::message(&args.message)? });
    args.desk.order::<Reached>(cx, Method::POST, "/ws/send", Some(&body)).await?;
    eprintln!("sent it to session {}", args.session);
    Ok(())
}
