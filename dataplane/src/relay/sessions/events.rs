//! A session's stream as events over HTTP: what is ready together leaves in one write, silence is filled with comments, and what ends a
//! call leaves once that is on record.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mcp_gateway::proto::node::v1::Outcome;
use tokio::time::{Instant, Sleep};

use super::own::Line;
use crate::metrics::Metrics;
use crate::owned::stream::{End, Outgoing, Recorded, Spout};
use crate::pipeline::limit::Seat;
use crate::pipeline::trail::{Ending, Trail};
use crate::relay::outcome::Answered;
use crate::sse;

/// Bytes that leave in one write at most, unless one message has more.
const WRITE: usize = 64 << 10;
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// See the module.
pub struct ClientStream {
    spout: Spout,
    /// What was taken from the session and has not left.
    held: VecDeque<Outgoing>,
    /// What goes before everything else.
    first: Bytes,
    /// The record of what leaves next.
    awaited: Option<Recorded>,
    keep_alive: Duration,
    until: Instant,
    alarm: Pin<Box<Sleep>>,
    said: Instant,
    /// The record of the stream itself, where it is a request's.
    trail: Option<Trail>,
    closing: Option<Recorded>,
    bytes: u64,
    events: u32,
    over: bool,
    /// Of clients who give a request up by leaving.
    line: Option<Line>,
    _seat: Option<Seat>,
    metrics: Arc<Metrics>,
}

impl ClientStream {
    /// Brings what comes out of `spout`, until `until`.
    pub fn new(spout: Spout, keep_alive: Duration, until: Instant, metrics: Arc<Metrics>) -> Self {
        metrics.open_streams.fetch_add(1, Relaxed);
        let now = Instant::now();
        Self {
            spout,
            held: VecDeque::new(),
            first: Bytes::new(),
            awaited: None,
            keep_alive,
            until,
            alarm: Box::pin(tokio::time::sleep_until(until.min(now + keep_alive))),
            said: now,
            trail: None,
            closing: None,
            bytes: 0,
            events: 0,
            over: false,
            line: None,
            _seat: None,
            metrics,
        }
    }

    /// With bytes before everything else.
    pub fn beginning_with(mut self, first: Bytes) -> Self {
        self.first = first;
        self
    }

    /// With messages that were taken from the session already.
    pub fn holding(mut self, held: impl IntoIterator<Item = Outgoing>) -> Self {
        self.held.extend(held);
        self
    }

    /// With the record of the request that the stream answers.
    pub fn recorded_by(mut self, trail: Trail) -> Self {
        self.trail = Some(trail);
        self
    }

    /// With the room that the request takes.
    pub fn seated(mut self, seat: Seat) -> Self {
        self._seat = Some(seat);
        self
    }

    /// For a client who gives its request up by leaving.
    pub fn given_up_by(mut self, line: Line) -> Self {
        self.line = Some(line);
        self
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next bytes for the client.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(closing) = &mut self.closing {
            ready!(closing.as_mut().poll(cx));
            self.over = true;
            return Poll::Ready(None);
        }
        let mut out = BytesMut::from(std::mem::take(&mut self.first));
        let mut ended = None;
        while out.len() < WRITE && ended.is_none() {
            match self.next(cx) {
                Poll::Ready(Ok(outgoing)) => self.write(&outgoing, &mut out),
                Poll::Ready(Err(end)) => ended = Some(end),
                Poll::Pending => break,
            }
        }
        if !out.is_empty() {
            self.said = Instant::now();
            self.bytes += out.len() as u64;
            return Poll::Ready(Some(Ok(out.freeze())));
        }
        match ended {
            Some(end) => self.close(end, cx),
            None => self.wait(cx),
        }
    }

    /// The next message that may leave.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, End>> {
        if self.held.is_empty() {
            match ready!(self.spout.poll(cx)) {
                Ok(outgoing) => self.held.push_back(outgoing),
                Err(end) => {
                    self.line.iter_mut().for_each(Line::close);
                    return Poll::Ready(Err(end));
                }
            }
        }
        if self.awaited.is_none() {
            self.awaited = self.held.front_mut().and_then(|outgoing| outgoing.recorded.take());
        }
        if let Some(awaited) = &mut self.awaited {
            ready!(awaited.as_mut().poll(cx));
            self.awaited = None;
        }
        Poll::Ready(self.held.pop_front().ok_or(End::Complete))
    }

    fn write(&mut self, outgoing: &Outgoing, out: &mut BytesMut) {
        sse::write_event(out, outgoing.event.as_ref(), &outgoing.message);
        self.events += u32::from(!outgoing.message.is_empty());
    }

    fn close(&mut self, end: End, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(trail) = &mut self.trail else {
            self.over = true;
            return Poll::Ready(None);
        };
        let outcome = match end {
            End::Denied => Outcome::Denied,
            End::ServerGone => Outcome::UpstreamFailed,
            End::Slow => Outcome::Cancelled,
            End::Complete | End::Closed | End::Replaced | End::Draining => Outcome::Ok,
        };
        trail.end(Ending { bytes: self.bytes, events: self.events, ..Ending::of(Answered::new(outcome, 0)) });
        let mut settled: Recorded = Box::pin(trail.settled());
        if settled.as_mut().poll(cx).is_pending() {
            self.closing = Some(settled);
            return Poll::Pending;
        }
        self.over = true;
        Poll::Ready(None)
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let next = self.until.min(self.said + self.keep_alive);
            if self.alarm.deadline() != next {
                self.alarm.as_mut().reset(next);
            }
            ready!(self.alarm.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.until {
                return self.close(End::Complete, cx);
            }
            if now >= self.said + self.keep_alive {
                self.said = now;
                return Poll::Ready(Some(Ok(KEEP_ALIVE)));
            }
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        self.metrics.open_streams.fetch_sub(1, Relaxed);
        if let Some(trail) = &mut self.trail {
            // The client went away: that is how most of these streams end.
            let gone = Answered::new(Outcome::Cancelled, 0);
            trail.end(Ending { bytes: self.bytes, events: self.events, ..Ending::of(gone) });
        }
    }
}
