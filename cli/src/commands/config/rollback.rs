//! `mcpgw config rollback`: an organisation as it was at a version, as a new version.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::RollbackConfigRequest;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;

use crate::args::Change;
use crate::context::{self, Context};

/// Flags of `config rollback`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Settings, servers, policies and limits come back, under their old ids. Users, memberships, keys and what was revoked\nstay as they are, and so do the credentials of existing servers.\n\nExamples:\n  mcpgw config rollback 12 --org acme --validate-only\n  mcpgw config rollback 12 --org acme --reason \"the new rules lock out support\""
)]
pub struct Args {
    /// The version to go back to
    version: u64,
    /// Do it even where that removes more than half of the servers, policies and limits
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let organization = cx.org()?;
    let request = RollbackConfigRequest {
        organization: organization.clone(),
        version: args.version,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let call = async |c: &mut ConfigVersionServiceClient<_>, r| c.rollback_config(context::forced(r, args.force)).await;
    let done = cx.call(ConfigVersionServiceClient::new, request, call).await?;
    for note in &done.notes {
        eprintln!("note: {note}");
    }
    match (args.change.validate_only, done.config_version) {
        (false, 0) => eprintln!("{organization} is as it was at version {}; nothing was changed", args.version),
        (_, made) => args.change.say(&format!("{organization} is back at version {}, as version {made}", args.version)),
    }
    match cx.out.format {
        crate::output::Format::Table => cx.out.diff(&done.diff.unwrap_or_default()),
        crate::output::Format::Json | crate::output::Format::Yaml => cx.out.one(&done),
    }
}
