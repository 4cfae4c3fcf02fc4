//! `mcpgw server list`: servers, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListServersRequest;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `server list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw server list\n  mcpgw server list --org acme -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org()?;
    let fetch = async |page_size, page_token| {
        let request = ListServersRequest { parent: parent.clone(), page_size, page_token };
        let page = cx.call(ServerServiceClient::new, request, async |c, r| c.list_servers(r).await).await?;
        Ok((page.servers, page.next_page_token))
    };
    let servers = args.page.collect(fetch).await?;
    cx.out.many(&servers)
}
