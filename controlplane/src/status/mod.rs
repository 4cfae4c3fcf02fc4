//! How the fleet stands: which node runs what its pool should run, which does not, since when and why.
//!
//! Judges rows against what this replica publishes, for the eyes of one viewer; never changes anything. Called by [`crate::api`].

mod metrics;
pub mod overview;
pub mod pools;
mod words;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use mcp_gateway::{
    proto::admin::v1::{self as admin, NodeState},
    snapshot::Version,
};
use uuid::Uuid;

use crate::{
    api::aip::{etag, timestamp},
    app::Core,
    publish::Published,
    store::{self, node_status::Standing, nodes::Node},
};

/// Who looks. Everybody sees how the nodes stand; why, only as far as it concerns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer {
    /// Sees all.
    Platform,
    /// Sees the pool of its organisation, and what is wrong with that organisation.
    Member { org: Uuid, pool: String },
}

impl Viewer {
    /// Whether a pool is the viewer's to see.
    pub fn sees(&self, pool: &str) -> bool {
        match self {
            Self::Platform => true,
            Self::Member { pool: own, .. } => own == pool,
        }
    }
}

/// Some nodes, or all, at one moment, with what it takes to judge them.
#[derive(Debug, Clone)]
pub struct Look {
    pub nodes: Vec<Node>,
    published: Option<Arc<Published>>,
    /// When the first change was committed that a standing lacks.
    since: BTreeMap<Standing, DateTime<Utc>>,
    /// Of the organisations that problems name.
    slugs: BTreeMap<Uuid, String>,
    at: DateTime<Utc>,
}

impl Look {
    /// At these nodes, now, without asking the database: organisations stay ids, and a node is behind since the newest change.
    pub fn brief(core: &Core, nodes: Vec<Node>) -> Self {
        let published = core.publications.now();
        Self { nodes, published, since: BTreeMap::new(), slugs: BTreeMap::new(), at: Utc::now() }
    }

    /// At these nodes, now.
    pub async fn at(core: &Core, nodes: Vec<Node>) -> Result<Self, store::Error> {
        let mut look = Self::brief(core, nodes);
        let lacking: BTreeSet<Standing> = look.nodes.iter().filter(|node| look.is_behind(node)).map(standing).collect();
        if !lacking.is_empty() {
            look.since = core.store.first_changes_after(&lacking.into_iter().collect::<Vec<_>>()).await?;
        }
        let named: BTreeSet<Uuid> =
            look.nodes.iter().flat_map(|node| &node.problems).flat_map(|line| words::orgs(line)).collect();
        if !named.is_empty() {
            look.slugs = core.store.slugs(&named.into_iter().collect::<Vec<_>>()).await?;
        }
        Ok(look)
    }

    /// The version that was read; zero: none yet.
    pub fn published_version(&self) -> Version {
        self.published.as_ref().map(|published| published.head.version).unwrap_or_default()
    }

    /// The pools that are published, or held back from the start, by name.
    fn published_pools(&self) -> BTreeSet<&String> {
        self.published.iter().flat_map(|published| published.scopes.keys().chain(published.holds.keys())).collect()
    }

    /// What the nodes of a pool should run, canaries of a rollout aside; zero: it is not published.
    fn pool_version(&self, pool: &str) -> Version {
        let scope = self.published.as_ref().and_then(|published| published.scopes.get(pool));
        scope.map(|scope| scope.version).unwrap_or_default()
    }

    /// Why a newer version is held back from a pool, in words for the viewer; empty: none is.
    fn hold(&self, pool: &str, viewer: &Viewer) -> &str {
        let why = self.published.as_ref().and_then(|published| published.holds.get(pool));
        match (why, viewer) {
            (None, _) => "",
            (Some(why), Viewer::Platform) => why,
            (Some(_), Viewer::Member { .. }) => words::HELD,
        }
    }

