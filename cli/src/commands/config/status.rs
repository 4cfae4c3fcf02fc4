//! `mcpgw config status`: where the configuration has arrived, once or watched.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, SystemTime};

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::config_status_service_client::ConfigStatusServiceClient;
use mcp_gateway::proto::admin::v1::{ConfigStatus, GetConfigStatusRequest, NodeCounts, PoolStatus, WatchConfigStatusRequest};
use tonic::Code;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Format, Tabular as _, relative};

/// The pause before a watch that ended begins again.
const AGAIN: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its first line.
const HOME: &str = "\x1b[H\x1b[2J";

/// Flags of `config status`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw config status\n  mcpgw config status --watch --pool edge\n  mcpgw config status --watch -o json | jq .version\n  mcpgw config status --exit-code && echo everything has arrived"
)]
pub struct Args {
    /// Only this pool
    #[arg(long, default_value = "")]
    pool: String,
    /// Shows it again whenever it changes, until interrupted; on no terminal: a line or a JSON document for each change
    #[arg(long)]
    watch: bool,
    /// Fails if a connected node does not run what it should, or refuses a part of it, or a version is held back
    #[arg(long, conflicts_with = "watch")]
    exit_code: bool,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    if args.watch {
        return watch(cx, args.pool).await;
    }
    let request = GetConfigStatusRequest { pool: args.pool };
    let status = cx.call(ConfigStatusServiceClient::new, request, async |c, r| c.get_config_status(r).await).await?;
    cx.out.view(&status, || page(&status, SystemTime::now()))?;
    match amiss(&status) {
        Some(what) if args.exit_code => Err(anyhow::anyhow!("not everything has arrived: {what}")),
        Some(_) | None => Ok(()),
    }
}

