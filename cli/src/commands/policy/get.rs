//! `mcpgw policy get`: one policy.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::GetPolicyRequest;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;

use crate::context::Context;
use crate::names;

/// Flags of `policy get`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw policy get engineers\n  mcpgw policy get engineers -o yaml")]
pub struct Args {
    /// The policy
    #[arg(value_name = "POLICY")]
    id: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetPolicyRequest { name: names::child(cx, "policies", &args.id)? };
    let policy = cx.call(PolicyServiceClient::new, request, async |c, r| c.get_policy(r).await).await?;
    cx.out.one(&policy)
}
