//! One lane: its segments on disk, and how far they are written and acknowledged.
//! Frames of a lane are consecutive and chained. Neither writes nor reads frames: the writer and the reader do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::keep::{self, Kept};
use super::locked;

/// Names a lane for the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId {
    pub boot: Uuid,
    pub number: u32,
}

/// A lane as writer, reader and shipper share it.
pub(crate) struct Lane {
    pub id: LaneId,
    dir: PathBuf,
    /// First sequence number to path, in order.
    segments: Mutex<BTreeMap<u64, PathBuf>>,
    /// Everything up to here is wholly on disk.
    written: AtomicU64,
    acked: AtomicU64,
    /// When something became acknowledged last, microseconds since the Unix epoch; 0: never in this run.
    acked_us: AtomicI64,
    /// Segments, of those above, that are only kept for a control plane that forgets; oldest first.
    kept: Mutex<Vec<Kept>>,
    /// When the oldest unacknowledged frame was written, microseconds since the Unix epoch; 0: there is none or nobody knows.
    oldest_us: AtomicI64,
    /// Whether a writer may still extend it.
    live: AtomicBool,
}

impl Lane {
    /// A lane of this run, with nothing in it.
    pub(super) fn new(spool: &Path, id: LaneId) -> Self {
        Self {
            id,
            dir: spool.join(id.boot.to_string()).join(format!("{:04}", id.number)),
            segments: Mutex::default(),
            written: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            acked_us: AtomicI64::new(0),
            kept: Mutex::default(),
            oldest_us: AtomicI64::new(0),
            live: AtomicBool::new(true),
        }
    }

    /// A lane of an earlier run, as found on disk. `acked` is the number before its first frame.
    pub(super) fn found(id: LaneId, dir: PathBuf, segments: BTreeMap<u64, PathBuf>, written: u64) -> Self {
        let acked = segments.keys().next().map_or(written, |first| first - 1);
        Self {
            id,
            dir,
            segments: Mutex::new(segments),
            written: AtomicU64::new(written),
            acked: AtomicU64::new(acked),
            acked_us: AtomicI64::new(0),
            kept: Mutex::default(),
            oldest_us: AtomicI64::new(0),
            live: AtomicBool::new(false),
        }
    }

    /// The last sequence number on disk.
    pub fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    /// The last sequence number known to be committed.
    pub fn acked(&self) -> u64 {
        self.acked.load(Acquire)
    }

    pub fn is_live(&self) -> bool {
        self.live.load(Acquire)
    }

    /// Frames without an acknowledgement.
    pub fn pending(&self) -> u64 {
        self.written().saturating_sub(self.acked())
    }

    pub fn oldest_us(&self) -> Option<i64> {
        let at = self.oldest_us.load(Relaxed);
        (at > 0 && self.pending() > 0).then_some(at)
    }

    /// The segment that holds `seq`, if it is on disk: its first sequence number and path.
    pub fn segment_of(&self, seq: u64) -> Option<(u64, PathBuf)> {
        let segments = locked(&self.segments);
        segments.range(..=seq).next_back().map(|(first, path)| (*first, path.clone()))
    }

