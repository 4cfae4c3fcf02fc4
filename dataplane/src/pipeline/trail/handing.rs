//! A record that somebody else ends: a session that sees the call end, or another node that has the whole call.

use std::time::Instant;

use super::record::Record;
use super::{Class, State, Trail};

impl Trail {
    /// Hands the record over to whoever sees the call end, if that is not who answers the request. What is left says nothing more.
    #[must_use]
    pub fn hand_over(&mut self) -> Self {
        self.recorder.metrics.in_flight.inc();
        let now = Instant::now();
        let left = Self {
            served: self.served.clone(),
            recorder: self.recorder.clone(),
            request_id: self.request_id,
            started: now,
            last: now,
            state: State::Ended,
            class: Class::Access,
            audit_full: self.audit_full,
            audit_on_disk: false,
            keeping: None,
            echo: self.echo.clone(),
            record: Record::new(),
            address: self.address,
            room: self.room.take(),
            unsettled: None,
        };
        std::mem::replace(self, left)
    }

    /// Nothing is recorded here: another node does.
    pub fn forget(&mut self) {
        self.state = State::Ended;
    }
}
