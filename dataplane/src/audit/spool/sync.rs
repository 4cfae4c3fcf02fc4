//! Brings written frames to the disk, for those whose organisation wants to wait for that: one `fdatasync(2)` for everybody who waits for a
//! segment by the time it begins. On a thread of its own, because a disk takes its time; the thread starts with the first who waits.
//!
//! A segment whose sync failed is given up: what the kernel did with its pages nobody can say, so that a later success would prove nothing.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Spool, SpoolError, Ticket};

/// Frames that wait for the disk at a time; more wait for their turn to wait.
const WAITING: usize = 1024;
/// A disk that takes longer fails the calls that wait for it.
const DEADLINE: Duration = Duration::from_secs(5);

/// A segment's file, as long as somebody writes it or waits for it.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub file: File,
    /// What has to be on the disk for the file to be found after a power cut: its directory, and those around it.
    directories: Vec<PathBuf>,
    found: AtomicBool,
    failed: AtomicBool,
}

/// Somebody who waits.
struct Waiter {
    segment: Arc<SegmentFile>,
    done: oneshot::Sender<Result<(), Arc<io::Error>>>,
}

/// The thread's mailbox.
#[derive(Default)]
pub(super) struct Syncer {
    waiters: OnceLock<Result<mpsc::Sender<Waiter>, Arc<io::Error>>>,
    /// How often a segment was synced.
    pub syncs: Arc<AtomicU64>,
}

impl SegmentFile {
    pub fn new(file: File, directories: Vec<PathBuf>) -> Self {
        Self { file, directories, found: AtomicBool::new(false), failed: AtomicBool::new(false) }
    }

    /// Whether a sync failed: nothing that is written here can be relied on.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    fn sync(&self) -> io::Result<()> {
        if self.has_failed() {
            return Err(io::Error::other("an earlier sync of this segment failed"));
        }
        let synced = self.sync_directories().and_then(|()| self.file.sync_data());
        if synced.is_err() {
            self.failed.store(true, Release);
        }
        synced
    }

    fn sync_directories(&self) -> io::Result<()> {
        if !self.found.load(Relaxed) {
            self.directories.iter().try_for_each(|directory| File::open(directory)?.sync_all())?;
            self.found.store(true, Relaxed);
        }
        Ok(())
    }
}

impl Spool {
    /// Resolves when these frames, of one call, are on the disk: they outlive the machine's power. They are written first, as
    /// [`Spool::written`] does it.
    pub async fn synced(&self, tickets: &[&Ticket]) -> Result<(), SpoolError> {
        let mut segments: Vec<Arc<SegmentFile>> = Vec::new();
        for ticket in tickets {
            self.written(ticket).await?;
            let segment = ticket.batch.outcome().and_then(|outcome| outcome.segment.clone());
            segments.extend(segment.filter(|segment| !segments.iter().any(|known| Arc::ptr_eq(known, segment))));
        }
        for segment in segments {
            self.syncer.sync(segment).await.map_err(|source| {
                self.counters.disk_errors.fetch_add(1, Relaxed);
                SpoolError::Io { dir: self.dir.clone(), source }
            })?;
        }
        Ok(())
    }
}

impl Syncer {
    async fn sync(&self, segment: Arc<SegmentFile>) -> Result<(), Arc<io::Error>> {
        let gone = || Arc::new(io::Error::other("the thread that syncs the spool has ended"));
        let waiters = self.waiters.get_or_init(|| start(self.syncs.clone()).map_err(Arc::new)).clone()?;
        let (done, outcome) = oneshot::channel();
        let waited = async {
            waiters.send(Waiter { segment, done }).await.map_err(|_closed| gone())?;
            outcome.await.map_err(|_closed| gone())?
        };
        let late =
            |_| Arc::new(io::Error::new(io::ErrorKind::TimedOut, format!("the disk took more than {} s", DEADLINE.as_secs())));
        tokio::time::timeout(DEADLINE, waited).await.map_err(late)?
    }
}

fn start(syncs: Arc<AtomicU64>) -> io::Result<mpsc::Sender<Waiter>> {
    let (waiters, queue) = mpsc::channel(WAITING);
    std::thread::Builder::new().name("spool-sync".into()).spawn(move || serve(queue, &syncs))?;
    Ok(waiters)
}

/// Ends with the spool.
fn serve(mut queue: mpsc::Receiver<Waiter>, syncs: &AtomicU64) {
    let mut round = Vec::new();
    while queue.blocking_recv_many(&mut round, WAITING) > 0 {
        while let Some(Waiter { segment, .. }) = round.first() {
            let segment = segment.clone();
            let outcome = segment.sync().map_err(Arc::new);
            syncs.fetch_add(1, Relaxed);
            for waiter in round.extract_if(.., |waiter| Arc::ptr_eq(&waiter.segment, &segment)) {
                let _gone = waiter.done.send(outcome.clone()); // who went away does not wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_segment_at_the_same_time_shares_one_sync() {
        let directory = tempfile::tempdir().unwrap();
        let segment = |name: &str| {
            let file = File::create(directory.path().join(name)).unwrap();
            Arc::new(SegmentFile::new(file, vec![directory.path().to_owned()]))
        };
        let segments = [segment("a"), segment("b")];
        let (waiters, queue) = mpsc::channel(WAITING);
        let mut outcomes = Vec::new();
        for number in 0..10 {
            let (done, outcome) = oneshot::channel();
            let waiter = Waiter { segment: segments[number % 2].clone(), done };
            waiters.try_send(waiter).unwrap_or_else(|_| panic!("there is room"));
            outcomes.push(outcome);
        }
        drop(waiters);
        let syncs = AtomicU64::new(0);
        serve(queue, &syncs);
        assert_eq!(syncs.load(Relaxed), 2);
        assert!(outcomes.into_iter().all(|mut outcome| outcome.try_recv().unwrap().is_ok()));
    }

    #[test]
    fn a_segment_whose_sync_failed_is_not_relied_on_any_more() {
        // A device has no disk to be brought to.
        let segment = SegmentFile::new(File::open("/dev/null").unwrap(), Vec::new());
        assert!(segment.sync().is_err() && segment.has_failed());
        assert!(segment.sync().unwrap_err().to_string().contains("earlier"));
        let nowhere = SegmentFile::new(tempfile::tempfile().unwrap(), vec!["/no/such/directory".into()]);
        assert!(nowhere.sync().is_err() && nowhere.has_failed(), "a file that nobody finds is not there");
    }
}
