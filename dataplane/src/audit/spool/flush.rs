//! From the queue of a lane to its segment. Whoever waits for its frame first writes what waits by then: frames of calls that are ready in
//! the same turn of a worker thread leave in one `write(2)`.
//! Never decides what to do with a call whose record could not be written.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::queue::{Outcome, Queue, Waiting};
use super::writer::{Writer, Written};
use super::{Place, Spool, SpoolError, Ticket, locked};
use crate::audit::frame;

/// From so many other calls on in its lane, a call waits a turn for them. Below that, company is too rare to be worth the turn.
const CROWD: u64 = 3;

/// One of this run's lanes. The queue's lock is only held for moments, the writer's while it writes; who takes both takes the writer first.
pub(super) struct Slot {
    pub queue: Mutex<Queue>,
    pub writer: Mutex<Writer>,
    /// Calls that have begun on disk and not ended there.
    open_calls: AtomicU64,
}

impl Slot {
    pub fn new(writer: Writer) -> Self {
        Self { queue: Mutex::default(), writer: Mutex::new(writer), open_calls: AtomicU64::new(0) }
    }
}

impl Spool {
    /// Resolves when the frame is written: a killed process does not lose it any more. Dropping this leaves the frame in the queue: whoever
    /// does so sees to it with [`Spool::write_now`].
    pub async fn written(&self, ticket: &Ticket) -> Result<(), SpoolError> {
        if ticket.crowded && ticket.batch.outcome().is_none() {
            // Polled again once everything that is ready has run, and has appended what it had to.
            tokio::task::yield_now().await;
        }
        self.write_now(ticket)
    }

    /// Writes the frame, and what else waits in its lane.
    pub fn write_now(&self, ticket: &Ticket) -> Result<(), SpoolError> {
        if ticket.batch.outcome().is_none() {
            self.flush(ticket.lane);
        }
        match (ticket.batch.outcome(), ticket.place) {
            (Some(Outcome { begins: result, .. }), Place::Begins | Place::Between | Place::Gap)
            | (Some(Outcome { ends: result, .. }), Place::Ends) => {
                result.clone().map_err(|source| SpoolError::Io { dir: self.dir.clone(), source })
            }
            (None, _) => {
                // Only after a panic: a batch is in the queue, or settled before its writer is free.
                let source = Arc::new(io::Error::other("its write did not come to an end"));
                Err(SpoolError::Io { dir: self.dir.clone(), source })
            }
        }
    }

    /// The ticket of what was pushed last.
    pub(super) fn ticket(&self, lane: usize, place: Place, queue: &Queue) -> Ticket {
        let open = self.slots[lane].open_calls.load(Relaxed);
        let itself = u64::from(place == Place::Ends);
        let others = open.saturating_sub(itself) + queue.len() as u64 - 1;
        Ticket { lane, place, crowded: others >= CROWD, batch: queue.batch() }
    }

    /// Writes what waits in a lane.
    pub(super) fn flush(&self, lane: usize) {
        let slot = &self.slots[lane];
        let mut writer = locked(&slot.writer);
        self.replace_broken(&mut writer);
        let mut waiting = std::mem::take(&mut writer.spare);
        // Bound to a name, or the lock would be held while writing.
        let taken = locked(&slot.queue).take(&mut waiting);
        if let Some(batch) = taken {
            let room = self.make_room(&mut writer, &waiting);
            let fresh = writer.is_fresh();
            let written = writer.write(&waiting, &batch, room);
            slot.open_calls.store(writer.open_calls(), Relaxed);
            self.account(&mut writer, fresh, &waiting, &written);
            if written.outcome.begins.is_err() {
                self.unwritten(lane, waiting.iter(&batch));
            }
            batch.settle(written.outcome);
        }
        waiting.clear();
        writer.spare = waiting;
    }

    fn make_room(&self, writer: &mut Writer, waiting: &Waiting) -> io::Result<()> {
        writer.make_room(waiting, self.limits.segment_bytes).or_else(|error| {
            // What is acknowledged only takes up room.
            if self.forget_all_kept()
                && let Ok(()) = writer.make_room(waiting, self.limits.segment_bytes)
            {
                return Ok(());
            }
            if !writer.give_up_acknowledged() {
                return Err(error);
            }
            writer.lane().delete_acknowledged(&self.bytes);
            writer.make_room(waiting, self.limits.segment_bytes)
        })
    }

    /// Counts a batch, and gives back the room of what was not written.
    fn account(&self, writer: &mut Writer, fresh: bool, waiting: &Waiting, written: &Written) {
        if written.frames > 0 {
            if fresh {
                locked(&self.lanes).push(writer.lane());
            }
            self.counters.written.fetch_add(written.frames, Relaxed);
            self.counters.batches.fetch_add(1, Relaxed);
            self.appended.notify_one();
        }
        self.bytes.fetch_sub(waiting.bytes() - written.bytes, Relaxed);
        self.counters.uncaptured.fetch_add(written.given_up, Relaxed);
        if written.outcome.begins.is_err() || written.outcome.ends.is_err() {
            self.counters.disk_errors.fetch_add(1, Relaxed);
            self.replace_broken(writer);
        }
    }

    fn replace_broken(&self, writer: &mut Writer) {
        if writer.is_broken() {
            writer.lane().close();
            *writer = self.new_writer();
        }
    }

    /// Writes a payload again whose room is already reserved.
    pub(super) fn put_again(&self, writer: &mut Writer, payload: &[u8]) -> Result<(), SpoolError> {
        let fresh = writer.is_fresh();
        match writer.write_again(payload) {
            Ok(()) => {
                if fresh {
                    locked(&self.lanes).push(writer.lane());
                }
                self.counters.written.fetch_add(1, Relaxed);
                self.appended.notify_one();
                Ok(())
            }
            Err(source) => {
                self.bytes.fetch_sub(frame::size(payload.len()) as u64, Relaxed);
                self.counters.disk_errors.fetch_add(1, Relaxed);
                self.replace_broken(writer);
                Err(SpoolError::Io { dir: self.dir.clone(), source: Arc::new(source) })
            }
        }
    }
}
