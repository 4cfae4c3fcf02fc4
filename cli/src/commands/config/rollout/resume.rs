//! `mcpgw config rollout resume`: the step of a halted rollout, again.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ResumeRolloutRequest;
use mcp_gateway::proto::admin::v1::rollout_service_client::RolloutServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `config rollout resume`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw config rollout resume 0198c0de-0000-7000-8000-000000000001\n  mcpgw config rollout resume 0198c0de-0000-7000-8000-000000000001 --org acme --validate-only"
)]
pub struct Args {
    /// The rollout
    #[arg(value_name = "ROLLOUT")]
    id: String,
    /// Refuse if it has changed since this etag was read [default: no check]
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = ResumeRolloutRequest {
        name: names::child(cx, "rollouts", &args.id)?,
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let done = cx.call(RolloutServiceClient::new, request, async |c, r| c.resume_rollout(r).await).await?;
    args.change.say(&format!("resumed {}", done.name));
    cx.out.one(&done)
}
