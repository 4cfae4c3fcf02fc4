//! The fleet in numbers: from the database, once per five seconds at most, however often the page is asked for.
//!
//! Every replica shows the whole fleet: to be read from any one of them, not summed over all.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tracing::debug;

use super::{
    Viewer,
    overview::{Overview, Whole},
};
use crate::app::Core;

/// How old a number may be. Tests of a whole gateway need not wait for it.
const AGE: Duration = Duration::from_millis(if cfg!(any(test, feature = "testing")) { 100 } else { 5_000 });
/// How long the page waits for them.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pools that have numbers of their own: an installation with more is watched through the API.
const POOLS: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pool {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolState {
    pool: String,
    state: &'static str,
}

type Number = Gauge<u64, AtomicU64>;
type Seconds = Gauge<f64, AtomicU64>;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    head_version: Number,
    head_epoch: Number,
    nodes: Family<PoolState, Number>,
    version: Family<Pool, Number>,
    epoch: Family<Pool, Number>,
    behind: Family<Pool, Seconds>,
    held: Family<Pool, Number>,
    unlisted: Number,
    failures: Counter,
    pub watchers: Number,
    /// What the numbers are of.
    shown: Arc<Mutex<Option<Arc<Whole>>>>,
}

impl Metrics {
    pub fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let any = "the whole fleet, the same on every replica";
            registry.register("config_head_version", "The newest committed configuration version", this.head_version.clone());
            registry.register("config_head_epoch", "The epoch of the newest committed version", this.head_epoch.clone());
            registry.register(
                "pool_nodes",
                format!("Nodes by pool and state (current, quarantining, behind, refused, disconnected); {any}"),
                this.nodes.clone(),
            );
            registry.register("pool_version", "The version that the nodes of a pool should run", this.version.clone());
            registry.register("pool_epoch", "The epoch of that version", this.epoch.clone());
            registry.register(
                "pool_behind_seconds",
                format!("Age of the oldest committed change that some connected node of the pool does not run; {any}"),
                this.behind.clone(),
            );
            registry.register("pool_held", "1 while a newer version is held back from the pool", this.held.clone());
            registry.register("pools_unlisted", "Pools beyond the first 200, which have no numbers here", this.unlisted.clone());
            registry.register(
                "fleet_look_failures",
                "Times that the state of the nodes could not be read",
                this.failures.clone(),
            );
            registry.register("status_watchers", "Callers that watch the configuration status", this.watchers.clone());
        });
        this
    }

    /// Brings the numbers up to date, if they are older than they may be. Without a database there are none, rather than old ones.
    pub async fn sample(&self, core: &Core, overview: &Overview) {
        if !core.is_open() {
            return;
        }
        let whole = match tokio::time::timeout(PATIENCE, overview.within(core, AGE)).await {
            Ok(Ok(whole)) => Some(whole),
            Ok(Err(error)) => {
                debug!(%error, "the nodes cannot be counted");
                None
            }
            Err(_) => None,
        };
        if whole.is_none() {
            self.failures.inc();
        }
        core.metrics.at_once(|| self.show(whole));
    }

    fn show(&self, whole: Option<Arc<Whole>>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!((&*shown, &whole), (Some(shown), Some(whole)) if Arc::ptr_eq(shown, whole)) {
            return;
        }
        self.nodes.clear();
        self.version.clear();
        self.epoch.clear();
        self.behind.clear();
        self.held.clear();
        if let Some(whole) = &whole {
            self.count(whole);
        }
        *shown = whole;
    }

    fn count(&self, whole: &Whole) {
        self.head_version.set(whole.head.version.version);
        self.head_epoch.set(whole.head.version.epoch);
        let look = &whole.look;
        let pools = look.published_pools();
        self.unlisted.set(pools.len().saturating_sub(POOLS) as u64);
        for name in pools.into_iter().take(POOLS) {
            let tally = look.tally(name, &Viewer::Platform);
            let pool = Pool { pool: name.clone() };
            let counts = tally.counts;
            let states = [
                ("current", counts.current),
                ("quarantining", counts.quarantining),
                ("behind", counts.behind),
                ("refused", counts.refused),
                ("disconnected", counts.disconnected),
            ];
            for (state, count) in states {
                self.nodes.get_or_create(&PoolState { pool: name.clone(), state }).set(count.into());
            }
            let version = look.pool_version(name);
            self.version.get_or_create(&pool).set(version.version);
            self.epoch.get_or_create(&pool).set(version.epoch);
            let behind = tally.behind_since.map(|since| (look.at - since).to_std().unwrap_or_default());
            self.behind.get_or_create(&pool).set(behind.unwrap_or_default().as_secs_f64());
            self.held.get_or_create(&pool).set(u64::from(!look.hold(name, &Viewer::Platform).is_empty()));
        }
    }
}
