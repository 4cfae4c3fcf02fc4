//! `mcpgw config rollout get`.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetRolloutRequest;
use mcp_gateway::proto::admin::v1::rollout_service_client::RolloutServiceClient;

use super::follow;
use crate::context::Context;
use crate::names;

/// Flags of `config rollout get`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw config rollout get 0198c0de-0000-7000-8000-000000000001\n  mcpgw config rollout get 0198c0de-0000-7000-8000-000000000001 --watch"
)]
pub struct Args {
    /// The rollout
    #[arg(value_name = "ROLLOUT")]
    id: String,
    /// Tell what happens until it has ended or halted
    #[arg(long)]
    watch: bool,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetRolloutRequest { name: names::child(cx, "rollouts", &args.id)? };
    let found = cx.call(RolloutServiceClient::new, request, async |c, r| c.get_rollout(r).await).await?;
    if args.watch { follow::to_the_end(cx, found).await } else { cx.out.one(&found) }
}
