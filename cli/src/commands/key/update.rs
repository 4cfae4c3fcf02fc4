//! `mcpgw key update`: changes a key as it was read.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::admin::v1::{GetApiKeyRequest, UpdateApiKeyRequest};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::names;

/// Flags of `key update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw key update q3t7m2k5a4b6c8d9 --display-name 'build farm'\n  mcpgw key update q3t7m2k5a4b6c8d9 --policy-role engineer --policy-role oncall"
)]
pub struct Args {
    /// The key's id
    #[arg(value_name = "KEY")]
    id: String,
    #[command(flatten)]
    fields: Fields,
    /// Refuse if it has changed since this etag was read [default: read now]
    #[arg(long, allow_hyphen_values = true)]
    etag: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetApiKeyRequest { name: names::child(cx, "apiKeys", &args.id)? };
    let mut key = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.get_api_key(r).await).await?;
    let mut mask = Mask::default();
    args.fields.apply(&mut key, &mut mask);
    key.etag = args.etag.unwrap_or(key.etag);
    let request = UpdateApiKeyRequest {
        api_key: Some(key),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.update_api_key(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}
