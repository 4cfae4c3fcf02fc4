//! One stream of messages to a client, between the session that fills it and the connection that empties it: bounded in messages and in
//! bytes. A client that does not read loses the stream, never the gateway its memory.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Where on a session's streams a message lies: what `id:` of an event says, and `Last-Event-ID` of whoever resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// 0: the stream that answers no request.
    pub stream: u32,
    /// Counts through all streams of the session.
    pub place: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.stream, self.place)
    }
}

impl EventId {
    /// As [`EventId`] displays it.
    pub fn parse(text: &str) -> Option<Self> {
        let (stream, place) = text.split_once('-')?;
        let number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        Some(Self { stream: number(stream)?, place: number(place)? })
    }
}

/// A message on its way to the client.
pub struct Outgoing {
    pub message: Bytes,
    /// Where the stream can be resumed after this message; none: nowhere.
    pub event: Option<EventId>,
    /// What has to be on record before this may leave.
    pub recorded: Option<Recorded>,
    /// Whether the stream has nothing to say after this: it is the answer to the request that the stream is for.
    pub last: bool,
    /// The error code of an answer to a modern client; 0 otherwise.
    pub code: i32,
}

impl Outgoing {
    /// A message that answers nothing and that nothing has to be written down for.
    pub fn said(message: Bytes) -> Self {
        Self { message, event: None, recorded: None, last: false, code: 0 }
    }

    /// The answer to a request.
    pub fn answer(message: Bytes, recorded: Option<Recorded>) -> Self {
        Self { recorded, last: true, ..Self::said(message) }
    }
}

/// Resolves once a record is written, or cannot be.
pub type Recorded = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Why a stream ends although its client is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything was said.
    Complete,
    /// The session is over: its client or an operator said so, or nobody used it.
    Closed,
    /// The server is gone, and with it what the session was about.
    ServerGone,
    /// The caller may not have it any more.
    Denied,
    /// The client does not read.
    Slow,
    /// Another stream took this one's place.
    Replaced,
    /// The node stops.
    Draining,
}

/// The session's end of a stream.
#[derive(Clone)]
pub struct Tap {
    to: mpsc::Sender<Outgoing>,
    held: Arc<AtomicUsize>,
    most: usize,
    end: Arc<OnceLock<End>>,
}

/// The connection's end of a stream.
pub struct Spout {
    from: mpsc::Receiver<Outgoing>,
    held: Arc<AtomicUsize>,
    end: Arc<OnceLock<End>>,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The client does not keep up.
    Slow,
    /// The client is not there.
    Gone,
}

/// A stream that holds at most so many messages and bytes that were not read yet.
pub fn stream(messages: usize, bytes: usize) -> (Tap, Spout) {
    let (to, from) = mpsc::channel(messages.max(1));
    let (held, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
    (Tap { to, held: held.clone(), most: bytes, end: end.clone() }, Spout { from, held, end })
}

impl Tap {
    /// Hands a message on. The first one always fits, however large.
    pub fn send(&self, outgoing: Outgoing) -> Result<(), Refused> {
        let size = outgoing.message.len();
        let before = self.held.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before + size > self.most {
            self.held.fetch_sub(size, Ordering::Relaxed);
            return Err(Refused::Slow);
        }
        self.to.try_send(outgoing).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Slow,
            TrySendError::Closed(_) => Refused::Gone,
        })
    }

    /// Says why the stream ends, if nothing has been said yet; it does once every tap is dropped.
    pub fn end(&self, end: End) {
        // The first reason is the one that counts.
        let _ = self.end.set(end);
    }

    /// Resolves when nobody reads it any more.
    pub async fn gone(&self) {
        self.to.closed().await;
    }

    /// Whether nobody reads it any more.
    pub fn is_gone(&self) -> bool {
        self.to.is_closed()
    }
}

impl Spout {
    /// The next message, or why there is none.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, End>> {
        let next = ready!(self.from.poll_recv(cx));
        Poll::Ready(self.taken(next))
    }

    /// As [`Spout::poll`]. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Outgoing, End> {
        let next = self.from.recv().await;
        self.taken(next)
    }

    fn taken(&self, next: Option<Outgoing>) -> Result<Outgoing, End> {
        match next {
            Some(outgoing) => {
                self.held.fetch_sub(outgoing.message.len(), Ordering::Relaxed);
                Ok(outgoing)
            }
            None => Err(self.end.get().copied().unwrap_or(End::Complete)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(bytes: usize) -> Outgoing {
        Outgoing::said(vec![b'x'; bytes].into())
    }

    #[tokio::test]
    async fn a_stream_holds_so_many_messages_and_bytes_and_the_first_whatever_its_size() {
        let (tap, mut spout) = stream(3, 10);
        assert_eq!(tap.send(outgoing(100)), Ok(()));
        assert_eq!(tap.send(outgoing(1)), Err(Refused::Slow), "too many bytes");
        spout.next().await.unwrap();
        for _ in 0..3 {
            assert_eq!(tap.send(outgoing(1)), Ok(()));
        }
        assert_eq!(tap.send(outgoing(1)), Err(Refused::Slow), "too many messages");
    }

    #[tokio::test]
    async fn what_was_said_arrives_before_the_reason_of_the_end() {
        let (tap, mut spout) = stream(3, 10);
        tap.send(outgoing(1)).unwrap();
        tap.end(End::Denied);
        tap.end(End::Closed);
        drop(tap);
        assert_eq!(spout.next().await.unwrap().message.len(), 1);
        assert_eq!(spout.next().await.err(), Some(End::Denied));
        let (tap, spout) = stream(1, 1);
        drop(spout);
        assert_eq!(tap.send(outgoing(1)), Err(Refused::Gone));
    }

    #[test]
    fn ids_of_events_are_read_as_they_are_written() {
        let id = EventId { stream: 3, place: 17 };
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        for text in ["", "-", "3", "3-", "+3-4", "3-4-5", "3--4", "99999999999-1"] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }
}
