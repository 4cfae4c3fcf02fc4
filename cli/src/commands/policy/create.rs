//! `mcpgw policy create`: a new rule, from flags, a file, or both (flags win).

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;
use mcp_gateway::proto::admin::v1::{CreatePolicyRequest, Policy};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::document;

const EXAMPLES: &str = "\
Examples:
  mcpgw policy create engineers --effect allow --role engineer --server github --tool 'search_*' --tool get_issue
  mcpgw policy create no-deletes --effect deny --role '*' --server '*' --tool 'delete_*' --mode shadow
  mcpgw policy create engineers -f engineers.yaml

A file:
  effect: allow
  subjects: { roles: [engineer], groups: [platform] }
  servers: [github]
  match: { tools: ['search_*', get_issue] }";

/// Flags of `policy create`.
#[derive(Debug, Flags)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Its name: 1 to 63 characters of a-z, 0-9 and hyphen, starting with a letter
    #[arg(value_name = "NAME")]
    id: String,
    /// Read the policy from YAML or JSON, - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut policy = match &args.file {
        Some(path) => document::read::<Policy>(path)?.resource,
        None => Policy::default(),
    };
    args.fields.apply(cx, &mut policy, &mut Mask::default()).await?;
    let request = CreatePolicyRequest {
        parent: cx.org()?,
        policy_id: args.id,
        policy: Some(policy),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(PolicyServiceClient::new, request, async |c, r| c.create_policy(r).await).await?;
    args.change.say(&format!("created {}", created.name));
    cx.out.one(&created)
}
