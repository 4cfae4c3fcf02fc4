//! What is counted of rollouts.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::domain::rollout::{Reason, State};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    rollouts: Family<InState, Gauge<u64, AtomicU64>>,
    halts: Family<Because, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

impl Metrics {
    pub fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self { rollouts: Family::default(), halts: Family::default() };
        metrics.register(|registry| {
            registry.register("rollouts", "Rollouts by state", this.rollouts.clone());
            registry.register("rollout_halts", "Rollouts that this replica halted, by reason", this.halts.clone());
        });
        this
    }

    /// Says how many there are; a state that nothing names has none.
    pub fn count(&self, found: &[(String, i64)]) {
        for state in State::ALL.map(State::as_str) {
            let count = found.iter().find(|(name, _)| name == state).map_or(0, |(_, count)| count.unsigned_abs());
            self.rollouts.get_or_create(&InState { state }).set(count);
        }
    }

    pub fn halted(&self, reason: Reason) {
        self.halts.get_or_create(&Because { reason: reason.as_str() }).inc();
    }
}
