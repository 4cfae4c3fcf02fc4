//! `mcpgw node list`: which node runs what, how late and how stale it is, and why; page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListNodesRequest;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;

use crate::args::{Page, label};
use crate::context::Context;

/// Flags of `node list`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw node list\n  mcpgw node list --label ring=canary\n  mcpgw node list --limit 0 -o json"
)]
pub struct Args {
    /// Only nodes of this pool
    #[arg(long, default_value = "")]
    pool: String,
    /// Only nodes with this label; repeatable, all of them must be there
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let fetch = async |page_size, page_token| {
        let request =
            ListNodesRequest { page_size, page_token, pool: args.pool.clone(), labels: args.label.iter().cloned().collect() };
        let page = cx.call(NodeServiceClient::new, request, async |c, r| c.list_nodes(r).await).await?;
        Ok((page.nodes, page.next_page_token))
    };
    let nodes = args.page.collect(fetch).await?;
    cx.out.many(&nodes)
}
