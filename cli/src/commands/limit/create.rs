//! `mcpgw limit create`: a new limit, from flags, a file, or both (flags win).

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;
use mcp_gateway::proto::admin::v1::{CreateRateLimitRequest, RateLimit};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::document;

const EXAMPLES: &str = "\
Examples:
  mcpgw limit create searches --per user --window 100/1m --window 1000/1h --server github --tool 'search_*'
  mcpgw limit create exports --per user --per endpoint --tool 'export_*' --tool list_all --window 50/1h --cost 'export_*=10'
  mcpgw limit create crowd --max-concurrent 20
  mcpgw limit create visitors --anonymous --per user --window 30/1m
  mcpgw limit create searches -f searches.yaml

A file:
  per: [user]
  servers: [github]
  match: { tools: ['search_*'] }
  windows: [{ limit: 100, seconds: 60 }, { limit: 1000, seconds: 3600 }]
  maxConcurrent: 4
  costs: [{ tools: 'search_all*', cost: 10 }]
  whenAway: share";

/// Flags of `limit create`.
#[derive(Debug, Flags)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Its name: 1 to 63 characters of a-z, 0-9 and hyphen, starting with a letter
    #[arg(value_name = "NAME")]
    id: String,
    /// Read the limit from YAML or JSON, - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut limit = match &args.file {
        Some(path) => document::read::<RateLimit>(path)?.resource,
        None => RateLimit::default(),
    };
    args.fields.apply(cx, &mut limit, &mut Mask::default()).await?;
    let request = CreateRateLimitRequest {
        parent: cx.org()?,
        rate_limit_id: args.id,
        rate_limit: Some(limit),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(RateLimitServiceClient::new, request, async |c, r| c.create_rate_limit(r).await).await?;
    args.change.say(&format!("created {}", created.name));
    cx.out.one(&created)
}
