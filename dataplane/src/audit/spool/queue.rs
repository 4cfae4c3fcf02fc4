//! What of a lane waits to be written: payloads in the order of their arrival, and whoever wants to know when they are on disk.
//! Gives out no sequence numbers and touches no file: [`super::Spool::flush`] writes everything that waits at once.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::Place;
use super::lane::wall_clock_us;
use super::scarce::Omitted;
use super::sync::SegmentFile;
use crate::audit::frame;

/// The payloads of one lane that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Waiting,
    batch: Arc<Batch>,
    last_stamp_us: i64,
    /// What was left out of the lane.
    pub omitted: Omitted,
}

/// Payloads, one behind the other.
#[derive(Default)]
pub(super) struct Waiting {
    payloads: Vec<u8>,
    entries: Vec<Entry>,
    begins: u64,
    /// What lies between begin and end of calls.
    between: u64,
    gaps: u64,
}

/// Where one of the payloads ends, and what it is.
struct Entry {
    until: usize,
    place: Place,
    /// The batch of its call's beginning, while it is not known that it was written.
    begun: Option<Arc<Batch>>,
}

/// Payloads that are written together, and what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    outcome: OnceLock<Outcome>,
    settled: Notify,
}

/// Whether a batch is on disk. Ends may be where beginnings are not: room is kept for them.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub begins: Result<(), Arc<io::Error>>,
    pub ends: Result<(), Arc<io::Error>>,
    /// Where it is.
    pub segment: Option<Arc<SegmentFile>>,
}

/// What is known of the beginning of a payload's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is on disk, or the payload itself begins.
    Kept,
    /// It is in the same batch.
    Here,
    /// It could not be written.
    Lost,
}

/// One payload that waits.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    pub place: Place,
    pub begun: Begun,
    pub bytes: &'a [u8],
}

impl Queue {
    /// Now, in microseconds since the Unix epoch, but never before an earlier stamp of this lane.
    pub fn stamp(&mut self) -> i64 {
        self.last_stamp_us = self.last_stamp_us.max(wall_clock_us());
        self.last_stamp_us
    }

    /// Appends what `encode` writes, and says how large it is.
    pub fn push(&mut self, place: Place, begun: Option<&Arc<Batch>>, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        let begun = begun.filter(|begun| !matches!(begun.outcome(), Some(Outcome { begins: Ok(()), .. })));
        let from = self.waiting.payloads.len();
        encode(&mut self.waiting.payloads);
        let until = self.waiting.payloads.len();
        self.waiting.entries.push(Entry { until, place, begun: begun.cloned() });
        self.waiting.count(place, 1);
        until - from
    }

    /// Takes back what was pushed last.
    pub fn pop(&mut self) {
        let popped = self.waiting.entries.pop();
        popped.iter().for_each(|entry| self.waiting.count(entry.place, -1));
        let until = self.waiting.entries.last().map_or(0, |entry| entry.until);
        self.waiting.payloads.truncate(until);
    }

    /// How many payloads wait.
    pub fn len(&self) -> usize {
        self.waiting.entries.len()
    }

    /// What the payloads that wait will be written as.
    pub fn batch(&self) -> Arc<Batch> {
        Arc::clone(&self.batch)
    }

    /// Takes everything that waits in exchange for an empty `spare`; what comes from now on belongs to another batch. None if nothing waits.
    pub fn take(&mut self, spare: &mut Waiting) -> Option<Arc<Batch>> {
        if self.waiting.entries.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.waiting, spare);
        Some(std::mem::take(&mut self.batch))
    }
}

impl Waiting {
    /// In the order of their arrival; `batch` is what they are.
    pub fn iter(&self, batch: &Arc<Batch>) -> impl Iterator<Item = Payload<'_>> {
        let mut from = 0;
        self.entries.iter().map(move |entry| {
            let bytes = &self.payloads[std::mem::replace(&mut from, entry.until)..entry.until];
            let begun = match &entry.begun {
                None => Begun::Kept,
                Some(begun) if Arc::ptr_eq(begun, batch) => Begun::Here,
                Some(begun) => match begun.outcome() {
                    Some(Outcome { begins: Err(_), .. }) => Begun::Lost,
                    Some(Outcome { begins: Ok(()), .. }) | None => Begun::Kept,
                },
            };
            Payload { place: entry.place, begun, bytes }
        })
    }

    /// How many of them begin a call.
    pub fn begins(&self) -> u64 {
        self.begins
    }

    /// How many of them may be given up.
    pub fn between(&self) -> u64 {
        self.between
    }

    /// Whether there has to be room for some of them: it is kept for the ends of calls, and for nothing else.
    pub fn needs_room(&self) -> bool {
        self.begins + self.between + self.gaps > 0
    }

    fn count(&mut self, place: Place, by: i64) {
        match place {
            Place::Begins => self.begins = self.begins.saturating_add_signed(by),
            Place::Between => self.between = self.between.saturating_add_signed(by),
            Place::Gap => self.gaps = self.gaps.saturating_add_signed(by),
            Place::Ends => {}
        }
    }

    /// What they take on disk.
    pub fn bytes(&self) -> u64 {
        (self.payloads.len() + self.entries.len() * frame::size(0)) as u64
    }

    /// Makes it empty; what a crowd needed once is not kept for ever.
    pub fn clear(&mut self) {
        const KEPT: usize = 256 << 10;
        (self.begins, self.between, self.gaps) = (0, 0, 0);
        self.payloads.clear();
        self.payloads.shrink_to(KEPT);
        self.entries.clear();
        self.entries.shrink_to(KEPT / frame::size(0));
    }
}

impl Batch {
    /// None while it waits or is being written.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Tells everybody. Happens once.
    pub fn settle(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            self.settled.notify_waiters();
        }
    }
}
