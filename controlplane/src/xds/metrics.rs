//! What the stream server counts.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use tonic::Code;

/// A resource type by its short name; those that are not ours are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Type {
    pub r#type: &'static str,
}

/// A type, and the code that a node refused it with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    pub r#type: &'static str,
    /// A gRPC code's name; what is none of them is one.
    pub code: &'static str,
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    pub reason: &'static str,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub streams: Gauge<i64, AtomicI64>,
    pub opened: Counter,
    pub ended: Family<Ended, Counter>,
    pub sent: Family<Type, Counter>,
    pub sent_bytes: Family<Type, Counter>,
    pub applied: Counter,
    pub applied_in_part: Counter,
    pub refused: Family<Refused, Counter>,
    pub resyncs: Counter,
    pub turned_away: Counter,
    pub slow: Counter,
    /// In seconds.
    pub commit_to_applied: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            streams: Gauge::default(),
            opened: Counter::default(),
            ended: Family::default(),
            sent: Family::default(),
            sent_bytes: Family::default(),
            applied: Counter::default(),
            applied_in_part: Counter::default(),
            refused: Family::default(),
            resyncs: Counter::default(),
            turned_away: Counter::default(),
            slow: Counter::default(),
            // From 10 ms to 164 s.
            commit_to_applied: Histogram::new(exponential_buckets(0.01, 2.0, 15)),
        }
    }
}

impl Metrics {
    pub fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register("discovery_streams", "Open discovery streams", this.streams.clone());
            registry.register("discovery_streams_opened", "Discovery streams that nodes opened here", this.opened.clone());
            registry.register("discovery_streams_ended", "Discovery streams that ended, by reason", this.ended.clone());
            registry.register("discovery_responses", "Responses sent, by resource type", this.sent.clone());
            registry.register("discovery_sent_bytes", "Encoded bytes of responses sent, by resource type", this.sent_bytes.clone());
            registry.register("discovery_applied", "Manifests that nodes applied, in part or whole", this.applied.clone());
            registry.register(
                "discovery_applied_in_part",
                "Manifests that nodes applied except for organisations that they quarantined",
                this.applied_in_part.clone(),
            );
            registry.register(
                "discovery_refused",
                "Responses that nodes refused, by resource type and the gRPC code that they gave",
                this.refused.clone(),
            );
            registry.register(
                "discovery_resyncs",
                "Times that everything was sent again because a node had staged something else",
                this.resyncs.clone(),
            );
            registry.register("discovery_turned_away", "Streams refused for want of capacity", this.turned_away.clone());
            registry.register("discovery_slow", "Streams ended because the node did not read", this.slow.clone());
            registry.register(
                "discovery_commit_to_applied_seconds",
                "From the commit of a version to its acknowledgement, per node; versions from before the node's stream do not count",
                this.commit_to_applied.clone(),
            );
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

impl Refused {
    /// Of a resource type and a google.rpc.Code, both as a node said.
    pub fn of(type_url: &str, code: i32) -> Self {
        let code = match Code::from_i32(code) {
            Code::Ok => "ok",
            Code::InvalidArgument => "invalid_argument",
            Code::FailedPrecondition => "failed_precondition",
            Code::DataLoss => "data_loss",
            Code::Internal => "internal",
            Code::ResourceExhausted => "resource_exhausted",
            Code::Unimplemented => "unimplemented",
            // No node of ours says these.
            Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::Unauthenticated => "other",
        };
        Self { r#type: Type::of(type_url).r#type, code }
    }
}
