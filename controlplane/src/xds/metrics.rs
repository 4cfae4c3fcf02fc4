//! What the stream server counts.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

/// A resource type by its short name; those that are not ours are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Type {
    pub r#type: &'static str,
}

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub streams: Gauge<i64, AtomicI64>,
    pub sent: Family<Type, Counter>,
    pub applied: Counter,
    pub refused: Family<Type, Counter>,
    pub turned_away: Counter,
    pub slow: Counter,
}

impl Metrics {
    pub fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register("discovery_streams", "Open discovery streams", this.streams.clone());
            registry.register("discovery_responses", "Responses sent, by resource type", this.sent.clone());
            registry.register("discovery_applied", "Manifests that nodes applied", this.applied.clone());
            registry.register("discovery_refused", "Responses that nodes refused, by resource type", this.refused.clone());
            registry.register("discovery_turned_away", "Streams refused for want of capacity", this.turned_away.clone());
            registry.register("discovery_slow", "Streams ended because the node did not read", this.slow.clone());
        });
        this
    }
}

impl Type {
    pub fn of(type_url: &str) -> Self {
        use mcp_gateway::type_url;
        let ours = type_url::COVERED.into_iter().chain(type_url::BESIDE).chain([type_url::MANIFEST]);
        let known = ours.into_iter().find(|ours| *ours == type_url).and_then(|ours| ours.rsplit('.').next());
        Self { r#type: known.unwrap_or("other") }
    }
}
