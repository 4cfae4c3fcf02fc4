//! What ingest counts.

use prometheus_client::metrics::counter::Counter;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub frames: Counter,
    pub repeated: Counter,
    pub gaps: Counter,
    pub unreadable: Counter,
    pub refused: Counter,
}

impl Metrics {
    pub fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self::default();
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
        });
        this
    }
}
