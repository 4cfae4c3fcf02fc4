//! Extends one lane: gives payloads their numbers and their place in the chain, and writes them to the newest segment, a batch at a time.
//! Keeps room for the ends of calls that have begun. Never decides what is written: the queue holds that.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::Place;
use super::lane::{Lane, LaneId, segment_name};
use super::queue::{Batch, Begun, Outcome, Payload, Waiting};
use super::sync::SegmentFile;
use crate::audit::frame::{self, Chain};

/// What is kept free for the end of each call that has begun: a full disk refuses new calls and still takes the ends of those it let in.
const END_BYTES: u64 = 4 << 10;
/// How much room is asked for at a time, where there is as much.
const PROMISE_BYTES: u64 = 1 << 20;
/// Capacity that the buffer keeps after a batch.
const BUFFER_BYTES: usize = 256 << 10;

/// See the module. A batch is one write.
pub(super) struct Writer {
    lane: Arc<Lane>,
    segment: Option<Segment>,
    next_seq: u64,
    chain: Chain,
    buffer: Vec<u8>,
    broken: bool,
    /// Calls whose end is still to come.
    open_calls: u64,
    /// Lent to whoever takes what waits.
    pub spare: Waiting,
}

struct Segment {
    /// Shared with whoever waits until it is on the disk.
    on_disk: Arc<SegmentFile>,
    length: u64,
    /// Up to here the file system has promised room.
    promised: u64,
}

/// What became of a batch.
pub(super) struct Written {
    pub frames: u64,
    /// With what goes around the payloads.
    pub bytes: u64,
    /// What was given up for want of room.
    pub given_up: u64,
    pub outcome: Outcome,
}

impl Writer {
    /// Touches the disk only at the first write.
    pub fn new(spool: &Path, id: LaneId) -> Self {
        Self {
            lane: Arc::new(Lane::new(spool, id)),
            segment: None,
            next_seq: 1,
            chain: [0; 32],
            buffer: Vec::new(),
            broken: false,
            open_calls: 0,
            spare: Waiting::default(),
        }
    }

    pub fn lane(&self) -> Arc<Lane> {
        Arc::clone(&self.lane)
    }

    /// Whether nothing has been written yet.
    pub fn is_fresh(&self) -> bool {
        self.next_seq == 1
    }

    /// Whether a failed write could not be undone: the lane must not be extended.
    pub fn is_broken(&self) -> bool {
        self.broken || self.segment.as_ref().is_some_and(|segment| segment.on_disk.has_failed())
    }

    /// Calls that have begun on disk and not ended there.
    pub fn open_calls(&self) -> u64 {
        self.open_calls
    }

    /// Whether there is room for a batch in a segment shorter than `segment_bytes`: asked before it is written, if calls begin in it.
    pub fn make_room(&mut self, waiting: &Waiting, segment_bytes: u64) -> io::Result<()> {
        if !waiting.needs_room() {
            return Ok(()); // room is kept for ends
        }
        let size = waiting.bytes() + (self.open_calls + waiting.begins()) * END_BYTES;
        let Some(full) = self.segment.take_if(|segment| segment.length >= segment_bytes) else {
            return self.segment()?.keep_room(size);
        };
        // While there is no room for another segment, ends go on where room is kept for them.
        match Self::create(&self.lane, self.next_seq).and_then(|mut next| next.keep_room(size).map(|()| next)) {
            Ok(next) => {
                full.release();
                self.segment = Some(next);
                Ok(())
            }
            Err(error) => {
                self.lane.uncreate(self.next_seq);
                self.segment = Some(full);
                Err(error)
            }
        }
    }

