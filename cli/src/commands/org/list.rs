//! `mcpgw org list`: organizations, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListOrganizationsRequest;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `org list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw org list\n  mcpgw org list --limit 0 -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let fetch = async |page_size, page_token| {
        let request = ListOrganizationsRequest { page_size, page_token };
        let page = cx.call(OrganizationServiceClient::new, request, async |c, r| c.list_organizations(r).await).await?;
        Ok((page.organizations, page.next_page_token))
    };
    let organizations = args.page.collect(fetch).await?;
    cx.out.many(&organizations)
}