/// Until interrupted. A watch ends with its access token and with the replica that answers: then it begins again.
async fn watch(cx: &Context, pool: String) -> anyhow::Result<()> {
    loop {
        let request = WatchConfigStatusRequest { pool: pool.clone() };
        let mut watched = cx.open(ConfigStatusServiceClient::new, request, async |c, r| c.watch_config_status(r).await).await?;
        let end = loop {
            match watched.message().await {
                Ok(Some(status)) => show(cx, &status)?,
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        match end {
            Some(status) if !matches!(status.code(), Code::Unauthenticated | Code::Unavailable | Code::Unknown) => {
                return Err(Failure::from(status).into());
            }
            Some(_) | None => tokio::time::sleep(AGAIN).await,
        }
    }
}

fn show(cx: &Context, status: &ConfigStatus) -> anyhow::Result<()> {
    let now = SystemTime::now();
    match cx.out.format {
        Format::Table if io::stdout().is_terminal() => cx.out.view(status, || format!("{HOME}{}", page(status, now))),
        Format::Table => cx.out.view(status, || line(status, now)),
        Format::Json | Format::Yaml => cx.out.next(status),
    }
}

/// What is not as it should be; none: all is.
fn amiss(status: &ConfigStatus) -> Option<String> {
    let of = |pool: &PoolStatus| {
        let NodeCounts { behind, refused, quarantining, .. } = pool.counts.unwrap_or_default();
        let counts = [(behind, "behind"), (refused, "refused"), (quarantining, "quarantining")];
        let mut parts: Vec<_> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if !pool.hold.is_empty() {
            parts.push(format!("held: {}", pool.hold));
        }
        (!parts.is_empty()).then(|| format!("pool {}: {}", pool.pool, parts.join(", ")))
    };
    let mut parts: Vec<String> = status.pools.iter().filter_map(of).collect();
    if status.published_version < status.version {
        parts.push(format!("the control plane publishes version {}, {} is committed", status.published_version, status.version));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// For people: the newest version, a line per pool, and a line per node that needs looking at.
fn page(status: &ConfigStatus, now: SystemTime) -> String {
    const POOLS: &[&str] =
        &["POOL", "VERSION", "AGE", "RESOURCES", "SIZE", "CURRENT", "QUARANTINING", "BEHIND", "REFUSED", "DISCONNECTED", "LATE"];
    let mut text = format!("version {} of epoch {}, committed {} ago", status.version, status.epoch, age(status, now));
    if status.published_version < status.version {
        text += &format!("; published so far: {}", status.published_version);
    }
    text += "\n\n";
    text += &output::columns(POOLS, status.pools.iter().map(|pool| cells(pool, now)));
    for pool in status.pools.iter().filter(|pool| !pool.hold.is_empty()) {
        text += &format!("\n\npool {} is held: {}", pool.pool, pool.hold);
    }
    let nodes: Vec<_> = status.pools.iter().flat_map(|pool| &pool.nodes).collect();
    if let Some(first) = nodes.first() {
        text += "\n\n";
        text += &output::columns(header(*first), nodes.iter().map(|node| node.cells()));
    }
    let more: u32 = status.pools.iter().map(|pool| pool.more_nodes).sum();
    if more > 0 {
        text += &format!("\nand {more} more nodes: see mcpgw node list");
    }
    text + "\n"
}

fn header<T: output::Tabular>(_: &T) -> &'static [&'static str] {
    T::HEADER
}

fn cells(pool: &PoolStatus, now: SystemTime) -> Vec<String> {
    let counts = pool.counts.unwrap_or_default();
    let mut cells = vec![
        pool.pool.clone(),
        pool.version.to_string(),
        relative::ago(pool.commit_time.as_ref(), now),
        pool.resource_count.to_string(),
        relative::size(pool.size_bytes),
    ];
    let NodeCounts { current, quarantining, behind, refused, disconnected } = counts;
    cells.extend([current, quarantining, behind, refused, disconnected].map(|count| count.to_string()));
    cells.push(relative::ago(pool.behind_since_time.as_ref(), now));
    cells
}

/// One line for logs and pipes.
fn line(status: &ConfigStatus, now: SystemTime) -> String {
    let pools: Vec<String> = status
        .pools
        .iter()
        .map(|pool| {
            let NodeCounts { current, quarantining, behind, refused, disconnected } = pool.counts.unwrap_or_default();
            let counts = [(current, "current"), (quarantining, "quarantining"), (behind, "behind"), (refused, "refused")];
            let counts = counts.into_iter().chain([(disconnected, "disconnected")]);
            let counts: Vec<_> = counts.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
            let counts = if counts.is_empty() { "no nodes".to_owned() } else { counts.join(", ") };
            format!("{} version {}: {counts}", pool.pool, pool.version)
        })
        .collect();
    format!("version {} committed {} ago; {}", status.version, age(status, now), pools.join("; "))
}

fn age(status: &ConfigStatus, now: SystemTime) -> String {
    relative::ago(status.commit_time.as_ref(), now)
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::admin::v1::{Node, NodeState};
    use prost_types::Timestamp;

    use super::*;

    fn status() -> ConfigStatus {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let node = Node {
            name: "nodes/n1".into(),
            state: NodeState::Refused.into(),
            applied_version: 40,
            target_version: 42,
            target_epoch: 1,
            problems: vec!["organizations/acme: server x: bad".into()],
            ..Node::default()
        };
        let pool = PoolStatus {
            pool: "default".into(),
            version: 42,
            commit_time: at(990),
            resource_count: 7,
            size_bytes: 3_200,
            counts: Some(NodeCounts { current: 2, refused: 1, ..NodeCounts::default() }),
            behind_since_time: at(990),
            nodes: vec![node],
            ..PoolStatus::default()
        };
        ConfigStatus {
            epoch: 1,
            version: 42,
            commit_time: at(990),
            published_version: 42,
            pools: vec![pool],
            ..ConfigStatus::default()
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000)
    }

    #[test]
    fn people_see_the_version_the_pools_and_who_needs_looking_at() {
        let page = page(&status(), now());
        assert!(page.starts_with("version 42 of epoch 1, committed 10s ago\n\nPOOL "), "{page}");
        assert!(page.contains("default  42       10s  7          3.1 KiB  2        0             0       1"), "{page}");
        assert!(page.contains("refused  40 of 42") && page.contains("organizations/acme: server x: bad"), "{page}");
    }

    #[test]
    fn a_pipe_gets_a_line() {
        assert_eq!(line(&status(), now()), "version 42 committed 10s ago; default version 42: 2 current, 1 refused");
        let empty = PoolStatus { pool: "p".into(), version: 1, ..PoolStatus::default() };
        let status = ConfigStatus { pools: vec![empty], ..status() };
        assert!(line(&status, now()).ends_with("; p version 1: no nodes"));
    }

    #[test]
    fn what_is_amiss_is_named() {
        assert_eq!(amiss(&status()).as_deref(), Some("pool default: 1 refused"));
        let mut fine = status();
        fine.pools[0].counts = Some(NodeCounts { current: 3, disconnected: 4, ..NodeCounts::default() });
        assert_eq!(amiss(&fine), None, "who is away is no failure of the configuration");
        fine.pools[0].hold = "too much would go".into();
        assert_eq!(amiss(&fine).as_deref(), Some("pool default: held: too much would go"));
        let late = ConfigStatus { published_version: 41, pools: Vec::new(), ..status() };
        assert!(amiss(&late).unwrap().contains("publishes version 41"));
    }
}
