//! What is on its way for one lane: batches sent, answers matched to them, and when to go back. Pure.
//! An answer says how far the lane is committed; answers come in the order of the batches, and may stand for several.

use std::collections::VecDeque;

/// A batch without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    first: u64,
    last: u64,
    /// When its first and last frame happened, microseconds since the Unix epoch.
    first_at_us: Option<i64>,
    last_at_us: Option<i64>,
    /// How often the lane had gone back before.
    round: u32,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Committed up to here; the oldest frame after that is not older than the moment.
    Committed { seq: u64, next_at_us: Option<i64> },
    /// Frames before the batch are missing there: read on after `seq`.
    GoBack { seq: u64 },
    /// It belongs to a batch from before the lane went back.
    Stale,
    /// Nothing was asked.
    Unasked,
}

#[derive(Debug, Default)]
pub(super) struct Track {
    sent: VecDeque<Sent>,
    round: u32,
}

impl Track {
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    pub fn sent(&mut self, first: u64, last: u64, first_at_us: Option<i64>, last_at_us: Option<i64>) {
        self.sent.push_back(Sent { first, last, first_at_us, last_at_us, round: self.round });
    }

    pub fn answered(&mut self, acked: u64) -> Answer {
        let mut committed = None;
        while let Some(batch) = self.sent.pop_front_if(|batch| batch.last <= acked) {
            committed = Some(batch);
        }
        if let Some(batch) = committed {
            let next_at_us = self.sent.front().and_then(|next| next.first_at_us).or(batch.last_at_us);
            return Answer::Committed { seq: acked, next_at_us };
        }
        match self.sent.pop_front() {
            None => Answer::Unasked,
            Some(batch) if batch.round < self.round => Answer::Stale,
            Some(_) => {
                self.round += 1;
                Answer::GoBack { seq: acked }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(batches: &[(u64, u64)]) -> Track {
        let mut track = Track::default();
        for (first, last) in batches {
            track.sent(*first, *last, Some(*first as i64 * 10), Some(*last as i64 * 10));
        }
        track
    }

    fn committed(seq: u64, next_at_us: i64) -> Answer {
        Answer::Committed { seq, next_at_us: Some(next_at_us) }
    }

    #[test]
    fn answers_come_one_by_one_or_stand_for_several_batches() {
        let mut each = track(&[(1, 10), (11, 20)]);
        assert_eq!(each.answered(10), committed(10, 110));
        assert_eq!(each.answered(20), committed(20, 200));
        assert_eq!(each.in_flight(), 0);
        let mut both = track(&[(1, 10), (11, 20), (21, 30)]);
        assert_eq!(both.answered(20), committed(20, 210));
        assert_eq!(both.in_flight(), 1);
    }

    #[test]
    fn a_control_plane_that_knows_more_is_believed() {
        assert_eq!(track(&[(1, 1)]).answered(500), committed(500, 10));
    }

    #[test]
    fn a_gap_goes_back_once_however_many_batches_were_behind_it() {
        let mut track = track(&[(11, 20), (21, 30), (31, 40)]);
        assert_eq!(track.answered(5), Answer::GoBack { seq: 5 });
        track.sent(6, 15, None, None);
        assert_eq!(track.answered(5), Answer::Stale);
        assert_eq!(track.answered(5), Answer::Stale);
        assert_eq!(track.answered(15), Answer::Committed { seq: 15, next_at_us: None });
        assert_eq!(track.answered(15), Answer::Unasked);
    }

    #[test]
    fn a_second_gap_after_going_back_goes_back_again() {
        let mut track = track(&[(11, 20)]);
        assert_eq!(track.answered(5), Answer::GoBack { seq: 5 });
        track.sent(6, 20, None, None);
        assert_eq!(track.answered(3), Answer::GoBack { seq: 3 });
    }
}
