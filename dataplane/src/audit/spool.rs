//! The append-only spool: every frame is in the page cache before its answer goes on, so it survives SIGKILL. What is ready together is
//! written together.
//! Owns lanes, limits and recovery. Never talks to the network, never drops a frame silently. The pipeline appends, [`super::ship`] reads and acknowledges.

mod event;
mod flush;
mod keep;
mod lane;
mod queue;
mod read;
mod recover;
mod retire;
mod salvage;
mod scarce;
mod sync;
mod writer;

use std::cell::Cell;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use mcp_gateway::proto::node::v1::{AuditClass, Captured, Decided, Ended};
use tokio::sync::Notify;
use uuid::Uuid;

pub(crate) use lane::{Lane, LaneId};
pub(crate) use read::{ReadError, Reader};

use super::frame;
use flush::Slot;
use queue::{Batch, Queue};
use scarce::ALERT_PERCENT;
use sync::Syncer;
use writer::Writer;

/// How much a record matters when room is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Authentication outcomes and tool calls: refused only when the spool is full.
    Audit,
    /// Everything else: refused first.
    Access,
}

/// A frame on its way to the disk: [`Spool::written`] says when it is there.
#[derive(Debug, Clone)]
pub struct Ticket {
    lane: usize,
    place: Place,
    /// Others are about to append too: waiting for them saves writes.
    crowded: bool,
    batch: Arc<Batch>,
}

/// A call's first frame, and where it goes: its second frame goes there too.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// As stamped, in microseconds since the Unix epoch.
    decided_at_us: i64,
    pub ticket: Ticket,
}

/// How large the spool may become. All sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Everything on disk that is not yet acknowledged, all boots and lanes together.
    pub max_bytes: u64,
    /// When a lane goes on to a new segment.
    pub segment_bytes: u64,
}

/// Why a frame was not written. The call's answer must not claim that it was.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Only class access: room is kept for class audit.
    #[error(
        "the audit spool is more than {ALERT_PERCENT} % full; not every access record is kept until the control plane takes some"
    )]
    Shed,
    #[error("the audit spool is full ({max_bytes} bytes); it empties when the control plane takes records again")]
    Full { max_bytes: u64 },
    #[error("the record has {bytes} bytes; at most {max} fit a frame", max = frame::MAX_PAYLOAD)]
    TooLarge { bytes: usize },
    #[error("writing the audit spool in {}: {source}", dir.display())]
    Io { dir: PathBuf, source: Arc<io::Error> },
}

/// Why the spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the audit spool {} is in use by another process; give each node its own state directory", dir.display())]
    InUse { dir: PathBuf },
    #[error("the audit spool {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// What waits for the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Frames without an acknowledgement.
    pub frames: u64,
    /// Age of the oldest of them in milliseconds.
    pub oldest_ms: u64,
    /// Bytes on disk, acknowledged frames of open segments included.
    pub bytes: u64,
}

/// Monotonic counters for the metrics page.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames written.
    pub written: AtomicU64,
    /// Batches of them: a write each.
    pub batches: AtomicU64,
    /// Frames acknowledged.
    pub acked: AtomicU64,
    /// Access records left out because room was scarce.
    pub shed: AtomicU64,
    /// Frames refused because the spool was full.
    pub full: AtomicU64,
    /// Writes that the disk refused.
    pub disk_errors: AtomicU64,
    /// Segments set aside because their content was damaged.
    pub quarantined: AtomicU64,
    /// Frames that could not be read back.
    pub lost: AtomicU64,
    /// Captured arguments and results that there was no room for.
    pub uncaptured: AtomicU64,
}

/// Which frame of its call a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The first: room is kept for the last.
    Begins,
    /// Between them, and not needed by them: given up where room is scarce.
    Between,
    Ends,
    /// Of none: it says that records are missing.
    Gap,
}

/// The spool of one node. Shared by all request threads; dropping it releases the directory.
pub struct Spool {
    dir: PathBuf,
    boot: Uuid,
    limits: Limits,
    /// This run's lanes; a thread always uses the same one.
    slots: Vec<Slot>,
    next_lane: AtomicUsize,
    /// Every lane with something to ship, earlier runs first.
    lanes: Mutex<Vec<Arc<Lane>>>,
    bytes: AtomicU64,
    /// Bytes of segments that hold only what is acknowledged; in addition.
    kept: AtomicU64,
    alerted: AtomicBool,
    /// Access records since room became scarce: of so many one is kept.
    sampled: AtomicU64,
    counters: Counters,
    syncer: Syncer,
    appended: Notify,
    acked: Notify,
    _lock: File,
}

