//! `mcpgw audit checkpoints`: where the logs stood, minute by minute, as the control plane signed it.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::evidence_service_client::EvidenceServiceClient;
use mcp_gateway::proto::admin::v1::{Checkpoint, ListCheckpointsRequest};

use crate::args::Page;
use crate::context::Context;

/// Flags of `audit checkpoints`.
#[derive(Debug, Flags)]
#[command(
    after_help = "What is kept elsewhere can later be compared with what the database says then.\n\nExamples:\n  mcpgw audit checkpoints --limit 5\n  mcpgw audit checkpoints --limit 0 -o json | jq -c '.[] | {number: (.number | tonumber), hash}' > checkpoints.jsonl\n  mcpgw audit verify --checkpoint checkpoints.jsonl"
)]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let fetch = async |page_size, page_token| page(cx, page_size, page_token).await;
    let found = args.page.collect(fetch).await?;
    cx.out.many(&found)
}

async fn page(cx: &Context, page_size: i32, page_token: String) -> anyhow::Result<(Vec<Checkpoint>, String)> {
    let request = ListCheckpointsRequest { page_size, page_token };
    let page = cx.call(EvidenceServiceClient::new, request, async |c, r| c.list_checkpoints(r).await).await?;
    Ok((page.checkpoints, page.next_page_token))
}

/// Every checkpoint from a number on.
pub async fn since(cx: &Context, oldest: i64) -> anyhow::Result<Vec<Checkpoint>> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(cx, 500, token).await?;
        let done = next.is_empty() || items.last().is_some_and(|last| last.number <= oldest);
        found.extend(items);
        if done {
            return Ok(found);
        }
        token = next;
    }
}
