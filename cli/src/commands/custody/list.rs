//! `mcpgw custody list`: keys, page by page.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListCustodyKeysRequest;
use mcp_gateway::proto::admin::v1::custody_service_client::CustodyServiceClient;

use crate::args::Page;
use crate::context::Context;

/// Flags of `custody list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw custody list\n  mcpgw custody list --purpose jwt -o json")]
pub struct Args {
    /// Only keys of this purpose: jwt, manifest, node-ca, session, credential or pool/POOL
    #[arg(long, default_value = "")]
    purpose: String,
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let fetch = async |page_size, page_token| {
        let request = ListCustodyKeysRequest { page_size, page_token, purpose: args.purpose.clone() };
        let page = cx.call(CustodyServiceClient::new, request, async |c, r| c.list_custody_keys(r).await).await?;
        Ok((page.custody_keys, page.next_page_token))
    };
    let keys = args.page.collect(fetch).await?;
    cx.out.many(&keys)
}
