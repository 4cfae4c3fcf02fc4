//! `mcpgw config rollout list`.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListRolloutsRequest;
use mcp_gateway::proto::admin::v1::rollout_service_client::RolloutServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `config rollout list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw config rollout list --org acme\n  mcpgw config rollout list --limit 5 -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org()?;
    let fetch = async |page_size, page_token| {
        let request = ListRolloutsRequest { parent: parent.clone(), page_size, page_token };
        let page = cx.call(RolloutServiceClient::new, request, async |c, r| c.list_rollouts(r).await).await?;
        Ok((page.rollouts, page.next_page_token))
    };
    let rollouts = args.page.collect(fetch).await?;
    cx.out.many(&rollouts)
}
