//! `mcpgw membership update`: changes a membership as it was read.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;
use mcp_gateway::proto::admin::v1::{GetMembershipRequest, UpdateMembershipRequest};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;

/// Flags of `membership update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw membership update ada@example.com --role admin\n  mcpgw membership update ada@example.com --group platform --group oncall"
)]
pub struct Args {
    /// The member: email address, uid, or `me`
    #[arg(value_name = "USER")]
    id: String,
    #[command(flatten)]
    fields: Fields,
    /// Refuse if it has changed since this etag was read [default: read now]
    #[arg(long, allow_hyphen_values = true)]
    etag: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetMembershipRequest { name: super::name(cx, &args.id).await? };
    let mut membership = cx.call(MembershipServiceClient::new, request, async |c, r| c.get_membership(r).await).await?;
    let mut mask = Mask::default();
    args.fields.apply(&mut membership, &mut mask);
    membership.etag = args.etag.unwrap_or(membership.etag);
    let request = UpdateMembershipRequest {
        membership: Some(membership),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(MembershipServiceClient::new, request, async |c, r| c.update_membership(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}
