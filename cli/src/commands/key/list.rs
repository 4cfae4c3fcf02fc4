//! `mcpgw key list`: API keys, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListApiKeysRequest;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `key list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw key list\n  mcpgw key list --org acme -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org()?;
    let fetch = async |page_size, page_token| {
        let request = ListApiKeysRequest { parent: parent.clone(), page_size, page_token };
        let page = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.list_api_keys(r).await).await?;
        Ok((page.api_keys, page.next_page_token))
    };
    let api_keys = args.page.collect(fetch).await?;
    cx.out.many(&api_keys)
}
