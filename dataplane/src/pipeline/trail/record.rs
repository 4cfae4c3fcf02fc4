//! The two frames of a record while they are gathered. Lent out again and again: cleared strings keep their room, so that a
//! record allocates next to nothing once its thread has seen a few.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use mcp_gateway::proto::node::v1::{Decided, Ended};
use prost::Message;

/// Records that a thread keeps for the next requests.
const KEPT: usize = 256;

thread_local! {
    #[allow(clippy::vec_box, reason = "frames go in and out without being copied")]
    static IDLE: RefCell<Vec<Box<Frames>>> = const { RefCell::new(Vec::new()) };
}

/// What is written of a call.
#[derive(Debug, Default)]
pub struct Frames {
    pub decided: Decided,
    pub ended: Ended,
}

/// Frames on loan; dropped, they are cleared and go back.
#[derive(Debug)]
pub struct Record(Option<Box<Frames>>);

impl Record {
    /// Empty frames.
    pub fn new() -> Self {
        Self(Some(IDLE.with_borrow_mut(Vec::pop).unwrap_or_default()))
    }
}

impl Deref for Record {
    type Target = Frames;

    fn deref(&self) -> &Frames {
        self.0.as_ref().expect("frames leave when the record is dropped")
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut Frames {
        self.0.as_mut().expect("frames leave when the record is dropped")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(mut frames) = self.0.take() else { return };
        frames.decided.clear();
        frames.ended.clear();
        // A thread that ends has nothing to keep them in.
        let _ended = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < KEPT {
                idle.push(frames);
            }
        });
    }
}

/// Writes `text` in place of what `into` held.
pub fn set(into: &mut String, text: &str) {
    into.clear();
    into.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_empty_and_with_its_room() {
        let mut record = Record::new();
        set(&mut record.decided.subject, "somebody");
        record.decided.roles.push("one".into());
        record.ended.stage_us.extend([1, 2, 3]);
        let room = record.decided.subject.as_ptr();
        drop(record);
        let again = Record::new();
        assert_eq!((&again.decided, &again.ended), (&Decided::default(), &Ended::default()));
        assert_eq!(again.decided.subject.as_ptr(), room, "the same frames");
    }
}
