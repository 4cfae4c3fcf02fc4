//! `mcpgw server delete`: removes a server.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteServerRequest;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `server delete`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw server delete github\n  mcpgw server delete github --validate-only")]
pub struct Args {
    /// The server
    #[arg(value_name = "SERVER")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::child(cx, "servers", &args.id)?;
    let request = DeleteServerRequest {
        name: name.clone(),
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx.call(ServerServiceClient::new, request, async |c, r| c.delete_server(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
