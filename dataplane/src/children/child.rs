//! A running child as whoever uses it sees it: messages in, messages out, and its end.
//! Never restarts anything and never reads what a message says. Made by `Children::start`.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::de::IgnoredAny;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::process::ChildStdout;
use tokio::time::timeout;
use uuid::Uuid;

use super::life::{Ended, Life, Why};
use super::lines::{Line, Lines};
use super::log::{Log, Stream, printable};

/// Lines in a row that are no messages before a child is given up.
const GARBAGE: u32 = 100;
/// How much of a line that is no message is told.
const TOLD: usize = 200;

/// A child that runs. Dropped, it is stopped; split, it is stopped when both halves are dropped.
#[derive(Debug)]
pub struct Child {
    sender: Sender,
    receiver: Receiver,
}

/// Writes messages to a child.
#[derive(Debug)]
pub struct Sender {
    life: Arc<Owned>,
    patience: Duration,
    /// What of a message is not written yet.
    unsent: BytesMut,
    /// Whether some of it is, so that the rest has to follow.
    begun: bool,
}

/// Reads messages of a child.
#[derive(Debug)]
pub struct Receiver {
    life: Arc<Owned>,
    stdout: ChildStdout,
    lines: Lines,
    log: Arc<Log>,
    garbage: u32,
    over: bool,
}

/// Watches and ends a child without keeping it alive.
#[derive(Debug, Clone)]
pub struct Handle {
    life: Arc<Life>,
}

/// A line on a child's stdout that is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes on stdout that are no JSON-RPC message: {text}")]
pub struct Garbage {
    /// How it begins, printable.
    pub text: String,
    /// How long it was.
    pub length: usize,
}

/// Ends the child when nobody uses it any more.
#[derive(Debug)]
struct Owned(Arc<Life>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.ask(Why::Dropped);
    }
}

impl Child {
    pub(super) fn new(life: Arc<Life>, stdout: ChildStdout, log: Arc<Log>, settings: &crate::config::Children) -> Self {
        let life = Arc::new(Owned(life));
        let limit = usize::try_from(settings.line_bytes).unwrap_or(usize::MAX);
        let sender = Sender { life: life.clone(), patience: settings.write_timeout, unsent: BytesMut::new(), begun: false };
        let receiver = Receiver { life, stdout, lines: Lines::new(limit), log, garbage: 0, over: false };
        Self { sender, receiver }
    }

    /// See [`Sender::send`].
    pub async fn send(&mut self, message: Bytes) -> io::Result<()> {
        self.sender.send(message).await
    }

    /// See [`Receiver::next`].
    pub async fn next(&mut self) -> Option<Result<Bytes, Garbage>> {
        self.receiver.next().await
    }

    /// Halves that read and write independently.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// For whoever watches it.
    pub fn handle(&self) -> Handle {
        self.receiver.handle()
    }

    /// Asks it to end: closes its stdin, sends TERM after two seconds, kills after five. Does not wait.
    pub fn stop(&self) {
        self.receiver.life.0.ask(Why::Stopped);
    }

    /// Kills it and its descendants. Does not wait.
    pub fn kill(&self) {
        self.receiver.life.0.kill();
    }

    /// How it ended, once it has.
    pub async fn ended(&self) -> Ended {
        self.receiver.life.0.ended().await
    }
}

impl Sender {
    /// Writes one message and a line feed. Line breaks between tokens become spaces: valid JSON has none elsewhere.
    ///
    /// A child that leaves it unread for too long is an error of kind `TimedOut`; if half of the message was written by then,
    /// nothing sensible can follow and the child is ended. Dropping the future takes back a message of which nothing was
    /// written, else its rest goes first the next time.
    pub async fn send(&mut self, message: Bytes) -> io::Result<()> {
        let line = one_line(&message).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an empty message"))?;
        let patience = self.patience;
        let written = timeout(patience, self.write(line)).await.unwrap_or_else(|_late| {
            let seconds = patience.as_secs_f64();
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("the server has not read its stdin for {seconds} s")))
        });
        if written.is_err() && self.begun {
            self.life.0.ask(Why::Deaf);
        }
        written
    }

    /// As [`Child::handle`].
    pub fn handle(&self) -> Handle {
        Handle { life: self.life.0.clone() }
    }

    async fn write(&mut self, line: BytesMut) -> io::Result<()> {
        if self.begun {
            self.flush().await?;
        }
        self.unsent = line;
        self.flush().await?;
        self.life.0.counts.sent();
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let life = &self.life.0;
        while !self.unsent.is_empty() {
            let written = tokio::select! {
                biased;
                () = life.asked() => return Err(closed()),
                written = poll_fn(|context| match &mut *life.stdin() {
                    Some(stdin) => Pin::new(stdin).poll_write(context, &self.unsent),
                    None => std::task::Poll::Ready(Err(closed())),
                }) => written?,
            };
            if written == 0 {
                return Err(closed());
            }
            self.unsent.advance(written);
            self.begun = !self.unsent.is_empty();
        }
        Ok(())
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the server's process is ending")
}

