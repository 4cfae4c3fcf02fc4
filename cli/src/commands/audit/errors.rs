//! `mcpgw audit errors`: errors that have in common what does not change from call to call.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListErrorGroupsRequest;
use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use prost_types::Timestamp;

use crate::args::{self, Page};
use crate::context::Context;

/// Flags of `audit errors`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Messages are not kept, only what they look like; `mcpgw why` tells of the sample.\n\nExamples:\n  mcpgw audit errors --since 1h\n  mcpgw audit errors --server github --outcome upstream_failed -o json"
)]
pub struct Args {
    /// Only this server's slug, with * for any text
    #[arg(long, default_value = "", value_name = "PATTERN")]
    server: String,
    /// Only this tool, prompt or resource, with * for any text
    #[arg(long, alias = "tool", default_value = "", value_name = "PATTERN")]
    target: String,
    /// Only this outcome
    #[arg(long, default_value = "", value_parser = ["", "denied", "error", "upstream_failed", "gateway_failed"])]
    outcome: String,
    /// Only what was seen since: an RFC 3339 moment, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    since: Option<Timestamp>,
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org_or_all()?;
    let fetch = async |page_size, page_token| {
        let request = ListErrorGroupsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            server: args.server.clone(),
            target: args.target.clone(),
            outcome: args.outcome.clone(),
            since: args.since,
        };
        let page = cx.call(LogServiceClient::new, request, async |c, r| c.list_error_groups(r).await).await?;
        Ok((page.error_groups, page.next_page_token))
    };
    let groups = args.page.collect(fetch).await?;
    cx.out.many(&groups)
}
