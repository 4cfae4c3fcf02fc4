//! `mcpgw org get`: one organisation.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetOrganizationRequest;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `org get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw org get demo\n  mcpgw org get demo -o yaml")]
pub struct Args {
    /// The organisation
    #[arg(value_name = "ORG")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetOrganizationRequest { name: names::org(&args.id) };
    let organization = cx.call(OrganizationServiceClient::new, request, async |c, r| c.get_organization(r).await).await?;
    cx.out.one(&organization)
}
