//! `mcpgw node delete`: removes a node.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteNodeRequest;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `node delete`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw node delete 0198c0de-0000-7000-8000-000000000001\n  mcpgw node delete 0198c0de-0000-7000-8000-000000000001 --validate-only"
)]
pub struct Args {
    /// The node
    #[arg(value_name = "NODE")]
    id: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::top("nodes", &args.id);
    let request =
        DeleteNodeRequest { name: name.clone(), validate_only: args.change.validate_only, request_id: args.change.request_id() };
    let deleted = cx.call(NodeServiceClient::new, request, async |c, r| c.delete_node(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
