//! `mcpgw org delete`: removes an organisation.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeleteOrganizationRequest;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;

use crate::args::Change;
use crate::context::{self, Context};
use crate::names;

/// Flags of `org delete`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw org delete demo\n  mcpgw org delete demo --validate-only\n  mcpgw org delete demo --force --reason \"the trial has ended\""
)]
pub struct Args {
    /// The organisation
    #[arg(value_name = "ORG")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
    /// Delete it even with several policies in it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::org(&args.id);
    let request = DeleteOrganizationRequest {
        name: name.clone(),
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx
        .call(OrganizationServiceClient::new, request, async |c, r| c.delete_organization(context::forced(r, args.force)).await)
        .await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
