//! `mcpgw key revoke`: makes a key void for good and says from which configuration version.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::RevokeApiKeyRequest;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `key revoke`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw key revoke q3t7m2k5a4b6c8d9\n  mcpgw config wait $(mcpgw key revoke q3t7m2k5a4b6c8d9 -o json | jq -r .configVersion)"
)]
pub struct Args {
    /// The key's id
    #[arg(value_name = "KEY")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = RevokeApiKeyRequest { name: names::child(cx, "apiKeys", &args.id)?, etag: args.etag };
    let key = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.revoke_api_key(r).await).await?;
    let version = key.config_version;
    eprintln!(
        "revoked {} in configuration version {version}; `mcpgw config wait {version}` returns when every node knows",
        key.name
    );
    cx.out.one(&key)
}
