//! `mcpgw node list`: nodes, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListNodesRequest;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `node list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw node list\n  mcpgw node list --limit 0 -o json")]
pub struct Args {
    /// Only nodes of this pool
    #[arg(long, default_value = "")]
    pool: String,
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let fetch = async |page_size, page_token| {
        let request = ListNodesRequest { page_size, page_token, pool: args.pool.clone() };
        let page = cx.call(NodeServiceClient::new, request, async |c, r| c.list_nodes(r).await).await?;
        Ok((page.nodes, page.next_page_token))
    };
    let nodes = args.page.collect(fetch).await?;
    cx.out.many(&nodes)
}
