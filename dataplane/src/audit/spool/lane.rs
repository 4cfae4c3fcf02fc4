//! One lane: its segments on disk, how far they are written and acknowledged, and the writer that extends them.
//! Frames of a lane are consecutive and chained. Never reads frames: the reader does.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use uuid::Uuid;

use super::locked;
use crate::audit::frame::{self, Chain};

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
    /// When the oldest unacknowledged frame was written, microseconds since the Unix epoch; 0: there is none or nobody knows.
    oldest_us: AtomicI64,
    /// Whether a writer may still extend it.
    live: AtomicBool,
}

/// Extends one lane. Frames are encoded into the buffer and leave in one write: later several per wake-up, now one.
pub(super) struct Writer {
    lane: Arc<Lane>,
    segment: Option<Segment>,
    next_seq: u64,
    chain: Chain,
    buffer: Vec<u8>,
    /// Room for whoever encodes the next payload.
    pub payload: Vec<u8>,
    last_stamp_us: i64,
    broken: bool,
    /// Calls whose end is still to come.
    open_calls: u64,
}

struct Segment {
    file: File,
    length: u64,
    /// Up to here the file system has promised room.
    promised: u64,
}

/// What is kept free for the end of each call that has begun: a full disk refuses new calls and still takes the ends of those it let in.
const END_BYTES: u64 = 4 << 10;
/// How much room is asked for at a time, where there is as much.
const PROMISE_BYTES: u64 = 256 << 10;