impl Class {
    /// As a record says of itself.
    fn of(decided: &Decided) -> Self {
        match decided.class() {
            AuditClass::Audit => Self::Audit,
            AuditClass::Unspecified | AuditClass::Access => Self::Access,
        }
    }
}

impl From<Class> for AuditClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Audit => Self::Audit,
            Class::Access => Self::Access,
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What was left out is on record before the process ends.
        self.say_gaps(false);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 8 << 30, segment_bytes: 16 << 20 }
    }
}

impl Spool {
    /// Opens `dir`, cuts torn tails of earlier runs and takes over what they did not ship. `boot` is new at every start of the process.
    pub fn open(dir: &Path, boot: Uuid, lanes: usize, limits: Limits) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(io(dir))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path: lock_path, source }),
        }
        // Acknowledged frames stay until their segment ends; segments are small enough that this never fills the spool.
        let share = limits.max_bytes / (4 * lanes.max(1) as u64);
        let limits = Limits { segment_bytes: limits.segment_bytes.min(share), ..limits };
        let bytes = AtomicU64::new(0);
        let earlier = recover::earlier_runs(dir, &bytes).map_err(|(path, source)| OpenError::Io { path, source })?;
        let mut spool = Self {
            dir: dir.to_owned(),
            boot,
            limits,
            slots: Vec::new(),
            next_lane: AtomicUsize::new(0),
            lanes: Mutex::new(earlier),
            bytes,
            kept: AtomicU64::new(0),
            alerted: AtomicBool::new(false),
            sampled: AtomicU64::new(0),
            counters: Counters::default(),
            syncer: Syncer::default(),
            appended: Notify::new(),
            acked: Notify::new(),
            _lock: lock,
        };
        spool.slots = (0..lanes.max(1)).map(|_| Slot::new(spool.new_writer())).collect();
        Ok(spool)
    }

    /// Stamps `decided_at_us` (it never goes back within a lane) and queues the frame. Refuses at once what there is no room for; whether
    /// the frame is on disk, [`Spool::written`] says.
    pub fn append_decided(&self, class: Class, decided: &mut Decided) -> Result<Recorded, SpoolError> {
        let lane = lane_of_this_thread(self.slots.len());
        let mut queue = locked(&self.slots[lane].queue);
        decided.decided_at_us = queue.stamp();
        match self.begin(&mut queue, class, decided) {
            Ok(()) => Ok(Recorded { decided_at_us: decided.decided_at_us, ticket: self.ticket(lane, Place::Begins, &queue) }),
            Err(error) => {
                let said = self.omit(&mut queue, class, decided);
                drop(queue);
                if said {
                    // Nobody waits for it.
                    self.flush(lane);
                }
                Err(error)
            }
        }
    }

    fn begin(&self, queue: &mut Queue, class: Class, decided: &Decided) -> Result<(), SpoolError> {
        if !self.keeps(class) {
            self.counters.shed.fetch_add(1, Relaxed);
            return Err(SpoolError::Shed);
        }
        // In the order of what happened.
        self.say_due(queue);
        let size = queue.push(Place::Begins, None, |payload| event::decided(decided, payload));
        self.admit(queue, class, size)
    }

    /// Queues the second frame of a call in the lane of the first, whichever thread ends it: the end never overtakes the beginning.
    /// It counts as class audit whatever the call is: half a call is worse than none.
    pub fn append_ended(&self, recorded: &Recorded, ended: &mut Ended) -> Result<Ticket, SpoolError> {
        ended.decided_at_us = recorded.decided_at_us;
        let (lane, begun) = (recorded.ticket.lane, &recorded.ticket.batch);
        let mut queue = locked(&self.slots[lane].queue);
        let size = queue.push(Place::Ends, Some(begun), |payload| event::ended(ended, payload));
        self.admit(&mut queue, Class::Audit, size)?;
        Ok(self.ticket(lane, Place::Ends, &queue))
    }

    /// Queues what is kept of a call beside its record, in the lane of its first frame. Given up, and counted, where room is scarce: the
    /// call goes on. It is written with the frame that comes after it.
    pub fn append_captured(&self, recorded: &Recorded, captured: &mut Captured) {
        captured.decided_at_us = recorded.decided_at_us;
        let mut queue = locked(&self.slots[recorded.ticket.lane].queue);
        let size = queue.push(Place::Between, Some(&recorded.ticket.batch), |payload| event::captured(captured, payload));
        if self.admit(&mut queue, Class::Access, size).is_err() {
            self.counters.uncaptured.fetch_add(1, Relaxed);
        }
    }

    /// How often segments were brought to the disk.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncer.syncs.load(Relaxed)
    }

    /// What waits for the control plane.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let lanes = self.lanes();
        let oldest = lanes.iter().filter_map(|lane| lane.oldest_us()).min();
        Backlog {
            frames: lanes.iter().map(|lane| lane.pending()).sum(),
            oldest_ms: oldest.map_or(0, |at| u64::try_from((lane::wall_clock_us() - at) / 1000).unwrap_or(0)),
            bytes: self.bytes.load(Relaxed),
        }
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The run that this spool writes for.
    #[must_use]
    pub fn boot(&self) -> Uuid {
        self.boot
    }

    /// Resolves when every frame is acknowledged; a process that stops gives this a moment, and a deadline.
    pub async fn drained(&self) {
        loop {
            let acked = self.acked.notified();
            if self.lanes().iter().all(|lane| lane.pending() == 0) {
                return;
            }
            acked.await;
        }
    }

    /// Resolves after an append; one append may stand for many.
    pub(crate) async fn appended(&self) {
        self.appended.notified().await;
    }

    /// Every lane that may have something to ship.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        locked(&self.lanes).clone()
    }

    /// Takes note that everything of a lane up to `seq` is committed. What is no longer needed is deleted a while later.
    pub(crate) fn acknowledge(&self, lane: &Arc<Lane>, seq: u64, next_at_us: Option<i64>) {
        let (frames, bytes) = lane.acknowledge(seq, next_at_us);
        self.counters.acked.fetch_add(frames, Relaxed);
        self.keep(bytes);
        self.forget_kept();
        self.acked.notify_waiters();
        self.say_gaps(true);
        if self.percent_full() < ALERT_PERCENT && self.alerted.swap(false, Relaxed) {
            tracing::info!(spool.bytes = self.bytes.load(Relaxed), "the audit spool has room again");
        }
    }

    /// Lets go of a lane of which nothing is left on disk.
    fn drop_finished(&self, lane: &Arc<Lane>) {
        if lane.is_finished() {
            lane.remove_directory();
            locked(&self.lanes).retain(|kept| !Arc::ptr_eq(kept, lane));
        }
    }

    /// Reserves room for the payload that was pushed last, or takes it back.
    fn admit(&self, queue: &mut Queue, class: Class, bytes: usize) -> Result<(), SpoolError> {
        let admitted = match bytes {
            0..=frame::MAX_PAYLOAD => self.reserve(class, frame::size(bytes) as u64),
            _ => Err(SpoolError::TooLarge { bytes }),
        };
        admitted.inspect_err(|_refused| queue.pop())
    }

    fn reserve(&self, class: Class, size: u64) -> Result<(), SpoolError> {
        let max_bytes = self.limits.max_bytes;
        let room = match class {
            Class::Audit => max_bytes,
            Class::Access => max_bytes / 100 * scarce::ACCESS_PERCENT,
        };
        // Reserved before it is compared: lanes append at the same time and must not exceed the bound together.
        let after = self.bytes.fetch_add(size, Relaxed) + size;
        if after > max_bytes / 100 * ALERT_PERCENT && !self.alerted.swap(true, Relaxed) {
            tracing::warn!(
                spool.bytes = after,
                spool.max_bytes = max_bytes,
                "the audit spool is more than {ALERT_PERCENT} % full"
            );
        }
        if after <= room {
            return Ok(());
        }
        self.bytes.fetch_sub(size, Relaxed);
        match class {
            Class::Access => {
                self.counters.shed.fetch_add(1, Relaxed);
                Err(SpoolError::Shed)
            }
            Class::Audit => {
                self.counters.full.fetch_add(1, Relaxed);
                Err(SpoolError::Full { max_bytes })
            }
        }
    }

    fn percent_full(&self) -> u64 {
        self.bytes.load(Relaxed) / (self.limits.max_bytes / 100).max(1)
    }

    fn new_writer(&self) -> Writer {
        let number = u32::try_from(self.next_lane.fetch_add(1, Relaxed)).expect("lanes are few");
        Writer::new(&self.dir, LaneId { boot: self.boot, number })
    }
}

/// Threads are dealt out to lanes in the order of their first append.
fn lane_of_this_thread(lanes: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<Option<usize>> = const { Cell::new(None) });
    let thread = MINE.get().unwrap_or_else(|| {
        let next = NEXT.fetch_add(1, Relaxed);
        MINE.set(Some(next));
        next
    });
    thread % lanes
}

/// A panic elsewhere leaves these structures whole, so the lock is good.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
