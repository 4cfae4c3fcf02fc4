//! `mcpgw config versions`: who changed what, in commit order.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListConfigVersionsRequest;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `config versions`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw config versions --limit 10\n  mcpgw config versions --org acme -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let organization = cx.org_or_all()?;
    let fetch = async |page_size, page_token| {
        let request = ListConfigVersionsRequest { page_size, page_token, organization: organization.clone() };
        let page = cx.call(ConfigVersionServiceClient::new, request, async |c, r| c.list_config_versions(r).await).await?;
        Ok((page.config_versions, page.next_page_token))
    };
    let versions = args.page.collect(fetch).await?;
    cx.out.many(&versions)
}
