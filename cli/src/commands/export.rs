//! `mcpgw export`: an organisation as a document that `apply`, a first start and a lone data plane take.

use anyhow::Context as _;
use clap::Args as Flags;
use mcp_gateway::document::written;
use mcp_gateway::proto::admin::v1::ExportOrganizationRequest;
use mcp_gateway::proto::admin::v1::document_service_client::DocumentServiceClient;

use crate::context::{Context, Service};
use crate::names;

/// What a client takes: as large as the server's own limit.
const LARGEST: usize = 32 << 20;

/// Flags of `export`.
#[derive(Debug, Flags)]
#[command(
    after_help = "There is no secret in it: credentials of servers are without their value, API keys are the SHA-256 of their random secret.\n\nExamples:\n  mcpgw export acme > acme.yaml\n  mcpgw export acme -o json"
)]
pub struct Args {
    /// The organisation [default: that of --org, or of the saved login]
    #[arg(value_name = "ORG")]
    id: Option<String>,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = args.id.map_or_else(|| cx.org(), |id| Ok(names::org(&id)))?;
    let client: fn(Service) -> DocumentServiceClient<Service> =
        |service| DocumentServiceClient::new(service).max_decoding_message_size(LARGEST);
    let request = ExportOrganizationRequest { name };
    let document = cx.call(client, request, async |c, r| c.export_organization(r).await).await?;
    let document = written(&document).context("the answer is no document that this version knows")?;
    let yaml = serde_saphyr::to_string(&document)?;
    cx.out.value(&document, || yaml)
}
