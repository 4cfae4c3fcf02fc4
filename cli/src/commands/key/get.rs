//! `mcpgw key get`: one API key.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetApiKeyRequest;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `key get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw key get q3t7m2k5a4b6c8d9\n  mcpgw key get q3t7m2k5a4b6c8d9 -o yaml")]
pub struct Args {
    /// The API key
    #[arg(value_name = "KEY")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetApiKeyRequest { name: names::child(cx, "apiKeys", &args.id)? };
    let api_key = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.get_api_key(r).await).await?;
    cx.out.one(&api_key)
}
