//! `mcpgw key create`: a new API key; its secret is shown once.

use std::time::{Duration, SystemTime};

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::admin::v1::{ApiKey, CreateApiKeyRequest};

use super::Fields;
use crate::args::{self, Change, Mask};
use crate::context::Context;
use crate::names;

/// Flags of `key create`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw key create --display-name ci --policy-role engineer --expires-in 90d\n  mcpgw key create --user ada@example.com -o json | jq -r .secret"
)]
pub struct Args {
    #[command(flatten)]
    fields: Fields,
    /// Whose principal the key is: email address, uid, or `me`; without it the key is its own principal
    #[arg(long)]
    user: Option<String>,
    /// When the key stops working, from now on; without it never
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut key = ApiKey { expire_time: args.expires_in.map(|it| (SystemTime::now() + it).into()), ..ApiKey::default() };
    if let Some(user) = &args.user {
        key.user = names::user(cx, user).await?;
    }
    args.fields.apply(&mut key, &mut Mask::default());
    let request = CreateApiKeyRequest {
        parent: cx.org()?,
        api_key: Some(key),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.create_api_key(r).await).await?;
    let name = created.api_key.as_ref().map(|it| it.name.as_str()).unwrap_or_default();
    args.change.say(&format!("created {name}; its secret is shown this once"));
    cx.out.one(&created)
}
