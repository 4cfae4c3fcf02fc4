//! `mcpgw limit get`: one limit.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetRateLimitRequest;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `limit get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw limit get searches\n  mcpgw limit get searches -o yaml")]
pub struct Args {
    /// The limit
    #[arg(value_name = "LIMIT")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetRateLimitRequest { name: names::child(cx, "rateLimits", &args.id)? };
    let limit = cx.call(RateLimitServiceClient::new, request, async |c, r| c.get_rate_limit(r).await).await?;
    cx.out.one(&limit)
}