impl Lane {
    /// A lane of an earlier run, as found on disk. `acked` is the number before its first frame.
    pub(super) fn found(id: LaneId, dir: PathBuf, segments: BTreeMap<u64, PathBuf>, written: u64) -> Self {
        let acked = segments.keys().next().map_or(written, |first| first - 1);
        Self {
            id,
            dir,
            segments: Mutex::new(segments),
            written: AtomicU64::new(written),
            acked: AtomicU64::new(acked),
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

    /// Returns how many frames became acknowledged; deletes segments that hold nothing else.
    pub(super) fn acknowledge(&self, seq: u64, next_at_us: Option<i64>, bytes: &AtomicU64) -> u64 {
        let seq = seq.min(self.written());
        let before = self.acked.fetch_max(seq, Release);
        self.oldest_us.store(next_at_us.unwrap_or(0), Relaxed);
        let done = {
            let mut segments = locked(&self.segments);
            let firsts: Vec<u64> = segments.keys().copied().collect();
            // A segment is done when the next one begins at or before the first number still needed.
            let mut done: Vec<u64> = firsts.windows(2).filter(|pair| pair[1] <= seq + 1).map(|pair| pair[0]).collect();
            if !self.is_live() && seq >= self.written() {
                done = firsts;
            }
            done.into_iter().filter_map(|first| segments.remove(&first)).collect::<Vec<_>>()
        };
        for path in done {
            delete(&path, bytes);
        }
        seq.saturating_sub(before)
    }

    /// Deletes all segments: everything in them is acknowledged, and nobody extends them any more.
    pub(super) fn delete_acknowledged(&self, bytes: &AtomicU64) {
        for path in std::mem::take(&mut *locked(&self.segments)).into_values() {
            delete(&path, bytes);
        }
    }

    /// Takes back a segment that has got no frame.
    fn uncreate(&self, first_seq: u64) {
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

impl Writer {
    /// Touches the disk only at the first append.
    pub(super) fn new(spool: &Path, id: LaneId) -> Self {
        let dir = spool.join(id.boot.to_string()).join(format!("{:04}", id.number));
        let lane = Lane {
            id,
            dir,
            segments: Mutex::default(),
            written: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            oldest_us: AtomicI64::new(0),
            live: AtomicBool::new(true),
        };
        Self {
            lane: Arc::new(lane),
            segment: None,
            next_seq: 1,
            chain: [0; 32],
            buffer: Vec::new(),
            payload: Vec::new(),
            last_stamp_us: 0,
            broken: false,
            open_calls: 0,
        }
    }

    pub(super) fn lane(&self) -> Arc<Lane> {
        Arc::clone(&self.lane)
    }

    /// Whether nothing has been written yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.next_seq == 1
    }

    /// Whether a failed write could not be undone: the lane must not be extended.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Now, in microseconds since the Unix epoch, but never before an earlier stamp of this lane.
    pub(super) fn stamp(&mut self) -> i64 {
        self.last_stamp_us = self.last_stamp_us.max(wall_clock_us());
        self.last_stamp_us
    }

    /// The first frame of a call, for whose last one room is kept.
    pub(super) fn begin(&mut self, payload: &[u8], segment_bytes: u64) -> io::Result<()> {
        let ends = (self.open_calls + 1) * END_BYTES;
        let size = frame::size(payload.len()) as u64 + ends;
        match self.segment.take_if(|segment| segment.length >= segment_bytes) {
            Some(full) => {
                // While there is no room for another segment, ends go on where room is kept for them.
                let next = Self::create(&self.lane, self.next_seq).and_then(|mut next| next.keep_room(size).map(|()| next));
                match next {
                    Ok(next) => {
                        full.release();
                        self.segment = Some(next);
                    }
                    Err(error) => {
                        self.lane.uncreate(self.next_seq);
                        self.segment = Some(full);
                        return Err(error);
                    }
                }
            }
            None => self.segment()?.keep_room(size)?,
        }
        self.append(payload)?;
        self.open_calls += 1;
        Ok(())
    }

    /// The last frame of a call that [`Writer::begin`] began.
    pub(super) fn end(&mut self, payload: &[u8]) -> io::Result<()> {
        self.open_calls = self.open_calls.saturating_sub(1);
        self.append(payload)
    }

    /// Gives up a segment that holds nothing but what is acknowledged; whether there was one. What stays of the lane is another's business.
    pub(super) fn give_up_acknowledged(&mut self) -> bool {
        let idle = self.open_calls == 0 && self.lane.pending() == 0;
        let given_up = self.segment.take_if(|_| idle);
        // Whoever ships still has it open: deleting it alone would free nothing.
        given_up.is_some_and(|segment| segment.file.set_len(0).is_ok())
    }

    fn segment(&mut self) -> io::Result<&mut Segment> {
        match &mut self.segment {
            Some(segment) => Ok(segment),
            none => Ok(none.insert(Self::create(&self.lane, self.next_seq)?)),
        }
    }

    /// One frame, one write. On an error nothing of it is left on disk, or the writer is broken.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        frame::encode(self.next_seq, &self.chain, payload, &mut self.buffer);
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => none.insert(Self::create(&self.lane, self.next_seq)?),
        };
        if let Err(error) = segment.file.write_all(&self.buffer) {
            self.broken = segment.file.set_len(segment.length).is_err();
            segment.promised = segment.length; // cutting the file gave back what was promised
            return Err(error);
        }
        segment.length += self.buffer.len() as u64;
        self.chain = frame::chain(&self.chain, payload);
        if self.lane.pending() == 0 {
            self.lane.oldest_us.store(wall_clock_us(), Relaxed);
        }
        self.lane.written.store(self.next_seq, Release);
        self.next_seq += 1;
        Ok(())
    }

    fn create(lane: &Lane, first_seq: u64) -> io::Result<Segment> {
        DirBuilder::new().recursive(true).mode(0o700).create(&lane.dir)?;
        let path = lane.dir.join(segment_name(first_seq));
        // Not exclusive: an attempt that failed after creating the file left it empty.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        file.set_len(0)?;
        locked(&lane.segments).insert(first_seq, path);
        Ok(Segment { file, length: 0, promised: 0 })
    }
}

impl Segment {
    /// Makes sure that there is room for `size` more bytes.
    fn keep_room(&mut self, size: u64) -> io::Result<()> {
        let needed = self.length + size;
        if needed <= self.promised {
            return Ok(());
        }
        let promise = |until: u64| fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, until).map(|()| until);
        let ample = self.length + size.max(PROMISE_BYTES);
        self.promised = match promise(ample).or_else(|_scarce| promise(needed)) {
            Ok(until) => until,
            // A file system that promises nothing: a full one is noticed when it is written to.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => u64::MAX,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    /// Gives back what was promised and is not needed.
    fn release(self) {
        // If it fails, the room is free again when the segment is deleted.
        let _ = self.file.set_len(self.length);
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