    /// Whether both were judged against the same publication.
    fn same_publication(&self, other: &Self) -> bool {
        match (&self.published, &other.published) {
            (Some(one), Some(other)) => {
                (one.head, &one.scopes, &one.trials, &one.holds) == (other.head, &other.scopes, &other.trials, &other.holds)
            }
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// What the node should run; none: this replica does not know.
    fn target(&self, node: &Node) -> Option<Version> {
        self.published.as_ref()?.scope(&node.pool, node.id).map(|scope| scope.version)
    }

    fn is_behind(&self, node: &Node) -> bool {
        self.target(node).is_some_and(|target| node.applied < target)
    }

    /// Whether the node refused what it should run, or says that it runs something newer than this installation knows.
    fn is_refusing(&self, node: &Node) -> bool {
        node.refused != Version::default() && self.target(node).is_some_and(|target| node.refused >= target)
    }

    /// How a node stands, as far as it concerns the viewer: an organisation does not learn that another one is quarantined.
    pub fn state(&self, node: &Node, viewer: &Viewer) -> NodeState {
        if !node.connected {
            return NodeState::Disconnected;
        }
        let Some(target) = self.target(node) else { return NodeState::Unspecified };
        match node.applied < target {
            _ if self.is_refusing(node) => NodeState::Refused,
            true => NodeState::Behind,
            false if self.problems(node, viewer).is_empty() => NodeState::Current,
            false => NodeState::Quarantining,
        }
    }

    /// What is wrong with what the node runs, in words for the viewer.
    pub fn problems(&self, node: &Node, viewer: &Viewer) -> Vec<String> {
        let lines: Vec<String> = node.problems.iter().filter_map(|line| words::of(line, viewer, &self.slugs)).collect();
        let stuck = self.is_behind(node) || self.is_refusing(node);
        let kept_back = lines.is_empty() && !node.problems.is_empty() && stuck;
        if kept_back { vec![words::ELSEWHERE.to_owned()] } else { lines }
    }

    /// Since when a node lacks something that it should run.
    pub fn behind_since(&self, node: &Node) -> Option<DateTime<Utc>> {
        let scope = self.published.as_ref()?.scope(&node.pool, node.id).filter(|scope| node.applied < scope.version)?;
        let newest = scope.manifest().and_then(|manifest| DateTime::from_timestamp_millis(manifest.created_at_ms));
        let first = self.since.get(&standing(node)).copied();
        let since = first.into_iter().chain(newest).min()?;
        Some(since.max(node.meta.created_at)) // a node that has just joined is not late
    }

    /// For how long no control plane has confirmed what the node runs, as far as is known. Nothing has been heard since the last report.
    fn stale(&self, node: &Node) -> Duration {
        let reported = Duration::from_secs(node.vitals.stale_seconds);
        if node.connected && reported.is_zero() {
            return reported;
        }
        let heard = node.reported_at.or(node.last_seen_at).unwrap_or(node.meta.created_at);
        reported + (self.at - heard).to_std().unwrap_or_default()
    }

    /// A node as the viewer sees it.
    pub fn wire(&self, node: &Node, viewer: &Viewer) -> admin::Node {
        let target = self.target(node).unwrap_or_default();
        let mine = viewer == &Viewer::Platform;
        admin::Node {
            name: name(node),
            display_name: node.display_name.clone(),
            pool: node.pool.clone(),
            connected: node.connected,
            applied_version: node.applied.version,
            applied_epoch: node.applied.epoch,
            build: node.build.clone(),
            last_seen_time: node.last_seen_at.map(timestamp),
            certificate_expire_time: Some(timestamp(node.certificate_expires_at)),
            problems: self.problems(node, viewer),
            uid: node.id.to_string(),
            create_time: Some(timestamp(node.meta.created_at)),
            labels: node.labels.clone(),
            etag: etag(&node.id.to_string(), &node.meta),
            state: self.state(node, viewer).into(),
            target_version: target.version,
            target_epoch: target.epoch,
            behind_since_time: self.behind_since(node).map(timestamp),
            stale_duration: Some(duration(self.stale(node))),
            report_time: node.reported_at.map(timestamp),
            // Of other organisations too: not for one of them to know.
            quarantined: if mine { node.vitals.quarantined } else { 0 },
            spool_frames: node.vitals.spool_frames,
            spool_oldest_duration: Some(duration(Duration::from_millis(node.vitals.spool_oldest_ms))),
            open_streams: node.vitals.open_streams,
            advertise: node.advertise.clone(),
            refused_version: node.refused.version,
        }
    }
}

/// A node's resource name.
pub fn name(node: &Node) -> String {
    format!("nodes/{}", node.id)
}

fn standing(node: &Node) -> Standing {
    (node.pool.clone(), node.applied)
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}
