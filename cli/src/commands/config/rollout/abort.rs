//! `mcpgw config rollout abort`: a rollout that is not to go on.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::AbortRolloutRequest;
use mcp_gateway::proto::admin::v1::rollout_service_client::RolloutServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `config rollout abort`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw config rollout abort 0198c0de-0000-7000-8000-000000000001\n  mcpgw config rollout abort 0198c0de-0000-7000-8000-000000000001 --org acme --validate-only"
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
    let request = AbortRolloutRequest {
        name: names::child(cx, "rollouts", &args.id)?,
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let done = cx.call(RolloutServiceClient::new, request, async |c, r| c.abort_rollout(r).await).await?;
    args.change.say(&format!("aborted {}", done.name));
    cx.out.one(&done)
}
