//! `mcpgw limit delete`: removes a limit.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteRateLimitRequest;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `limit delete`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw limit delete searches\n  mcpgw limit delete searches --validate-only")]
pub struct Args {
    /// The limit
    #[arg(value_name = "LIMIT")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::child(cx, "rateLimits", &args.id)?;
    let request = DeleteRateLimitRequest {
        name: name.clone(),
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx.call(RateLimitServiceClient::new, request, async |c, r| c.delete_rate_limit(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
