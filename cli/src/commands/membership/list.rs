//! `mcpgw membership list`: memberships, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListMembershipsRequest;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `membership list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw membership list\n  mcpgw membership list --org acme -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org()?;
    let fetch = async |page_size, page_token| {
        let request = ListMembershipsRequest { parent: parent.clone(), page_size, page_token };
        let page = cx.call(MembershipServiceClient::new, request, async |c, r| c.list_memberships(r).await).await?;
        Ok((page.memberships, page.next_page_token))
    };
    let memberships = args.page.collect(fetch).await?;
    cx.out.many(&memberships)
}
