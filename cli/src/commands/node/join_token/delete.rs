//! `mcpgw node join-token delete`: removes a join token.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteJoinTokenRequest;
use mcp_gateway::proto::admin::v1::join_token_service_client::JoinTokenServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `node join-token delete`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw node join-token delete k3m5\n  mcpgw node join-token delete k3m5 --validate-only")]
pub struct Args {
    /// The join token
    #[arg(value_name = "TOKEN")]
    id: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::top("joinTokens", &args.id);
    let request = DeleteJoinTokenRequest {
        name: name.clone(),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx.call(JoinTokenServiceClient::new, request, async |c, r| c.delete_join_token(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
