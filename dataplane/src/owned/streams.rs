//! A session's streams to its client: taken, taken up again, filled, closed. What leaves on one is remembered for whoever comes back.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::actor::{Actor, STANDING};
use super::stream::{End, EventId, Outgoing, Refused, Tap};
use crate::transport::Version;

impl Actor {
    /// A stream for the answer to one request.
    pub(super) fn own_stream(&mut self, tap: Tap) -> u32 {
        self.last_stream += 1;
        let stream = self.last_stream;
        // A client that knows how to come back is told where from, before anything else (2025-11-25, resumability).
        let primes = self.manners.resumable && self.facts.version.get().is_some_and(|version| *version >= Version::V2025_11_25);
        if primes {
            let event = self.log.place(stream);
            // Gone already: it will come back, or not.
            let _ = tap.send(Outgoing { event: Some(event), ..Outgoing::said(Bytes::new()) });
        }
        self.streams.insert(stream, tap);
        stream
    }

    /// A client reads the standing stream, or comes back to one after an event.
    pub(super) fn attach(&mut self, tap: Tap, after: Option<EventId>) {
        let Some(after) = after else {
            let missed: Vec<_> = self.log.after(self.said).map(|(event, message)| (event, message.clone())).collect();
            if let Some(before) = self.streams.insert(STANDING, tap) {
                before.end(End::Replaced);
            }
            self.count_streams();
            for (event, message) in missed {
                self.replay(STANDING, event, message);
            }
            return;
        };
        let missed: Vec<_> = self.log.after(after).map(|(event, message)| (event, message.clone())).collect();
        let over = after.stream != STANDING && !self.calls.has_stream(after.stream);
        if let Some(before) = self.streams.insert(after.stream, tap) {
            before.end(End::Replaced);
        }
        self.count_streams();
        for (event, message) in missed {
            self.replay(after.stream, event, message);
        }
        if over {
            self.close(after.stream);
        }
    }

    fn replay(&mut self, stream: u32, event: EventId, message: Bytes) {
        self.hand(stream, Outgoing { event: Some(event), ..Outgoing::said(message) });
    }

    /// Brings a message to the client, on a stream of its own or on the standing one, and remembers it for whoever takes the stream up.
    pub(super) fn deliver(&mut self, stream: u32, outgoing: Outgoing) {
        let event = self.manners.resumable.then(|| self.log.push(stream, &outgoing.message));
        self.hand(stream, Outgoing { event, ..outgoing });
    }

    pub(super) fn hand(&mut self, stream: u32, outgoing: Outgoing) {
        let Some(tap) = self.streams.get(&stream) else { return };
        let event = outgoing.event;
        match tap.send(outgoing) {
            Ok(()) => {
                if let Some(event) = event.filter(|event| event.stream == STANDING) {
                    self.said = event;
                }
            }
            Err(Refused::Gone) => self.forget(stream),
            Err(Refused::Slow) => {
                tracing::info!(server = %self.way.server.slug, "a client does not read; its stream was closed");
                self.around.metrics.slow_readers.inc();
                tap.end(End::Slow);
                self.forget(stream);
            }
        }
    }

    fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
        self.forget_listeners();
        self.count_streams();
    }

    /// Nothing more comes on a stream.
    pub(super) fn close(&mut self, stream: u32) {
        if stream != STANDING
            && let Some(tap) = self.streams.remove(&stream)
        {
            tap.end(End::Complete);
            self.forget_listeners();
        }
        self.count_streams();
    }

    pub(super) fn count_streams(&self) {
        self.facts.listening.store(self.has_reader(STANDING), Relaxed);
        self.facts.streams.store(u32::try_from(self.streams.len()).unwrap_or(u32::MAX), Relaxed);
    }

    /// Whether anybody reads the standing stream.
    pub(super) fn has_reader(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|tap| !tap.is_gone())
    }
}
