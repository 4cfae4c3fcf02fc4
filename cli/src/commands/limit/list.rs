//! `mcpgw limit list`: limits, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListRateLimitsRequest;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `limit list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw limit list\n  mcpgw limit list --org acme -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org()?;
    let fetch = async |page_size, page_token| {
        let request = ListRateLimitsRequest { parent: parent.clone(), page_size, page_token };
        let page = cx.call(RateLimitServiceClient::new, request, async |c, r| c.list_rate_limits(r).await).await?;
        Ok((page.rate_limits, page.next_page_token))
    };
    let limits = args.page.collect(fetch).await?;
    cx.out.many(&limits)
}
