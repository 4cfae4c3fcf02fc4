//! `mcpgw policy delete`: removes a policy.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::DeletePolicyRequest;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of `policy delete`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw policy delete engineers\n  mcpgw policy delete engineers --validate-only")]
pub struct Args {
    /// The policy
    #[arg(value_name = "POLICY")]
    id: String,
    /// Refuse if it has changed since this etag was read
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let name = names::child(cx, "policies", &args.id)?;
    let request = DeletePolicyRequest {
        name: name.clone(),
        etag: args.etag,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let deleted = cx.call(PolicyServiceClient::new, request, async |c, r| c.delete_policy(r).await).await?;
    args.change.say(&format!("deleted {name}"));
    cx.out.one(&deleted)
}
