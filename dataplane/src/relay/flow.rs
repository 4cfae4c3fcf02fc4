//! An answer on its way: bytes from the server to the client, with the record of the call and the room it takes.
//!
//! Events that are ready together leave in one write. Dropping it means that the client went away.

mod events;
mod source;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use mcp_gateway::proto::node::v1::Outcome;
use tokio::time::Sleep;

use super::Settings;
use super::outcome::Answered;
use super::standing::Lost;
use crate::capture;
use crate::pipeline::limit::Seat;
use crate::pipeline::route::Routed;
use crate::pipeline::trail::{Ending, Trail};
use crate::upstream::Received;

use events::{Events, Next};
pub(super) use source::Source;

/// An answer too large to look at.
const UNSEEN: Answered = Answered::new(Outcome::Unknown, 0);

/// A body that is being relayed.
pub struct Flow {
    content: Content,
    trail: Option<Trail>,
    bytes: u64,
    last: Option<Last>,
    over: bool,
    sample: Option<Sample>,
    _seat: Seat,
}

/// What is looked at of an answer whose organisation wants some of it kept.
struct Sample {
    seen: BytesMut,
    most: usize,
}

/// The end of an answer, held back until its record is written.
struct Last {
    recorded: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    bytes: io::Result<Bytes>,
}

enum Content {
    Json(Json),
    Events(Box<Events>),
}

/// A JSON answer too large to hold: only counted.
struct Json {
    /// What was read before that was known.
    held: Bytes,
    upstream: Received,
    idle: Duration,
    clock: Pin<Box<Sleep>>,
}

impl Flow {
    /// A large JSON answer, of which `held` has been read.
    pub(super) fn json(held: Bytes, upstream: Received, seat: Seat, idle: Duration) -> Self {
        let clock = Box::pin(tokio::time::sleep(idle));
        Self::new(Content::Json(Json { held, upstream, idle, clock }), seat)
    }

    /// An event stream of `call`.
    pub(super) fn events(call: Routed, upstream: Source, settings: &Settings) -> Result<Self, Lost> {
        let events = Events::new(&call, upstream, settings)?;
        let (_, seat) = call.into_parts();
        Ok(Self::new(Content::Events(Box::new(events)), seat))
    }

    fn new(content: Content, seat: Seat) -> Self {
        Self { content, trail: None, bytes: 0, last: None, over: false, sample: None, _seat: seat }
    }

    /// Hands over the record, which ends with the flow.
    pub fn recorded_by(&mut self, trail: Trail) {
        self.sample = trail.keeping().map(|capture| Sample { seen: BytesMut::new(), most: capture::look_at(capture) });
        if let (Content::Events(events), Some(sample)) = (&mut self.content, &self.sample) {
            events.look_at(sample.most);
        }
        self.trail = Some(trail);
    }

    /// Whether every byte passes as it came.
    pub fn is_unchanged(&self) -> bool {
        matches!(self.content, Content::Json(_))
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
        if self.last.is_none() {
            let next = match &mut self.content {
                Content::Json(json) => ready!(json.poll(cx)),
                Content::Events(events) => ready!(events.poll(cx)),
            };
            let (bytes, answered) = match next {
                Next::Bytes(bytes) => {
                    self.look(&bytes);
                    self.bytes += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Next::Last(bytes, answered) => {
                    self.look(&bytes);
                    self.bytes += bytes.len() as u64;
                    (Ok(bytes), answered)
                }
                Next::Broken(outcome) => {
                    let broken = io::Error::new(io::ErrorKind::UnexpectedEof, "the server broke off");
                    (Err(broken), Answered::new(outcome, 0))
                }
            };
            self.end(answered);
            let Some(trail) = &mut self.trail else { return Poll::Ready(self.close(bytes)) };
            self.last = Some(Last { recorded: Box::pin(trail.settled()), bytes });
        }
        let Some(last) = &mut self.last else { return Poll::Ready(None) };
        ready!(last.recorded.as_mut().poll(cx));
        let bytes = std::mem::replace(&mut last.bytes, Ok(Bytes::new()));
        Poll::Ready(self.close(bytes))
    }

    fn close(&mut self, last: io::Result<Bytes>) -> Option<io::Result<Bytes>> {
        self.over = true;
        Some(last).filter(|last| !matches!(last, Ok(bytes) if bytes.is_empty()))
    }

    /// Remembers the beginning of a JSON answer, where some of it is to be kept.
    fn look(&mut self, bytes: &[u8]) {
        if let (Content::Json(_), Some(Sample { seen, most })) = (&self.content, &mut self.sample) {
            seen.extend_from_slice(&bytes[..bytes.len().min(*most - seen.len())]);
        }
    }

    /// Queues what is kept of the answer.
    fn keep(&mut self) {
        let (Some(sample), Some(trail)) = (self.sample.take(), &mut self.trail) else { return };
        match &mut self.content {
            Content::Json(_) => trail.keep_result(&sample.seen),
            Content::Events(events) => events.take_response().iter().for_each(|response| trail.keep_result(response)),
        }
    }

    /// Queues the end of the record.
    fn end(&mut self, answered: Answered) {
        self.keep();
        let events = match &self.content {
            Content::Json(_) => 0,
            Content::Events(events) => events.count(),
        };
        if let Some(trail) = &mut self.trail {
            trail.end(Ending { bytes: self.bytes, events, ..Ending::of(answered) });
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if self.over || self.last.is_some() {
            return;
        }
        // A client that has its response may leave before the server closes the stream.
        let gone = Answered::new(Outcome::Cancelled, 0);
        let answered = match &self.content {
            Content::Json(_) => gone,
            Content::Events(events) => events.answered().unwrap_or(gone),
        };
        self.end(answered);
    }
}

impl Json {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.held.is_empty() {
            return Poll::Ready(Next::Bytes(std::mem::take(&mut self.held)));
        }
        loop {
            match Pin::new(&mut self.upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.clock.as_mut().reset(tokio::time::Instant::now() + self.idle);
                    // Trailers are not passed on.
                    let Ok(bytes) = frame.into_data() else { continue };
                    let last = self.upstream.is_end_stream();
                    return Poll::Ready(if last { Next::Last(bytes, UNSEEN) } else { Next::Bytes(bytes) });
                }
                Poll::Ready(None) => return Poll::Ready(Next::Last(Bytes::new(), UNSEEN)),
                Poll::Ready(Some(Err(_broken))) => return Poll::Ready(Next::Broken(Outcome::UpstreamFailed)),
                Poll::Pending => {
                    ready!(std::future::Future::poll(self.clock.as_mut(), cx));
                    return Poll::Ready(Next::Broken(Outcome::UpstreamFailed));
                }
            }
        }
    }
}
