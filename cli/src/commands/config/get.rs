//! `mcpgw config get`: one configuration version.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetConfigVersionRequest;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `config get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw config get 12\n  mcpgw config get 12 -o yaml")]
pub struct Args {
    /// The version
    #[arg(value_name = "VERSION")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetConfigVersionRequest { name: names::top("configVersions", &args.id) };
    let version = cx.call(ConfigVersionServiceClient::new, request, async |c, r| c.get_config_version(r).await).await?;
    cx.out.one(&version)
}
