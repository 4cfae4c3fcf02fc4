//! `mcpgw membership delete`: removes a membership.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteMembershipRequest;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;

use crate::args::Change;
use crate::context::Context;

/// Flags of `membership delete`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw membership delete ada@example.com\n  mcpgw membership delete ada@example.com --validate-only"
)]
pub struct Args {
    /// The member: email address, uid, or `me`
    #[arg(value_name = "USER")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = super::name(cx, &args.id).await?;
    let request = DeleteMembershipRequest {
        name: name.clone(),
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx.call(MembershipServiceClient::new, request, async |c, r| c.delete_membership(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
