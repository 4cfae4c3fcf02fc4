//! `mcpgw membership get`: one membership.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetMembershipRequest;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;

use crate::context::Context;

/// Flags of `membership get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw membership get ada@example.com\n  mcpgw membership get ada@example.com -o yaml")]
pub struct Args {
    /// The member: email address, uid, or `me`
    #[arg(value_name = "USER")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetMembershipRequest { name: super::name(cx, &args.id).await? };
    let membership = cx.call(MembershipServiceClient::new, request, async |c, r| c.get_membership(r).await).await?;
    cx.out.one(&membership)
}
