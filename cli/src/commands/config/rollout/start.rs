//! `mcpgw config rollout start`: an organisation's document, tried by some nodes first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::rollout_service_client::RolloutServiceClient;
use mcp_gateway::proto::admin::v1::{CreateRolloutRequest, OrganizationDocument, Rollout, RolloutStep, rollout_step};

use super::follow;
use crate::args::{Change, duration, label, proto_duration};
use crate::context::{self, Context};
use crate::{document, names};

/// Flags of `config rollout start`.
#[derive(Debug, Flags)]
#[command(
    after_help = "The document is the whole organisation, as `mcpgw export` writes it; members and API keys must be absent, or as they are.\nUntil the rollout is over, servers, policies and settings cannot be changed otherwise.\nWith --watch the exit code says how it ended: 0 promoted, 1 halted or aborted.\n\nExamples:\n  mcpgw config rollout start -f acme.yaml --validate-only\n  mcpgw config rollout start -f acme.yaml --label ring=canary --steps 1n,25,100 --bake 10m --watch"
)]
pub struct Args {
    /// YAML or JSON file of the whole organisation; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only nodes with this label can try it; repeatable: all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// The share of these nodes in each step: percent, or with an n a number
    #[arg(long, value_name = "STEPS", value_delimiter = ',', value_parser = step, default_value = "1n,10,50,100")]
    steps: Vec<RolloutStep>,
    /// How long each step lasts once its nodes run the change, such as 60s or 1h
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    bake: Duration,
    /// Fewer calls at canaries say nothing about how they end
    #[arg(long, value_name = "CALLS", default_value_t = 20)]
    min_calls: u32,
    /// Do it even where that removes more than half of the servers, policies and limits
    #[arg(long)]
    force: bool,
    /// Tell what happens until the rollout has ended or halted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut document = document::read::<OrganizationDocument>(&args.file)?.resource;
    if document.organization.is_empty() {
        document.organization = names::id(&cx.org()?).to_owned();
    }
    let rollout = Rollout {
        node_labels: args.label.into_iter().collect::<BTreeMap<_, _>>(),
        steps: args.steps,
        bake_duration: Some(proto_duration(args.bake)),
        min_calls: args.min_calls,
        ..Rollout::default()
    };
    let request = CreateRolloutRequest {
        document: Some(document),
        rollout: Some(rollout),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let call = async |c: &mut RolloutServiceClient<_>, r| c.create_rollout(context::forced(r, args.force)).await;
    let started = cx.call(RolloutServiceClient::new, request, call).await?;
    if args.change.validate_only {
        eprintln!("first: {}", started.canaries.join(", "));
    }
    args.change.say(&format!("started {}: {} first", started.name, started.canaries.join(", ")));
    if args.watch && !args.change.validate_only {
        return follow::to_the_end(cx, started).await;
    }
    cx.out.one(&started)
}

/// `10` is ten percent, `1n` one node.
fn step(text: &str) -> Result<RolloutStep, String> {
    let share = match text.strip_suffix('n') {
        Some(nodes) => nodes.parse().ok().map(rollout_step::Share::Nodes),
        None => text.trim_end_matches('%').parse().ok().map(rollout_step::Share::Percent),
    };
    let share = share.ok_or("expected percent, such as 10, or a number of nodes, such as 1n")?;
    Ok(RolloutStep { share: Some(share) })
}
