//! What ingest counts, and how far it is behind.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::{account::Account, record::Missing};

/// Bounds in seconds of how old the newest decision of a batch is when it is committed.
const LAG: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0];

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub frames: Counter,
    pub repeated: Counter,
    pub gaps: Counter,
    pub unreadable: Counter,
    pub refused: Counter,
    missing: Counter,
    batches: Counter,
    calls: Counter,
    errors: Counter,
    newest: Gauge,
    lag: Histogram,
}

impl Metrics {
    pub fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self {
            frames: Counter::default(),
            repeated: Counter::default(),
            gaps: Counter::default(),
            unreadable: Counter::default(),
            refused: Counter::default(),
            missing: Counter::default(),
            batches: Counter::default(),
            calls: Counter::default(),
            errors: Counter::default(),
            newest: Gauge::default(),
            lag: Histogram::new(LAG),
        };
        metrics.register(|registry| {
            registry.register("ingest_frames", "Audit frames committed", this.frames.clone());
            registry.register("ingest_frames_repeated", "Audit frames sent again and dropped", this.repeated.clone());
            registry.register("ingest_gaps", "Batches refused because frames before them were missing", this.gaps.clone());
            registry.register(
                "ingest_frames_unreadable",
                "Audit frames committed without a row: unreadable",
                this.unreadable.clone(),
            );
            registry.register("ingest_batches_refused", "Batches not taken", this.refused.clone());
            registry.register("ingest_records_missing", "Records that nodes say they left out", this.missing.clone());
            registry.register("ingest_batches", "Batches committed", this.batches.clone());
            registry.register("ingest_calls", "Calls whose record became complete", this.calls.clone());
            registry.register("ingest_errors", "Complete calls that failed or were denied", this.errors.clone());
            registry.register(
                "ingest_newest_decision_timestamp_seconds",
                "When the newest call was decided that this replica committed; its age is how far ingest is behind",
                this.newest.clone(),
            );
            registry.register(
                "ingest_lag_seconds",
                "Age of the newest decision of each batch when it was committed",
                this.lag.clone(),
            );
        });
        this
    }

    /// Records are missing, as a committed batch says.
    pub fn missing(&self, missing: &[Missing]) {
        self.missing.inc_by(missing.iter().map(|it| it.access.unsigned_abs() + it.audit.unsigned_abs()).sum());
    }

    /// A batch is committed.
    pub fn committed(&self, frames: usize, account: &Account) {
        self.frames.inc_by(frames as u64);
        self.batches.inc();
        self.calls.inc_by(account.done.len() as u64);
        let errors: i64 = account.errors.values().map(|errors| errors.calls).sum();
        self.errors.inc_by(errors.unsigned_abs());
        let Some((newest, _)) = account.done.iter().chain(&account.open).max() else { return };
        let newest_seconds = newest.timestamp();
        if newest_seconds > self.newest.get() {
            self.newest.set(newest_seconds);
        }
        let lag = chrono::Utc::now().signed_duration_since(newest).to_std().unwrap_or_default(); // a node's clock may be ahead
        self.lag.observe(lag.as_secs_f64());
    }
}