/// The message on one line, with its end.
fn one_line(message: &[u8]) -> Option<BytesMut> {
    let message = message.trim_ascii();
    if message.is_empty() {
        return None;
    }
    let mut line = BytesMut::with_capacity(message.len() + 1);
    line.extend_from_slice(message);
    for at in memchr::memchr2_iter(b'\n', b'\r', message) {
        line[at] = b' ';
    }
    line.extend_from_slice(b"\n");
    Some(line)
}

impl Receiver {
    /// The next message; none when the child has ended or closed its stdout. A line that is no JSON is told and logged, and
    /// the child goes on, unless there are more than a hundred in a row. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, Garbage>> {
        loop {
            if self.garbage > GARBAGE {
                self.life.0.ask(Why::Garbage);
                return None;
            }
            if let Some(line) = self.lines.next() {
                return Some(self.judge(&line));
            }
            if self.over {
                return None;
            }
            if !matches!(self.stdout.read_buf(self.lines.room()).await, Ok(1..)) {
                self.over = true;
                // Before anybody who sees the end lets go of the child: it was not they who ended it.
                self.life.0.fell_silent();
                if let Some(line) = self.lines.rest() {
                    return Some(self.judge(&line));
                }
            }
        }
    }

    /// As [`Child::handle`].
    pub fn handle(&self) -> Handle {
        Handle { life: self.life.0.clone() }
    }

    fn judge(&mut self, line: &Line) -> Result<Bytes, Garbage> {
        if let Line::Whole(text) = line
            && is_message(text)
        {
            self.garbage = 0;
            self.life.0.counts.received();
            return Ok(text.clone());
        }
        self.garbage += 1;
        self.life.0.counts.garbage();
        self.log.push(self.life.0.pid, Stream::Stdout, line);
        let length = match line {
            Line::Whole(text) => text.len(),
            Line::Cut { length, .. } => *length,
        };
        Err(Garbage { text: printable(line).chars().take(TOLD).collect(), length })
    }
}

/// Whether it may be one: JSON, and an object or a batch.
fn is_message(text: &[u8]) -> bool {
    let json = || std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) && json()
}

impl Handle {
    pub(super) fn of(life: Arc<Life>) -> Self {
        Self { life }
    }

    /// As in its status.
    pub fn id(&self) -> Uuid {
        self.life.id
    }

    /// As in its status.
    pub fn pid(&self) -> u32 {
        self.life.pid
    }

    /// As [`Child::stop`].
    pub fn stop(&self) {
        self.life.ask(Why::Stopped);
    }

    /// As [`Child::kill`].
    pub fn kill(&self) {
        self.life.kill();
    }

    /// As [`Child::ended`].
    pub async fn ended(&self) -> Ended {
        self.life.ended().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        let line = |text: &str| one_line(text.as_bytes()).map(|line| String::from_utf8(line.to_vec()).unwrap());
        assert_eq!(line("{\n  \"a\":\r\n 1\n}\n").as_deref(), Some("{   \"a\":   1 }\n"));
        assert_eq!(line(r#"{"a":"x\ny"}"#).as_deref(), Some("{\"a\":\"x\\ny\"}\n"));
        assert_eq!(line(" \n"), None);
    }

    #[test]
    fn messages_are_json_objects_or_batches() {
        for good in ["{}", "[]", " {\"a\": [1, \"\u{fc}\"]}"] {
            assert!(is_message(good.as_bytes()), "{good}");
        }
        for wrong in [&b"1"[..], b"\"x\"", b"{", b"{} {}", b"{\"\xff\": 1}", b"Listening on stdin", b"null"] {
            assert!(!is_message(wrong), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
