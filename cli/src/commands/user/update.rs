//! `mcpgw user update`: changes a user as it was read.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;
use mcp_gateway::proto::admin::v1::{GetUserRequest, UpdateUserRequest};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::names;

/// Flags of `user update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw user update ada@example.com --display-name 'Ada L.'\n  mcpgw user update ada@example.com --disabled"
)]
pub struct Args {
    /// The user: email address, uid, or `me`
    #[arg(value_name = "USER")]
    id: String,
    /// A new email address
    #[arg(long)]
    email: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Refuse if it has changed since this etag was read [default: read now]
    #[arg(long, allow_hyphen_values = true)]
    etag: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetUserRequest { name: names::user(cx, &args.id).await? };
    let mut user = cx.call(UserServiceClient::new, request, async |c, r| c.get_user(r).await).await?;
    let mut mask = Mask::default();
    mask.set("email", &mut user.email, args.email);
    args.fields.apply(&mut user, &mut mask);
    user.etag = args.etag.unwrap_or(user.etag);
    let request = UpdateUserRequest {
        user: Some(user),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(UserServiceClient::new, request, async |c, r| c.update_user(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}
