//! Room in a spool that nobody ships from: the oldest records go, whole segments at a time, so that calls are never refused for want of
//! room. Run by a node without a control plane; a node that ships never gives up a record.

use std::sync::Arc;

use super::{Lane, Spool};

/// From here on the oldest records go. Below the point where operators are told, and where access records are refused.
const RETIRE_PERCENT: u64 = 75;

impl Spool {
    /// Resolves after an append that leaves little room: returns how many of the oldest frames were given up for it.
    pub(crate) async fn retired(&self) -> u64 {
        loop {
            self.appended().await;
            let mut frames = 0;
            while self.percent_full() >= RETIRE_PERCENT
                && let Some((lane, end)) = self.oldest_segment()
            {
                let before = lane.acked();
                self.acknowledge(&lane, end, None);
                self.forget_all_kept(); // nobody will ask for it
                frames += lane.acked().saturating_sub(before);
            }
            if frames > 0 {
                return frames;
            }
        }
    }

    /// Of earlier runs first; of this run's lanes, that with the most frames.
    fn oldest_segment(&self) -> Option<(Arc<Lane>, u64)> {
        let ended = self.lanes().into_iter().filter_map(|lane| lane.end_of_oldest_segment().map(|end| (lane, end)));
        ended.max_by_key(|(lane, _)| (!lane.is_live(), lane.pending()))
    }
}
