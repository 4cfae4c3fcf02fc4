//! What is acknowledged stays on disk for a while: a database that fails over may come back without its last seconds, and then its control
//! plane asks for them again. Owns how long and how much. The room that kept segments take is given up first when room is scarce.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Lane, Spool, lane};

/// How long a segment stays after all of it was acknowledged.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(600);
/// Of the spool's bound, at most: an eighth of it, beside what is not acknowledged.
const SHARE: u64 = 8;
/// From here on nothing is kept.
const SCARCE_PERCENT: u64 = 75;

/// A segment that only holds acknowledged frames.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its first sequence number, and its last.
    pub first: u64,
    pub last: u64,
    pub since: Instant,
    pub bytes: u64,
    pub path: PathBuf,
}

impl Spool {
    /// Takes note that a control plane knows less of a lane than it acknowledged: what is behind `seq` is to be shipped again.
    pub(crate) fn rewind(&self, lane: &Arc<Lane>, seq: u64) {
        let again = lane.rewind(seq);
        self.count_again(&again);
        self.appended.notify_one();
    }

    /// Keeps nothing of a lane that is given up; its files are the caller's to delete.
    pub(super) fn unkeep(&self, lane: &Lane) {
        self.count_again(&lane.unkeep());
    }

    fn count_again(&self, kept: &[Kept]) {
        let bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        self.kept.fetch_sub(bytes.min(self.kept.load(Relaxed)), Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Takes note of segments that became acknowledged: they no longer count as waiting.
    pub(super) fn keep(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Relaxed);
        self.bytes.fetch_sub(bytes.min(self.bytes.load(Relaxed)), Relaxed);
    }

    /// Deletes what was kept long enough, and the oldest of what is too much. Asked for whenever something is acknowledged, and now and then.
    pub(crate) fn forget_kept(&self) {
        let most = if self.percent_full() >= SCARCE_PERCENT { 0 } else { self.limits.max_bytes / SHARE };
        self.forget_kept_beyond(most, KEPT_FOR);
    }

    /// Deletes everything that is kept: whether there was anything.
    pub(crate) fn forget_all_kept(&self) -> bool {
        self.forget_kept_beyond(0, Duration::ZERO)
    }

    pub(super) fn forget_kept_beyond(&self, most: u64, kept_for: Duration) -> bool {
        let mut forgot = false;
        for lane in self.lanes() {
            while let Some(kept) = lane.forget(|kept| kept.since.elapsed() >= kept_for || self.kept.load(Relaxed) > most) {
                self.kept.fetch_sub(kept.bytes.min(self.kept.load(Relaxed)), Relaxed);
                if let Err(error) = fs::remove_file(&kept.path) {
                    tracing::warn!(%error, path = %kept.path.display(), "an acknowledged audit segment could not be deleted");
                }
                forgot = true;
            }
            self.drop_finished(&lane);
        }
        forgot
    }
}

/// The size of a file; nothing if it is gone.
pub(super) fn size(path: &std::path::Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Whether a moment of the wall clock is within the time that segments are kept.
pub(super) fn is_recent(at_us: i64) -> bool {
    let age = lane::wall_clock_us().saturating_sub(at_us);
    at_us > 0 && u128::from(age.unsigned_abs()) < KEPT_FOR.as_micros()
}
