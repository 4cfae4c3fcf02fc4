//! `mcpgw node join-token create`: a new one-time token; its secret is shown once.

use std::time::Duration;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::join_token_service_client::JoinTokenServiceClient;
use mcp_gateway::proto::admin::v1::{CreateJoinTokenRequest, JoinToken};

use crate::args::{self, Change};
use crate::context::Context;

/// Flags of `node join-token create`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw node join-token create --pool default\n  mcpgw node join-token create --label ring=canary --label zone=eu-1a\n  mcpgw node join-token create --ttl 1h -o json | jq -r .secret"
)]
pub struct Args {
    /// The pool to join
    #[arg(long, default_value = "default")]
    pool: String,
    /// How long it can be used, at most 7d
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "15m")]
    ttl: Duration,
    /// A label that the node begins with; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = args::label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let token = JoinToken {
        pool: args.pool,
        ttl: Some(args::proto_duration(args.ttl)),
        labels: args.label.into_iter().collect(),
        ..JoinToken::default()
    };
    let request = CreateJoinTokenRequest {
        join_token: Some(token),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(JoinTokenServiceClient::new, request, async |c, r| c.create_join_token(r).await).await?;
    args.change.say("created; give the secret to one node, it is shown this once");
    cx.out.one(&created)
}
