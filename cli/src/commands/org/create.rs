//! `mcpgw org create`: a new organisation.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;
use mcp_gateway::proto::admin::v1::{CreateOrganizationRequest, Organization};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;

/// Flags of `org create`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw org create acme --display-name 'Acme Corp'\n  mcpgw org create acme --audit-full allow --validate-only"
)]
pub struct Args {
    /// Its slug: 1 to 63 characters of a-z, 0-9 and hyphen, starting with a letter
    #[arg(value_name = "SLUG")]
    id: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut organization = Organization::default();
    args.fields.apply(&mut organization, &mut Mask::default());
    let request = CreateOrganizationRequest {
        organization_id: args.id,
        organization: Some(organization),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(OrganizationServiceClient::new, request, async |c, r| c.create_organization(r).await).await?;
    args.change.say(&format!("created {}", created.name));
    cx.out.one(&created)
}
