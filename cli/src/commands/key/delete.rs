//! `mcpgw key delete`: removes an API key.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteApiKeyRequest;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `key delete`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw key delete q3t7m2k5a4b6c8d9\n  mcpgw key delete q3t7m2k5a4b6c8d9 --validate-only")]
pub struct Args {
    /// The API key
    #[arg(value_name = "KEY")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::child(cx, "apiKeys", &args.id)?;
    let request = DeleteApiKeyRequest {
        name: name.clone(),
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.delete_api_key(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
