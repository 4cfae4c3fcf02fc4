//! `mcpgw policy update`: changes a rule as it was read, by flags or by a file that names the fields.

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;
use mcp_gateway::proto::admin::v1::{GetPolicyRequest, Policy, UpdatePolicyRequest};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::{document, names};

/// Flags of `policy update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw policy update engineers --tool 'search_*' --tool get_issue\n  mcpgw policy update engineers --mode shadow\n  mcpgw policy get engineers -o yaml > p.yaml; $EDITOR p.yaml; mcpgw policy update engineers -f p.yaml"
)]
pub struct Args {
    /// The policy
    #[arg(value_name = "POLICY")]
    id: String,
    /// Read the fields to change from YAML or JSON, - for stdin; an etag in it is checked
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    fields: Fields,
    /// Refuse if it has changed since this etag was read [default: read now]
    #[arg(long, allow_hyphen_values = true)]
    etag: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetPolicyRequest { name: names::child(cx, "policies", &args.id)? };
    let read = cx.call(PolicyServiceClient::new, request, async |c, r| c.get_policy(r).await).await?;
    let mut mask = Mask::default();
    let mut policy = match &args.file {
        Some(path) => from_file(path, &read, &mut mask)?,
        None => read,
    };
    args.fields.apply(cx, &mut policy, &mut mask).await?;
    policy.etag = args.etag.unwrap_or(policy.etag);
    let request = UpdatePolicyRequest {
        policy: Some(policy),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(PolicyServiceClient::new, request, async |c, r| c.update_policy(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}

fn from_file(path: &std::path::Path, read: &Policy, mask: &mut Mask) -> anyhow::Result<Policy> {
    let document::Document { mut resource, fields } = document::read::<Policy>(path)?;
    fields.iter().for_each(|field| mask.touch(field));
    resource.name.clone_from(&read.name);
    if resource.etag.is_empty() {
        resource.etag.clone_from(&read.etag);
    }
    Ok(resource)
}
