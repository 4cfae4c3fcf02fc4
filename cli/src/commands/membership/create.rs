//! `mcpgw membership create`: makes a user a member.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;
use mcp_gateway::proto::admin::v1::{CreateMembershipRequest, Membership};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::names;

/// Flags of `membership create`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw membership create ada@example.com --role member --policy-role engineer\n  mcpgw membership create ci@example.com --role service-account --org acme"
)]
pub struct Args {
    /// The user: email address or uid
    user: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut membership = Membership { user: names::user(cx, &args.user).await?, ..Membership::default() };
    args.fields.apply(&mut membership, &mut Mask::default());
    let request = CreateMembershipRequest {
        parent: cx.org()?,
        membership: Some(membership),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(MembershipServiceClient::new, request, async |c, r| c.create_membership(r).await).await?;
    args.change.say(&format!("created {}", created.name));
    cx.out.one(&created)
}
