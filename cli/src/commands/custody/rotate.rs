//! `mcpgw custody rotate`: the next key of a purpose becomes the current one.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::RotateCustodyKeyRequest;
use mcp_gateway::proto::admin::v1::custody_service_client::CustodyServiceClient;

use crate::args::Change;
use crate::context::Context;

/// Flags of `custody rotate`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw custody rotate jwt\n  mcpgw custody rotate pool/default\n  mcpgw custody rotate node-ca --validate-only"
)]
pub struct Args {
    /// jwt, manifest, node-ca, session, credential or pool/POOL
    #[arg(value_name = "PURPOSE")]
    purpose: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = RotateCustodyKeyRequest {
        purpose: args.purpose.clone(),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let rotated = cx.call(CustodyServiceClient::new, request, async |c, r| c.rotate_custody_key(r).await).await?;
    args.change.say(&format!("rotated the keys of purpose {} in version {}", args.purpose, rotated.config_version));
    cx.out.many(&rotated.custody_keys)
}
