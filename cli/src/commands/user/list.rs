//! `mcpgw user list`: users, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListUsersRequest;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `user list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw user list\n  mcpgw user list --limit 0 -o json")]
pub struct Args {
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let fetch = async |page_size, page_token| {
        let request = ListUsersRequest { page_size, page_token };
        let page = cx.call(UserServiceClient::new, request, async |c, r| c.list_users(r).await).await?;
        Ok((page.users, page.next_page_token))
    };
    let users = args.page.collect(fetch).await?;
    cx.out.many(&users)
}
