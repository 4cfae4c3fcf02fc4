//! What the publisher counts.

use std::sync::atomic::AtomicU64;

use mcp_gateway::snapshot::Version;
use prometheus_client::metrics::{
    counter::Counter,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    version: Gauge<u64, AtomicU64>,
    epoch: Gauge<u64, AtomicU64>,
    pub failures: Counter,
    /// Pools whose newest content is held.
    pub held: Gauge,
    pub build_seconds: Histogram,
}

impl Metrics {
    pub fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self {
            version: Gauge::default(),
            epoch: Gauge::default(),
            failures: Counter::default(),
            held: Gauge::default(),
            build_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
        };
        metrics.register(|registry| {
            registry.register("published_version", "The configuration version that nodes are brought to", this.version.clone());
            registry.register("published_epoch", "The epoch of that version", this.epoch.clone());
            registry.register("publish_failures", "Times that a new version could not be published", this.failures.clone());
            registry.register("publish_held_pools", "Pools whose rows vanished and whose older content stays", this.held.clone());
            registry.register(
                "publish_build_seconds",
                "From the first read to the encoded scopes of all pools",
                this.build_seconds.clone(),
            );
        });
        this
    }

    pub fn published(&self, version: Version) {
        self.version.set(version.version);
        self.epoch.set(version.epoch);
    }
}
