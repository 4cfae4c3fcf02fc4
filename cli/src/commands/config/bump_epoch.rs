//! `mcpgw config bump-epoch`: after a restore, every version that is made from here on is newer than what nodes run.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::BumpEpochRequest;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;

use crate::args::Change;
use crate::context::Context;

/// Flags of `config bump-epoch`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Nodes refuse versions older than theirs. After the database was restored from a backup they run newer ones than it has.\n\nExamples:\n  mcpgw config bump-epoch --reason \"restored the backup of Monday\""
)]
pub struct Args {
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = BumpEpochRequest { validate_only: args.change.validate_only, request_id: args.change.request_id() };
    let done = cx.call(ConfigVersionServiceClient::new, request, async |c, r| c.bump_epoch(r).await).await?;
    args.change.say(&format!("epoch {} begins with version {}", done.epoch, done.config_version));
    cx.out.one(&done)
}
