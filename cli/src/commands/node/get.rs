//! `mcpgw node get`: one node.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetNodeRequest;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `node get`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw node get 0198c0de-0000-7000-8000-000000000001\n  mcpgw node get 0198c0de-0000-7000-8000-000000000001 -o yaml"
)]
pub struct Args {
    /// The node
    #[arg(value_name = "NODE")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetNodeRequest { name: names::top("nodes", &args.id) };
    let node = cx.call(NodeServiceClient::new, request, async |c, r| c.get_node(r).await).await?;
    cx.out.one(&node)
}