    /// Writes a batch: all of it, or only the ends of calls that have begun, or nothing. `room` is what [`Writer::make_room`] said.
    pub fn write(&mut self, waiting: &Waiting, batch: &Arc<Batch>, room: io::Result<()>) -> Written {
        let (first, length) = (self.next_seq, self.length());
        let payloads = || waiting.iter(batch).filter(|payload| payload.begun != Begun::Lost);
        let ends = |begun: Option<Begun>| {
            let ends = payloads().filter(move |payload| payload.place == Place::Ends);
            ends.filter(move |payload| begun.is_none_or(|begun| payload.begun == begun))
        };
        let mut given_up = 0;
        let (begins, ends) = match room.and_then(|()| self.append(payloads())) {
            Ok(()) => {
                self.open_calls = (self.open_calls + waiting.begins()).saturating_sub(ends(None).count() as u64);
                (Ok(()), Ok(()))
            }
            Err(error) if waiting.needs_room() && !self.broken => {
                given_up = waiting.between();
                let kept = ends(Some(Begun::Kept));
                let result = self.append(ends(Some(Begun::Kept)));
                self.open_calls = self.open_calls.saturating_sub(kept.count() as u64);
                (Err(Arc::new(error)), result.map_err(Arc::new))
            }
            Err(error) => {
                given_up = waiting.between();
                let error = Arc::new(error);
                self.open_calls = self.open_calls.saturating_sub(ends(None).count() as u64);
                (Err(Arc::clone(&error)), Err(error))
            }
        };
        let segment = self.segment.as_ref().map(|segment| segment.on_disk.clone());
        let outcome = Outcome { begins, ends, segment };
        Written { frames: self.next_seq - first, bytes: self.length() - length, given_up, outcome }
    }

    /// Writes one payload again that a lane was given up with.
    pub fn write_again(&mut self, payload: &[u8]) -> io::Result<()> {
        self.append(std::iter::once(Payload { place: Place::Ends, begun: Begun::Kept, bytes: payload }))
    }

    /// Gives up a segment that holds nothing but what is acknowledged; whether there was one. What stays of the lane is another's business.
    pub fn give_up_acknowledged(&mut self) -> bool {
        let idle = self.open_calls == 0 && self.lane.pending() == 0;
        let given_up = self.segment.take_if(|_| idle);
        // Whoever ships still has it open: deleting it alone would free nothing.
        given_up.is_some_and(|segment| segment.file().set_len(0).is_ok())
    }

    fn length(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.length)
    }

    fn segment(&mut self) -> io::Result<&mut Segment> {
        match &mut self.segment {
            Some(segment) => Ok(segment),
            none => Ok(none.insert(Self::create(&self.lane, self.next_seq)?)),
        }
    }

    /// So many frames, one write. On an error nothing of them is left on disk, or the writer is broken.
    fn append<'a>(&mut self, payloads: impl Iterator<Item = Payload<'a>>) -> io::Result<()> {
        self.buffer.clear();
        let (mut seq, mut chain) = (self.next_seq, self.chain);
        for payload in payloads {
            frame::encode(seq, &chain, payload.bytes, &mut self.buffer);
            chain = frame::chain(&chain, payload.bytes);
            seq += 1;
        }
        if seq == self.next_seq {
            return Ok(());
        }
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => none.insert(Self::create(&self.lane, self.next_seq)?),
        };
        if let Err(error) = segment.file().write_all(&self.buffer) {
            self.broken = segment.file().set_len(segment.length).is_err();
            segment.promised = segment.length; // cutting the file gave back what was promised
            return Err(error);
        }
        segment.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
        self.lane.extended(seq - 1);
        (self.next_seq, self.chain) = (seq, chain);
        Ok(())
    }

    fn create(lane: &Lane, first_seq: u64) -> io::Result<Segment> {
        DirBuilder::new().recursive(true).mode(0o700).create(lane.dir())?;
        let path = lane.dir().join(segment_name(first_seq));
        // Not exclusive: an attempt that failed after creating the file left it empty.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        file.set_len(0)?;
        lane.created(first_seq, path);
        // The lane's directory, the boot's and the spool's.
        let directories = lane.dir().ancestors().take(3).map(Path::to_owned).collect();
        Ok(Segment { on_disk: Arc::new(SegmentFile::new(file, directories)), length: 0, promised: 0 })
    }
}

impl Segment {
    fn file(&self) -> &File {
        &self.on_disk.file
    }

    /// Makes sure that there is room for `size` more bytes.
    fn keep_room(&mut self, size: u64) -> io::Result<()> {
        let needed = self.length + size;
        if needed <= self.promised {
            return Ok(());
        }
        let promise = |until: u64| fallocate(self.file(), FallocateFlags::KEEP_SIZE, 0, until).map(|()| until);
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
        let _ = self.file().set_len(self.length);
    }
}
