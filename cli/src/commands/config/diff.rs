//! `mcpgw config diff`: what two versions differ in.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DiffConfigVersionsRequest;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;

use crate::context::Context;

/// Flags of `config diff`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw config diff 12\n  mcpgw config diff 12 9 --org acme\n  mcpgw config diff 0 -o json")]
pub struct Args {
    /// A version; 0 is before the first
    from: u64,
    /// Another, older or newer [default: the newest]
    #[arg(default_value_t = 0, hide_default_value = true)]
    to: u64,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = DiffConfigVersionsRequest { from: args.from, to: args.to, organization: cx.org_or_all()? };
    let found = cx.call(ConfigVersionServiceClient::new, request, async |c, r| c.diff_config_versions(r).await).await?;
    eprintln!("from version {} to version {}", found.from, found.to);
    cx.out.diff(&found.diff.unwrap_or_default())
}
