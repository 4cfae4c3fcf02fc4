//! What the children of a server say beside the protocol: the last lines, in bounded memory, and a way to follow them.
//! Never slows a child down: what nobody reads in time is gone. Written by the keepers of children, read by operators.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;
use tokio::sync::broadcast;

use super::lines::{Line, Lines};

/// Most lines that are kept of a server.
const LINES: usize = 1000;
/// Most bytes of one line.
pub(super) const LINE_BYTES: usize = 4 << 10;
/// How far a follower may fall behind.
const FOLLOWER: usize = 256;

/// Where a child wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Where it may write what it likes.
    Stderr,
    /// Where only messages belong; this was none.
    Stdout,
}

/// One line that a child wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Grows from line to line of a server, over later runs of the node too.
    pub number: u64,
    /// When it was read, in milliseconds since 1970.
    pub at_ms: u64,
    /// The child's number, as in its status.
    pub pid: u32,
    /// What it wrote, printable, cut where it was too long.
    pub text: Arc<str>,
    /// Where.
    pub stream: Stream,
}

impl LogLine {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Log {
    most_bytes: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Of the last line. Begins with the time, so that what was kept before does not have higher ones.
    number: u64,
    followers: broadcast::Sender<LogLine>,
}

impl Log {
    pub(super) fn new(most_bytes: usize) -> Self {
        let number = now_ms().saturating_mul(1000);
        let ring = Ring { lines: VecDeque::new(), bytes: 0, number, followers: broadcast::Sender::new(FOLLOWER) };
        Self { most_bytes, ring: Mutex::new(ring) }
    }

    pub(super) fn push(&self, pid: u32, stream: Stream, line: &Line) {
        let text = printable(line).into();
        let mut ring = self.lock();
        ring.number += 1;
        let line = LogLine { number: ring.number, at_ms: now_ms(), pid, text, stream };
        ring.bytes += line.bytes();
        if ring.followers.receiver_count() > 0 {
            let _ = ring.followers.send(line.clone());
        }
        ring.lines.push_back(line);
        while ring.lines.len() > LINES || (ring.bytes > self.most_bytes && ring.lines.len() > 1) {
            ring.bytes -= ring.lines.pop_front().map_or(0, |line| line.bytes());
        }
    }

    /// What is kept, oldest first.
    pub(super) fn lines(&self) -> Vec<LogLine> {
        self.lock().lines.iter().cloned().collect()
    }

    /// What is kept, and every line after that.
    pub(super) fn follow(&self) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        let ring = self.lock();
        (ring.lines.iter().cloned().collect(), ring.followers.subscribe())
    }

    /// Whether somebody waits for the next line.
    pub(super) fn is_followed(&self) -> bool {
        self.lock().followers.receiver_count() > 0
    }

    /// When the last line came; 0: none did.
    pub(super) fn last_ms(&self) -> u64 {
        self.lock().lines.back().map_or(0, |line| line.at_ms)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes down everything that comes out of `stderr`, however much it is.
pub(super) async fn take_down(mut stderr: ChildStderr, pid: u32, log: Arc<Log>) {
    let mut lines = Lines::new(LINE_BYTES);
    while let Ok(1..) = stderr.read_buf(lines.room()).await {
        while let Some(line) = lines.next() {
            log.push(pid, Stream::Stderr, &line);
        }
    }
    if let Some(line) = lines.rest() {
        log.push(pid, Stream::Stderr, &line);
    }
}

/// As a terminal may show it: what could steer one is written out.
pub(super) fn printable(line: &Line) -> String {
    let (bytes, length) = match line {
        Line::Whole(text) => (&text[..text.len().min(LINE_BYTES)], text.len()),
        Line::Cut { head, length } => (&head[..], *length),
    };
    let plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let mut text = match std::str::from_utf8(bytes) {
        Ok(text) if plain => text.to_owned(),
        Ok(_) | Err(_) => escaped(&String::from_utf8_lossy(bytes)),
    };
    if bytes.len() < length {
        let _ = write!(text, " [{} more bytes]", length - bytes.len());
    }
    text
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_text(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Whether it makes following text run the other way, or breaks the line.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: impl Into<bytes::Bytes>) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn what_could_steer_a_terminal_is_written_out() {
        let table: [(&[u8], &str); 5] = [
            (b"plain ~", "plain ~"),
            (b"\x1b[31mred\x07\t", "\\u{1b}[31mred\\u{7}\\t"),
            ("gr\u{fc}n \u{202e}drow".as_bytes(), "gr\u{fc}n \\u{202e}drow"),
            (b"\xff\x80", "\u{fffd}\u{fffd}"),
            ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
        ];
        for (bytes, text) in table {
            assert_eq!(printable(&whole(bytes)), text);
        }
        let cut = printable(&whole(vec![b'x'; 5000]));
        assert!(cut.ends_with("x [904 more bytes]"), "{cut}");
    }

    #[test]
    fn lines_and_bytes_are_bounded_and_the_newest_stay() {
        let log = Log::new(256 << 10);
        for number in 0..3000 {
            log.push(1, Stream::Stderr, &whole(number.to_string()));
        }
        let lines = log.lines();
        assert_eq!((lines.len(), &*lines[0].text, &*lines[999].text), (1000, "2000", "2999"));

        let log = Log::new(8 << 10);
        for _ in 0..100 {
            log.push(1, Stream::Stderr, &whole(vec![b'x'; 1000]));
        }
        assert!(log.lock().bytes <= 8 << 10 && log.lines().len() == 7, "{}", log.lines().len());
    }

    #[test]
    fn a_follower_gets_what_is_kept_and_then_what_comes() {
        let log = Log::new(8 << 10);
        log.push(1, Stream::Stderr, &whole("before"));
        let (before, mut after) = log.follow();
        log.push(2, Stream::Stdout, &whole("after"));
        assert_eq!(&*before[0].text, "before");
        let line = after.try_recv().unwrap();
        assert_eq!((line.pid, &*line.text, line.stream), (2, "after", Stream::Stdout));
        assert!(after.try_recv().is_err());
    }
}
