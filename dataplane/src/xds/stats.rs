//! What discovery has been doing, for the metrics page and `/ready`. Written by the stream only.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use mcp_gateway::snapshot::Version;

/// Counters and gauges. All may be read at any time.
#[derive(Debug)]
pub struct Stats {
    /// The applied configuration; 0 and 0: none.
    pub epoch: AtomicU64,
    pub version: AtomicU64,
    /// Snapshots put in force.
    pub swaps: AtomicU64,
    /// How long the last compilation took, in microseconds.
    pub compile_us: AtomicU64,
    /// Responses refused.
    pub nacks: AtomicU64,
    /// Streams opened.
    pub streams: AtomicU64,
    /// Streams lost, or not opened.
    pub losses: AtomicU64,
    connected: AtomicBool,
    /// When the node was last in touch, in milliseconds since `start`.
    in_touch_ms: AtomicU64,
    start: Instant,
}

impl Default for Stats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            epoch: zero(),
            version: zero(),
            swaps: zero(),
            compile_us: zero(),
            nacks: zero(),
            streams: zero(),
            losses: zero(),
            connected: AtomicBool::new(false),
            in_touch_ms: zero(),
            start: Instant::now(),
        }
    }
}

impl Stats {
    /// Whether a stream is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// For how many seconds the node has had no stream: its configuration may be that old. 0 while it has one.
    #[must_use]
    pub fn stale_seconds(&self) -> u64 {
        if self.connected() { 0 } else { self.elapsed_ms().saturating_sub(self.in_touch_ms.load(Relaxed)) / 1000 }
    }

    pub(super) fn opened(&self) {
        self.streams.fetch_add(1, Relaxed);
        self.connected.store(true, Relaxed);
    }

    pub(super) fn lost(&self) {
        self.losses.fetch_add(1, Relaxed);
        if self.connected.swap(false, Relaxed) {
            self.in_touch_ms.store(self.elapsed_ms(), Relaxed);
        }
    }

    pub(super) fn swapped(&self, version: Version) {
        self.swaps.fetch_add(1, Relaxed);
        self.epoch.store(version.epoch, Relaxed);
        self.version.store(version.version, Relaxed);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
