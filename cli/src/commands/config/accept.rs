//! `mcpgw config accept`: lets through what vanished from the tables of a pool.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::AcceptConfigRequest;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;

use crate::args::Change;
use crate::context::Context;

/// Flags of `config accept`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Where most rows of a pool vanish without a recorded change, its nodes keep what they have. If the loss is meant:\n\nExamples:\n  mcpgw config accept --pool default --reason \"moved to the other installation\"\n  mcpgw config accept --pool default --reason \"what would it say?\" --validate-only"
)]
pub struct Args {
    /// The pool that is held
    #[arg(long)]
    pool: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = AcceptConfigRequest {
        pool: args.pool.clone(),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let done = cx.call(ConfigVersionServiceClient::new, request, async |c, r| c.accept_config(r).await).await?;
    args.change.say(&format!("pool {} gets what is in the tables, as version {}", args.pool, done.config_version));
    cx.out.one(&done)
}
