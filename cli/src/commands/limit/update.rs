//! `mcpgw limit update`: changes a limit as it was read, by flags or by a file that names the fields.

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;
use mcp_gateway::proto::admin::v1::{GetRateLimitRequest, RateLimit, UpdateRateLimitRequest};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::{document, names};

/// Flags of `limit update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw limit update searches --window 200/1m --window 2000/1h\n  mcpgw limit update searches --max-concurrent 0 --per organization\n  mcpgw limit get searches -o yaml > l.yaml; $EDITOR l.yaml; mcpgw limit update searches -f l.yaml"
)]
pub struct Args {
    /// The limit
    #[arg(value_name = "LIMIT")]
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
    let request = GetRateLimitRequest { name: names::child(cx, "rateLimits", &args.id)? };
    let read = cx.call(RateLimitServiceClient::new, request, async |c, r| c.get_rate_limit(r).await).await?;
    let mut mask = Mask::default();
    let mut limit = match &args.file {
        Some(path) => from_file(path, &read, &mut mask)?,
        None => read,
    };
    args.fields.apply(cx, &mut limit, &mut mask).await?;
    limit.etag = args.etag.unwrap_or(limit.etag);
    let request = UpdateRateLimitRequest {
        rate_limit: Some(limit),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(RateLimitServiceClient::new, request, async |c, r| c.update_rate_limit(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}

fn from_file(path: &std::path::Path, read: &RateLimit, mask: &mut Mask) -> anyhow::Result<RateLimit> {
    let document::Document { mut resource, fields } = document::read::<RateLimit>(path)?;
    fields.iter().for_each(|field| mask.touch(field));
    resource.name.clone_from(&read.name);
    if resource.etag.is_empty() {
        resource.etag.clone_from(&read.etag);
    }
    Ok(resource)
}
