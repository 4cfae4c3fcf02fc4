//! Requests of the client that the server has not answered: under which number the server knows them, and what the client called them.

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::time::Instant;
use uuid::Uuid;

use super::crossing::Crossing;
use super::stream::Recorded;
use crate::pipeline::limit::Seat;
use crate::pipeline::trail::{Ending, Trail};
use crate::relay::outcome::Answered;

/// One request under way.
pub(super) struct Call {
    /// The id as the client wrote it.
    pub id: Box<str>,
    /// The progress token as the client wrote it; the server has the call's number in its place.
    pub token: Option<Box<str>>,
    /// The stream that it is answered on.
    pub stream: u32,
    /// The record, and the room that the call takes; none for what the gateway asks by itself.
    pub record: Option<Box<(Trail, Seat)>>,
    /// When it is given up.
    pub deadline: Instant,
    /// Whether it opens the session.
    pub initialize: bool,
    /// Messages that went to the client about it.
    pub events: u32,
    pub bytes: u64,
    /// What a modern client's request needs beside.
    pub crossing: Option<Box<Crossing>>,
}

/// Requests under way, by number.
#[derive(Default)]
pub(super) struct Calls {
    by_number: HashMap<u64, Call>,
    last: u64,
}

impl Calls {
    /// A number that no other request of the session has had.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn insert(&mut self, number: u64, call: Call) {
        self.by_number.insert(number, call);
    }

    pub fn remove(&mut self, number: u64) -> Option<Call> {
        self.by_number.remove(&number)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Call> {
        self.by_number.get_mut(&number)
    }

    /// The number of the request that the client calls so.
    pub fn called(&self, id: &str) -> Option<u64> {
        self.by_number.iter().find(|(_, call)| *call.id == *id).map(|(number, _)| *number)
    }

    /// The number of the request with this id in the records.
    pub fn recorded_as(&self, request: Uuid) -> Option<u64> {
        let is_it = |call: &Call| call.record.as_ref().is_some_and(|record| record.0.id() == request);
        self.by_number.iter().find(|(_, call)| is_it(call)).map(|(number, _)| *number)
    }

    /// The youngest request under way.
    pub fn youngest(&self) -> Option<&Call> {
        self.by_number.iter().max_by_key(|(number, _)| **number).map(|(_, call)| call)
    }

    /// Whether a request under way is answered on this stream.
    pub fn has_stream(&self, stream: u32) -> bool {
        self.by_number.values().any(|call| call.stream == stream)
    }

    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// When the first of them is given up.
    pub fn deadline(&self) -> Option<Instant> {
        self.by_number.values().map(|call| call.deadline).min()
    }

    /// Those that are overdue.
    pub fn overdue(&self, now: Instant) -> Vec<u64> {
        self.by_number.iter().filter(|(_, call)| call.deadline <= now).map(|(number, _)| *number).collect()
    }

    /// All of them; none is left.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, Call)> {
        self.by_number.drain()
    }

    /// The client was asked something on behalf of whatever is under way: nobody can say how long it will think.
    pub fn extend(&mut self, until: Instant) {
        self.by_number.values_mut().for_each(|call| call.deadline = call.deadline.max(until));
    }
}

impl Call {
    /// Ends the record with the message that answers the client; what it returns has to be waited for before that leaves.
    pub fn end(self, answered: Answered, message: &Bytes) -> Option<Recorded> {
        let (mut trail, seat) = *self.record?;
        trail.keep_result(message);
        let bytes = self.bytes + message.len() as u64;
        trail.end(Ending { bytes, events: self.events + 1, ..Ending::of(answered) });
        let settled = trail.settled();
        // The room is free once the answer is on record.
        Some(Box::pin(async move {
            settled.await;
            drop(seat);
        }))
    }

    /// Ends the record of a call that is not answered.
    pub fn abandon(self, answered: Answered) {
        if let Some(mut record) = self.record {
            record.0.end(Ending { bytes: self.bytes, events: self.events, ..Ending::of(answered) });
        }
    }
}
