//! Reads a lane's frames in order for shipping, checking checksums and numbers on the way. The chain is for the control plane to check:
//! what a disk does to a frame its checksum tells.
//! Never changes a file and never skips what it cannot read: damage is an error that [`super::Spool::abandon`] answers.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use mcp_gateway::proto::node::v1::{AuditEvent, AuditFrame, audit_event::Event};
use prost::Message;

use super::lane::Lane;
use crate::audit::frame::{self, Found};

/// How much is read at once.
const CHUNK: usize = 128 * 1024;

/// Why a lane cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("audit segment {}: frame {seq}: {reason}", path.display())]
    Damaged { path: PathBuf, seq: u64, reason: &'static str },
    #[error("the segment that holds frame {seq} is missing")]
    Missing { seq: u64 },
    #[error("reading audit segment {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Frames with consecutive numbers.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub frames: Vec<AuditFrame>,
    /// When the first of them happened, microseconds since the Unix epoch; unknown if it does not say.
    pub first_at_us: Option<i64>,
    /// When the last of them happened.
    pub last_at_us: Option<i64>,
}

/// A place in a lane.
pub(crate) struct Reader {
    lane: Arc<Lane>,
    next: u64,
    at: Option<Position>,
}

struct Position {
    file: File,
    path: PathBuf,
    offset: u64,
    /// The number that the frame at `offset` must have.
    seq: u64,
}

/// Bytes from a position on. Thrown away after each batch: what lies behind the written mark may still change.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    from: usize,
}

impl Reader {
    pub fn new(lane: Arc<Lane>) -> Self {
        let next = lane.acked() + 1;
        Self { lane, next, at: None }
    }

    /// The number that the next batch starts with.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Goes back or forward.
    pub fn seek(&mut self, next: u64) {
        self.next = next;
        if self.at.as_ref().is_some_and(|at| at.seq > next) {
            self.at = None;
        }
    }

    /// The next frames, at least one if there is any; stops before `max_frames` or `max_bytes` are exceeded.
    pub fn read(&mut self, max_frames: usize, max_bytes: usize) -> Result<Batch, ReadError> {
        let written = self.lane.written();
        let mut window = Window::default();
        let mut frames: Vec<AuditFrame> = Vec::new();
        let mut bytes = 0;
        while self.next <= written && frames.len() < max_frames {
            let frame = match self.frame(&mut window) {
                Ok(frame) => frame,
                Err(error) if frames.is_empty() => return Err(error),
                Err(_) => break, // good frames first; the next call meets the error again
            };
            bytes += frame::wire_size(&frame);
            if bytes > max_bytes && !frames.is_empty() {
                self.at = None; // the frame was read but not taken
                break;
            }
            self.next = frame.seq + 1;
            frames.push(frame);
        }
        let (first_at_us, last_at_us) = (frames.first().and_then(happened_at), frames.last().and_then(happened_at));
        Ok(Batch { frames, first_at_us, last_at_us })
    }

    /// The frame with number `self.next`.
    fn frame(&mut self, window: &mut Window) -> Result<AuditFrame, ReadError> {
        loop {
            let mut at = match self.at.take() {
                Some(at) => at,
                None => {
                    *window = Window::default();
                    self.open()?
                }
            };
            match at.step(window)? {
                Some(frame) if frame.seq == self.next => {
                    self.at = Some(at);
                    return Ok(frame);
                }
                Some(_) => self.at = Some(at), // before the wanted one
                None => self.at = self.following(&at, window)?,
            }
        }
    }

    fn open(&self) -> Result<Position, ReadError> {
        let missing = ReadError::Missing { seq: self.next };
        let (first, path) = self.lane.segment_of(self.next).ok_or(missing)?;
        Position::open(path, first)
    }

    /// The start of the segment after the one that ended.
    fn following(&self, at: &Position, window: &mut Window) -> Result<Option<Position>, ReadError> {
        *window = Window::default();
        match self.lane.segment_of(at.seq) {
            Some((first, path)) if first == at.seq => Position::open(path, first).map(Some),
            _ => Err(ReadError::Missing { seq: at.seq }),
        }
    }
}

impl Position {
    fn open(path: PathBuf, first: u64) -> Result<Self, ReadError> {
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path, offset: 0, seq: first }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(ReadError::Missing { seq: first }),
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    /// The frame here, and on to the next place; `None` at the segment's end.
    fn step(&mut self, window: &mut Window) -> Result<Option<AuditFrame>, ReadError> {
        loop {
            let needed = match frame::decode(window.rest()) {
                Found::Frame(frame, size) => {
                    if frame.seq != self.seq {
                        return Err(self.damaged("the sequence number does not follow"));
                    }
                    self.seq += 1;
                    self.offset += size as u64;
                    window.from += size;
                    return Ok(Some(frame));
                }
                Found::Damaged(reason) => return Err(self.damaged(reason)),
                Found::End => 0,
                Found::Cut { needed } => needed,
            };
            let loaded = window.load(&self.file, self.offset, needed.max(CHUNK));
            match loaded.map_err(|source| ReadError::Io { path: self.path.clone(), source })? {
                0 => return Ok(None),
                size if size < needed => return Err(self.damaged("the segment ends inside the frame")),
                _ => {}
            }
        }
    }

    fn damaged(&self, reason: &'static str) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), seq: self.seq, reason }
    }
}

impl Window {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    /// Fills itself with up to `size` bytes from `offset` on; says how many there are.
    fn load(&mut self, file: &File, offset: u64, size: usize) -> io::Result<usize> {
        self.from = 0;
        self.bytes.clear();
        let mut file = file;
        file.seek(SeekFrom::Start(offset))?;
        file.take(size as u64).read_to_end(&mut self.bytes)
    }
}

fn happened_at(frame: &AuditFrame) -> Option<i64> {
    match AuditEvent::decode(&frame.payload[..]).ok()?.event? {
        Event::Decided(decided) => Some(decided.decided_at_us),
        Event::Ended(ended) => Some(ended.ended_at_us),
        Event::Captured(captured) => Some(captured.decided_at_us),
        Event::Gap(gap) => Some(gap.until_us),
    }
}
