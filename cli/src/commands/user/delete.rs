//! `mcpgw user delete`: removes a user.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteUserRequest;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `user delete`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw user delete ada@example.com\n  mcpgw user delete ada@example.com --validate-only")]
pub struct Args {
    /// The user: email address, uid, or `me`
    #[arg(value_name = "USER")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::user(cx, &args.id).await?;
    let request = DeleteUserRequest {
        name: name.clone(),
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx.call(UserServiceClient::new, request, async |c, r| c.delete_user(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
