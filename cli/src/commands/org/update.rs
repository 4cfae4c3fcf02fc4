//! `mcpgw org update`: changes an organisation as it was read.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;
use mcp_gateway::proto::admin::v1::{GetOrganizationRequest, UpdateOrganizationRequest};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::names;

/// Flags of `org update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw org update acme --display-name 'Acme'\n  mcpgw org update acme --allowed-origin https://app.acme.example\n  mcpgw org update acme --audit-sync disk\n  mcpgw org update acme --capture arguments,results --capture-redact ssn --capture-redact '$.customer.email' --capture-retention-days 3\n  mcpgw org update acme --capture none"
)]
pub struct Args {
    /// The organisation
    #[arg(value_name = "ORG")]
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
    let request = GetOrganizationRequest { name: names::org(&args.id) };
    let mut organization = cx.call(OrganizationServiceClient::new, request, async |c, r| c.get_organization(r).await).await?;
    let mut mask = Mask::default();
    args.fields.apply(&mut organization, &mut mask);
    organization.etag = args.etag.unwrap_or(organization.etag);
    let request = UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(OrganizationServiceClient::new, request, async |c, r| c.update_organization(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}
