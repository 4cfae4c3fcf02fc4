//! `mcpgw policy list`: policies, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListPoliciesRequest;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `policy list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw policy list\n  mcpgw policy list --org acme -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org()?;
    let fetch = async |page_size, page_token| {
        let request = ListPoliciesRequest { parent: parent.clone(), page_size, page_token };
        let page = cx.call(PolicyServiceClient::new, request, async |c, r| c.list_policies(r).await).await?;
        Ok((page.policies, page.next_page_token))
    };
    let policies = args.page.collect(fetch).await?;
    cx.out.many(&policies)
}
