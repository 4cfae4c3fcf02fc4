//! `mcpgw server get`: one server.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetServerRequest;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `server get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw server get github\n  mcpgw server get github -o yaml")]
pub struct Args {
    /// The server
    #[arg(value_name = "SERVER")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetServerRequest { name: names::child(cx, "servers", &args.id)? };
    let server = cx.call(ServerServiceClient::new, request, async |c, r| c.get_server(r).await).await?;
    cx.out.one(&server)
}