    /// Paths of all segments, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        locked(&self.segments).values().cloned().collect()
    }

    /// The last sequence number of the oldest segment, if no writer will extend it any more.
    pub fn end_of_oldest_segment(&self) -> Option<u64> {
        let segments = locked(&self.segments);
        let mut firsts = segments.keys();
        firsts.next()?;
        match firsts.next() {
            Some(next) => Some(next - 1),
            None => (!self.is_live()).then(|| self.written()),
        }
    }

    /// No writer will extend the lane any more.
    pub fn close(&self) {
        self.live.store(false, Release);
    }

    pub fn is_finished(&self) -> bool {
        !self.is_live() && locked(&self.segments).is_empty()
    }

    /// Returns how many frames became acknowledged, and how many bytes of segments hold nothing else: those are kept for a while.
    pub(super) fn acknowledge(&self, seq: u64, next_at_us: Option<i64>) -> (u64, u64) {
        let (seq, written) = (seq.min(self.written()), self.written());
        let before = self.acked.fetch_max(seq, Release);
        if seq > before {
            self.oldest_us.store(next_at_us.unwrap_or(0), Relaxed);
            self.acked_us.store(wall_clock_us(), Relaxed);
        }
        let segments = locked(&self.segments);
        let mut kept = locked(&self.kept);
        let known = kept.last().map_or(0, |kept| kept.last);
        let mut bytes = 0;
        let mut firsts = segments.iter().filter(|(first, _)| **first > known).peekable();
        while let Some((first, path)) = firsts.next() {
            // A segment is done when the next one begins at or before the first number still needed.
            let last = match firsts.peek() {
                Some((next, _)) => *next - 1,
                None if self.is_live() => break,
                None => written,
            };
            if last > seq {
                break;
            }
            let size = keep::size(path);
            bytes += size;
            kept.push(Kept { first: *first, last, since: Instant::now(), bytes: size, path: path.clone() });
        }
        (seq.saturating_sub(before), bytes)
    }

    /// Goes back to `seq`: what is behind it counts as never acknowledged. The segments that are needed again.
    pub(super) fn rewind(&self, seq: u64) -> Vec<Kept> {
        let mut kept = locked(&self.kept);
        self.acked.fetch_min(seq, Release);
        let needed = kept.partition_point(|kept| kept.last <= seq);
        kept.split_off(needed)
    }

    /// Keeps nothing any more.
    pub(super) fn unkeep(&self) -> Vec<Kept> {
        std::mem::take(&mut *locked(&self.kept))
    }

    /// Forgets the oldest kept segment if `is_due`; its file is the caller's to delete.
    pub(super) fn forget(&self, is_due: impl Fn(&Kept) -> bool) -> Option<Kept> {
        let mut segments = locked(&self.segments);
        let mut kept = locked(&self.kept);
        if !kept.first().is_some_and(is_due) {
            return None;
        }
        let oldest = kept.remove(0);
        segments.remove(&oldest.first);
        Some(oldest)
    }

    /// Whether something was acknowledged so recently that a control plane could have lost it since.
    pub fn may_be_forgotten(&self) -> bool {
        keep::is_recent(self.acked_us.load(Relaxed))
    }

    /// Deletes all segments: everything in them is acknowledged, and nobody extends them any more.
    pub(super) fn delete_acknowledged(&self, bytes: &AtomicU64) {
        for path in std::mem::take(&mut *locked(&self.segments)).into_values() {
            delete(&path, bytes);
        }
    }

    /// Where its segments lie.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A segment has been created.
    pub(super) fn created(&self, first_seq: u64, path: PathBuf) {
        locked(&self.segments).insert(first_seq, path);
    }

    /// Everything up to `seq` is wholly on disk.
    pub(super) fn extended(&self, seq: u64) {
        if self.pending() == 0 {
            self.oldest_us.store(wall_clock_us(), Relaxed);
        }
        self.written.store(seq, Release);
    }

    /// Takes back a segment that has got no frame.
    pub(super) fn uncreate(&self, first_seq: u64) {
        if let Some(path) = locked(&self.segments).remove(&first_seq) {
            let _ = fs::remove_file(path); // it may not even have been made
        }
    }

    /// Gives up the lane's files: the caller has moved what they hold.
    pub(super) fn give_up(&self) -> BTreeMap<u64, PathBuf> {
        self.close();
        self.acked.fetch_max(self.written(), Release);
        std::mem::take(&mut *locked(&self.segments))
    }

    /// Removes the directories if nothing is left in them.
    pub(super) fn remove_directory(&self) {
        // Not empty or already gone: both are fine, the directory is only tidiness.
        let _ = fs::remove_dir(&self.dir);
        if let Some(boot) = self.dir.parent() {
            let _ = fs::remove_dir(boot);
        }
    }
}

/// `00000000000000000001.seg`: sorts like the sequence numbers.
pub(super) fn segment_name(first_seq: u64) -> String {
    format!("{first_seq:020}.seg")
}

/// The first sequence number of a segment by its file name.
pub(super) fn first_seq(path: &Path) -> Option<u64> {
    let number = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    (number.len() == 20).then(|| number.parse().ok()).flatten().filter(|first| *first > 0)
}

pub(super) fn delete(path: &Path, bytes: &AtomicU64) {
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    match fs::remove_file(path) {
        Ok(()) => {
            bytes.fetch_sub(size.min(bytes.load(Relaxed)), Relaxed);
        }
        Err(error) => tracing::warn!(%error, path = %path.display(), "an acknowledged audit segment could not be deleted"),
    }
}

pub(super) fn wall_clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
