//! `mcpgw config wait`: returns when every connected node runs at least a version.

use std::time::Duration;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::WaitConfigVersionRequest;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;

use crate::args;
use crate::context::Context;

/// How much longer than the server's own deadline the answer may take.
const SLACK: Duration = Duration::from_secs(10);

/// Flags of `config wait`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw config wait 12\n  mcpgw config wait 12 --timeout 2m -o json")]
pub struct Args {
    /// The version, as changes print it
    version: u64,
    /// How long to wait, at most 5m
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "30s")]
    timeout: Duration,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = WaitConfigVersionRequest { version: args.version, timeout: Some(args::proto_duration(args.timeout)) };
    let deadline = args.timeout + SLACK;
    let arrived =
        cx.call_within(deadline, ConfigVersionServiceClient::new, request, async |c, r| c.wait_config_version(r).await).await?;
    eprintln!("every connected node runs version {} or later: {}", args.version, arrived.nodes.len());
    cx.out.many(&arrived.nodes)
}
