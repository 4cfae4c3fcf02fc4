//! What discovery has been doing, as Prometheus sees it: read from [`Stats`] whenever the page is asked for.
//! Owns names and types. Registered by [`crate::metrics`] under the prefix `mcpgw`.

use std::fmt::Error;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Stats;

impl Stats {
    fn counters(&self) -> [(&'static str, &'static str, &AtomicU64); 6] {
        [
            ("dataplane_config_swaps", "Configurations put in force", &self.swaps),
            ("dataplane_config_saved", "Configurations kept on disk as the last good one", &self.saved),
            ("dataplane_config_save_failures", "Configurations in force that could not be kept on disk", &self.save_failures),
            ("dataplane_discovery_streams", "Discovery streams opened", &self.streams),
            ("dataplane_discovery_lost", "Discovery streams that ended or could not be opened", &self.losses),
            ("dataplane_discovery_refused", "Responses of the control plane that were refused whole", &self.nacks),
        ]
    }
}

impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut put = |name: &str, help: &str, metric: &dyn Encode| metric.encode(&mut encoder, name, help);
        for (name, help, count) in self.counters() {
            put(name, help, &ConstCounter::new(count.load(Relaxed)))?;
        }
        let stale = "Time for which no control plane has confirmed the configuration in force";
        put("config_stale_seconds", stale, &ConstGauge::new(self.stale_seconds()))?;
        let connected = "1 while the node has a discovery stream";
        put("dataplane_discovery_connected", connected, &ConstGauge::new(u64::from(self.connected())))?;
        // As seconds; 52 bits hold more microseconds than anybody waits.
        #[allow(clippy::cast_precision_loss)] // microseconds of one compilation: far below 2^52
        let compiled = self.compile_us.load(Relaxed) as f64 / 1e6;
        put("dataplane_config_compile_seconds", "How long the last compilation took", &ConstGauge::new(compiled))
    }
}

/// A metric without labels.
trait Encode {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> Result<(), Error>;
}

impl<M: EncodeMetric> Encode for M {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> Result<(), Error> {
        EncodeMetric::encode(self, encoder.encode_descriptor(name, help, None, self.metric_type())?)
    }
}
