//! What limits count of themselves, for the metrics page. Written by whoever decides.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How a call was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By this node, for itself.
    Memory,
    /// By Redis, or by what it said a moment ago.
    Redis,
    /// By tokens leased before.
    Lease,
    /// Redis is away: as this node's share.
    Share,
    /// Redis is away: everything.
    Open,
    /// Redis is away: nothing.
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    mode: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Store {
    /// `memory` or `redis`.
    store: &'static str,
}

/// All of them; handles are resolved once, so that a decision costs one addition.
#[derive(Debug)]
pub struct Stats {
    decisions: Family<Decided, Counter>,
    admitted: [Counter; 6],
    refused: [Counter; 6],
    store: Family<Store, Gauge>,
    redis: Histogram,
    away: Gauge<u64, AtomicU64>,
    nodes: Gauge<u64, AtomicU64>,
}

impl Default for Stats {
    fn default() -> Self {
        let decisions = Family::<Decided, Counter>::default();
        let all = |outcome| {
            let modes = ["memory", "redis", "lease", "share", "open", "closed"];
            modes.map(|mode| decisions.get_or_create(&Decided { mode, outcome }).clone())
        };
        let (admitted, refused) = (all("admitted"), all("refused"));
        // From 0.05 ms to about 0.8 s.
        let redis = Histogram::new(exponential_buckets(0.000_05, 2.0, 15));
        Self { decisions, admitted, refused, store: Family::default(), redis, away: Gauge::default(), nodes: Gauge::default() }
    }
}

impl Stats {
    /// Makes them part of the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "limit_decisions",
            "Calls that fall under rate limits, by how they were decided",
            self.decisions.clone(),
        );
        registry.register("limit_store", "Where rate limits are counted: 1 for the one in use", self.store.clone());
        registry.register_with_unit("limit_redis", "Time until Redis answered for limits", Unit::Seconds, self.redis.clone());
        registry.register("limit_redis_away", "Whether Redis is out of reach and limits go by their rules", self.away.clone());
        registry.register("limit_nodes", "Nodes among which a limit is divided while Redis is away", self.nodes.clone());
    }

    pub(super) fn decided(&self, how: How, admitted: bool) {
        let counters = if admitted { &self.admitted } else { &self.refused };
        counters[how as usize].inc();
    }

    /// How many calls were decided so.
    #[must_use]
    pub fn decisions(&self, how: How, admitted: bool) -> u64 {
        let counters = if admitted { &self.admitted } else { &self.refused };
        counters[how as usize].get()
    }

    /// Whether Redis is out of reach.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away.get() > 0
    }

    pub(super) fn counted_in(&self, store: &'static str) {
        self.store.get_or_create(&Store { store }).set(1);
    }

    pub(super) fn answered(&self, after: Duration) {
        self.redis.observe(after.as_secs_f64());
    }

    pub(super) fn away(&self, away: bool) {
        self.away.inner().store(away.into(), Relaxed);
    }

    pub(super) fn nodes(&self, nodes: u32) {
        self.nodes.inner().store(nodes.into(), Relaxed);
    }
}
