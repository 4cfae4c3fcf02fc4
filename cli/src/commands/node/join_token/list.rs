//! `mcpgw node join-token list`: join tokens, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListJoinTokensRequest;
use mcp_gateway::proto::admin::v1::join_token_service_client::JoinTokenServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `node join-token list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw node join-token list\n  mcpgw node join-token list --limit 0 -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let fetch = async |page_size, page_token| {
        let request = ListJoinTokensRequest { page_size, page_token };
        let page = cx.call(JoinTokenServiceClient::new, request, async |c, r| c.list_join_tokens(r).await).await?;
        Ok((page.join_tokens, page.next_page_token))
    };
    let join_tokens = args.page.collect(fetch).await?;
    cx.out.many(&join_tokens)
}
