//! What a session's client was sent lately, so that a stream that broke can be taken up again (`Last-Event-ID`). Bounded in bytes; the
//! oldest goes first.

use std::collections::VecDeque;

use bytes::Bytes;

use super::stream::EventId;

/// See the module.
pub struct Log {
    events: VecDeque<(EventId, Bytes)>,
    bytes: usize,
    most: usize,
    next: u32,
}

impl Log {
    /// Remembers messages of `most` bytes altogether.
    pub fn new(most: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, most, next: 1 }
    }

    /// Remembers a message of a stream.
    pub fn push(&mut self, stream: u32, message: &Bytes) -> EventId {
        let event = self.place(stream);
        if message.len() <= self.most {
            self.bytes += message.len();
            self.events.push_back((event, message.clone()));
        }
        while self.bytes > self.most {
            let Some((_, oldest)) = self.events.pop_front() else { break };
            self.bytes -= oldest.len();
        }
        event
    }

    /// A place on a stream where no message is: where it begins.
    pub fn place(&mut self, stream: u32) -> EventId {
        let event = EventId { stream, place: self.next };
        self.next = self.next.wrapping_add(1);
        event
    }

    /// What is remembered of the stream of `event` after it, in order.
    pub fn after(&self, event: EventId) -> impl Iterator<Item = (EventId, &Bytes)> {
        let later = move |(found, _): &&(EventId, Bytes)| found.stream == event.stream && found.place > event.place;
        self.events.iter().filter(later).map(|(event, message)| (*event, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &Log, event: EventId) -> Vec<String> {
        log.after(event).map(|(_, message)| String::from_utf8(message.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_stream_is_taken_up_where_it_broke_and_brings_nothing_of_others() {
        let mut log = Log::new(100);
        let start = log.place(1);
        let first = log.push(1, &"a".into());
        log.push(2, &"other".into());
        log.push(1, &"b".into());
        assert_eq!(texts(&log, start), ["a", "b"]);
        assert_eq!(texts(&log, first), ["b"]);
        assert_eq!(texts(&log, EventId { stream: 3, place: 0 }), Vec::<String>::new());
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_larger_than_all_is_not_kept() {
        let mut log = Log::new(4);
        for message in ["aa", "bb", "cc", "too large"] {
            log.push(0, &message.into());
        }
        assert_eq!(texts(&log, EventId { stream: 0, place: 0 }), ["bb", "cc"]);
    }
}
