//! Messages from stdin, one per line, read by a thread of its own: a read of stdin cannot be interrupted, and must not keep the process
//! from ending. Never looks into a message. Used by [`super::run`].

use std::io::{self, BufRead, Read as _};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::LARGEST;

/// A line, or why it is none.
pub type Line = Result<String, String>;

/// What the client says, and that it said its last.
pub struct Lines {
    pub next: mpsc::Receiver<Line>,
    /// Set at the end of the input.
    pub ended: CancellationToken,
}

impl Lines {
    /// Reads `input` until its end.
    pub fn of(mut input: impl BufRead + Send + 'static) -> io::Result<Self> {
        let (sender, next) = mpsc::channel(16);
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let _end = end;
            while let Some(line) = read(&mut input) {
                if line.as_ref().is_ok_and(|line| line.trim().is_empty()) {
                    continue;
                }
                if sender.blocking_send(line).is_err() {
                    return; // nobody listens any more
                }
            }
        })?;
        Ok(Self { next, ended })
    }
}

/// The next line; none: there is no more, or it cannot be read.
fn read(input: &mut impl BufRead) -> Option<Line> {
    let mut line = Vec::new();
    let most = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    let read = input.by_ref().take(most).read_until(b'\n', &mut line).ok()?;
    if read == 0 {
        return None;
    }
    if line.last() != Some(&b'\n') && line.len() >= LARGEST {
        skip(input).ok()?;
        return Some(Err(format!("a message has at most {LARGEST} bytes")));
    }
    Some(String::from_utf8(line).map(|line| line.trim_end_matches(['\r', '\n']).to_owned()).map_err(|error| error.to_string()))
}

fn skip(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (used, done) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}
