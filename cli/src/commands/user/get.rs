//! `mcpgw user get`: one user.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetUserRequest;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `user get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw user get ada@example.com\n  mcpgw user get ada@example.com -o yaml")]
pub struct Args {
    /// The user: email address, uid, or `me`
    #[arg(value_name = "USER")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetUserRequest { name: names::user(cx, &args.id).await? };
    let user = cx.call(UserServiceClient::new, request, async |c, r| c.get_user(r).await).await?;
    cx.out.one(&user)
}
