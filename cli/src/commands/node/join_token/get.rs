//! `mcpgw node join-token get`: one join token.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetJoinTokenRequest;
use mcp_gateway::proto::admin::v1::join_token_service_client::JoinTokenServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `node join-token get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw node join-token get k3m5\n  mcpgw node join-token get k3m5 -o yaml")]
pub struct Args {
    /// The join token
    #[arg(value_name = "TOKEN")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetJoinTokenRequest { name: names::top("joinTokens", &args.id) };
    let join_token = cx.call(JoinTokenServiceClient::new, request, async |c, r| c.get_join_token(r).await).await?;
    cx.out.one(&join_token)
}
