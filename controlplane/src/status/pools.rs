//! A pool at a glance: how many of its nodes stand how, which ones need looking at, and since when the latest is late. Pure.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1::{NodeCounts, NodeState, PoolStatus};
use mcp_gateway::type_url;

use super::{Look, Viewer};
use crate::{api::aip::timestamp, publish::scope::Scope, store::nodes::Node};

/// Nodes that a pool's status names.
pub const NAMED: usize = 500;

/// How the nodes of a pool stand.
#[derive(Debug)]
pub struct Tally<'a> {
    pub counts: NodeCounts,
    /// Since when some connected node lacks something.
    pub behind_since: Option<DateTime<Utc>>,
    /// Those that are not current, the worst first.
    pub notable: Vec<&'a Node>,
}

impl Look {
    /// Counts the nodes of a pool.
    pub fn tally(&self, pool: &str, viewer: &Viewer) -> Tally<'_> {
        let mut tally = Tally { counts: NodeCounts::default(), behind_since: None, notable: Vec::new() };
        let mut notable = Vec::new();
        for node in self.nodes.iter().filter(|node| node.pool == pool) {
            let state = self.state(node, viewer);
            let counts = &mut tally.counts;
            match state {
                NodeState::Current => counts.current += 1,
                NodeState::Quarantining => counts.quarantining += 1,
                NodeState::Behind => counts.behind += 1,
                NodeState::Refused => counts.refused += 1,
                NodeState::Disconnected => counts.disconnected += 1,
                // Of a pool that is held from the start: it cannot run what nobody tells it.
                NodeState::Unspecified => counts.behind += 1,
            }
            if node.connected {
                tally.behind_since = tally.behind_since.into_iter().chain(self.behind_since(node)).min();
            }
            if state != NodeState::Current {
                notable.push((Reverse(severity(state)), node));
            }
        }
        notable.sort_by_key(|(severity, node)| (*severity, node.id));
        tally.notable = notable.into_iter().map(|(_, node)| node).collect();
        tally
    }

    /// A pool's status for the viewer; none: it is not published.
    pub fn pool(&self, pool: &str, viewer: &Viewer) -> Option<PoolStatus> {
        let (published, hold) = (self.published.as_ref()?, self.hold(pool, viewer));
        let scope = published.scopes.get(pool);
        if scope.is_none() && hold.is_empty() {
            return None;
        }
        let Tally { counts, behind_since, notable } = self.tally(pool, viewer);
        let manifest = scope.and_then(|scope| scope.manifest());
        let version = self.pool_version(pool);
        let committed = manifest.as_ref().and_then(|manifest| DateTime::from_timestamp_millis(manifest.created_at_ms));
        Some(PoolStatus {
            pool: pool.to_owned(),
            epoch: version.epoch,
            version: version.version,
            commit_time: committed.map(timestamp),
            digest: scope.map(|scope| scope.digest.to_string()).unwrap_or_default(),
            resource_count: manifest.map_or(0, |manifest| manifest.resource_count),
            size_bytes: scope.map_or(0, |scope| size(scope)),
            hold: hold.to_owned(),
            counts: Some(counts),
            behind_since_time: behind_since.map(timestamp),
            nodes: notable.iter().take(NAMED).map(|node| self.wire(node, viewer)).collect(),
            more_nodes: u32::try_from(notable.len().saturating_sub(NAMED)).unwrap_or(u32::MAX),
        })
    }

    /// The pools that the viewer sees, by name; of one name where one is given. None: nothing is published yet.
    pub fn pools(&self, only: &str, viewer: &Viewer) -> Option<Vec<PoolStatus>> {
        self.published.as_ref()?;
        let names = self.published_pools().into_iter();
        let names = names.filter(|name| viewer.sees(name) && (only.is_empty() || only == name.as_str()));
        Some(names.filter_map(|name| self.pool(name, viewer)).collect())
    }
}

/// What wants looking at first.
fn severity(state: NodeState) -> u8 {
    match state {
        NodeState::Refused => 4,
        NodeState::Behind => 3,
        NodeState::Quarantining => 2,
        NodeState::Disconnected => 1,
        NodeState::Current | NodeState::Unspecified => 0,
    }
}

/// Bytes of the covered resources.
fn size(scope: &Scope) -> u64 {
    let covered = scope.types.iter().filter(|(type_url, _)| **type_url != type_url::MANIFEST);
    covered.flat_map(|(_, resources)| resources.values()).map(|resource| resource.body.len() as u64).sum()
}
