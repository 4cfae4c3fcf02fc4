//! `mcpgw node update`: changes a node as it was read.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;
use mcp_gateway::proto::admin::v1::{GetNodeRequest, UpdateNodeRequest};

use crate::args::{Change, Mask, label_change};
use crate::context::Context;
use crate::names;

/// Flags of `node update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw node update 0198c0de-0000-7000-8000-000000000001 --label ring=canary --label zone-\n  mcpgw node update 0198c0de-0000-7000-8000-000000000001 --display-name edge-7"
)]
pub struct Args {
    /// The node
    #[arg(value_name = "NODE")]
    id: String,
    /// KEY=VALUE sets a label, KEY- takes it away; repeatable, other labels stay
    #[arg(long, value_name = "LABEL", value_parser = label_change)]
    label: Vec<(String, Option<String>)>,
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// Refuse if it has changed since this etag was read [default: read now]
    #[arg(long, allow_hyphen_values = true)]
    etag: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetNodeRequest { name: names::top("nodes", &args.id) };
    let mut node = cx.call(NodeServiceClient::new, request, async |c, r| c.get_node(r).await).await?;
    let mut mask = Mask::default();
    mask.set("display_name", &mut node.display_name, args.display_name);
    for (key, value) in args.label {
        match value {
            Some(value) => node.labels.insert(key, value),
            None => node.labels.remove(&key),
        };
        mask.touch("labels");
    }
    node.etag = args.etag.unwrap_or(node.etag);
    let request = UpdateNodeRequest {
        node: Some(node),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(NodeServiceClient::new, request, async |c, r| c.update_node(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}
