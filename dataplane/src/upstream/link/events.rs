//! The events of an answer's body, one by one.

use ::http::header::{CONTENT_TYPE, HeaderMap};
use http_body_util::BodyExt as _;

use super::super::Received;
use crate::sse::{Event, Framer};

/// See the module.
pub(super) struct Events {
    body: Received,
    framer: Framer,
}

impl Events {
    /// Of a body whose events have at most `limit` bytes.
    pub fn of(body: Received, limit: usize) -> Self {
        Self { body, framer: Framer::new(limit) }
    }

    /// The next event; comments are none. None: the stream is over, or brought what is too large.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.framer.next_event() {
                Ok(Some(event)) if event.has_fields() => return Some(event),
                Ok(Some(_comment)) => continue,
                Ok(None) => {}
                Err(_too_large) => return None,
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(chunk) = frame.into_data() {
                self.framer.push(chunk);
            }
        }
    }
}

/// Whether an answer is an event stream.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| kind.starts_with("text/event-stream"))
}
