//! What discovery has been doing, for the metrics page and `/ready`. Written by the stream only.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

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
    /// Configurations kept on disk, and those that could not be.
    pub saved: AtomicU64,
    pub save_failures: AtomicU64,
    /// Responses refused whole; one that was applied in part is not.
    pub nacks: AtomicU64,
    /// Streams opened.
    pub streams: AtomicU64,
    /// Streams lost, or not opened.
    pub losses: AtomicU64,
    connected: AtomicBool,
    /// Whether the control plane's last word is what is in force, over a stream that is open.
    confirmed: AtomicBool,
    /// Until when it was, in milliseconds since `start`; negative: before it.
    confirmed_ms: AtomicI64,
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
            saved: zero(),
            save_failures: zero(),
            nacks: zero(),
            streams: zero(),
            losses: zero(),
            connected: AtomicBool::new(false),
            confirmed: AtomicBool::new(false),
            confirmed_ms: AtomicI64::new(0),
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

    /// Whether a stream is open, and the last manifest that came over it is in force.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.load(Relaxed)
    }

    /// For how many seconds no control plane has confirmed the configuration in force, restarts included; it may be that old.
    /// 0 while one does. Before the first configuration: since the start.
    #[must_use]
    pub fn stale_seconds(&self) -> u64 {
        if self.is_confirmed() {
            return 0;
        }
        u64::try_from(self.elapsed_ms().saturating_sub(self.confirmed_ms.load(Relaxed)) / 1000).unwrap_or(0)
    }

    /// What is in force came from disk, and was confirmed last so long ago.
    pub(crate) fn restored(&self, ago: Duration) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        self.confirmed_ms.store(self.elapsed_ms().saturating_sub(ago), Relaxed);
    }

    /// A manifest was acknowledged: it is in force.
    pub(crate) fn confirmed(&self) {
        self.confirmed.store(true, Relaxed);
    }

    /// A manifest was refused, or there is no stream: what is in force may not be what should be.
    pub(crate) fn unconfirmed(&self) {
        if self.confirmed.swap(false, Relaxed) {
            self.confirmed_ms.store(self.elapsed_ms(), Relaxed);
        }
    }

    pub(super) fn opened(&self) {
        self.streams.fetch_add(1, Relaxed);
        self.connected.store(true, Relaxed);
    }

    pub(super) fn lost(&self) {
        self.losses.fetch_add(1, Relaxed);
        self.connected.store(false, Relaxed);
        self.unconfirmed();
    }

    pub(crate) fn swapped(&self, version: Version) {
        self.swaps.fetch_add(1, Relaxed);
        self.epoch.store(version.epoch, Relaxed);
        self.version.store(version.version, Relaxed);
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_counts_from_the_last_confirmation_even_across_a_restart() {
        let stats = Stats::default();
        stats.restored(Duration::from_secs(500));
        assert!(stats.stale_seconds() >= 500, "confirmed before the restart");
        stats.opened();
        assert!(stats.stale_seconds() >= 500, "an open stream alone confirms nothing");
        stats.confirmed();
        assert_eq!(stats.stale_seconds(), 0);
        stats.unconfirmed();
        assert!(!stats.is_confirmed() && stats.connected() && stats.stale_seconds() < 500, "a refusal counts from now");
        stats.confirmed();
        stats.lost();
        assert!(!stats.is_confirmed() && !stats.connected());
    }
}
