//! The hash chain of one spool lane: which frames of a run are new, and whether they continue what is committed.
//! Pure; [`super`] holds the cursor's row locked while it asks.

use aws_lc_rs::digest::{Context, SHA256};
use mcp_gateway::proto::node::v1::AuditFrame;

/// How far a lane is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// 0: nothing yet.
    pub last_seq: u64,
    /// What the next frame's `previous_hash` must be.
    pub last_hash: [u8; 32],
}

/// Before the first frame of a lane.
pub const START: Cursor = Cursor { last_seq: 0, last_hash: [0; 32] };

/// What a run of frames is to a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// These frames are new and continue the lane; afterwards it stands at the cursor.
    Fresh(&'a [AuditFrame], Cursor),
    /// All of it is committed already.
    Known,
    /// Frames are missing before it: the node must go back.
    Gap,
}

/// Why a run is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("frame {found} follows frame {after}: sequence numbers must be consecutive from 1")]
    Order { after: u64, found: u64 },
    #[error("frame {seq}: its previous hash is not that of the frame before it")]
    Chain { seq: u64 },
}

/// Places `frames` on the lane.
pub fn place<'a>(cursor: &Cursor, frames: &'a [AuditFrame]) -> Result<Run<'a>, Broken> {
    let Some(first) = frames.first() else { return Ok(Run::Known) };
    if first.seq == 0 {
        return Err(Broken::Order { after: 0, found: 0 });
    }
    for (before, frame) in frames.iter().zip(&frames[1..]) {
        if before.seq.checked_add(1) != Some(frame.seq) {
            return Err(Broken::Order { after: before.seq, found: frame.seq });
        }
    }
    if first.seq > cursor.last_seq + 1 {
        return Ok(Run::Gap);
    }
    let known = usize::try_from(cursor.last_seq + 1 - first.seq).unwrap_or(usize::MAX);
    let fresh = frames.get(known..).unwrap_or_default();
    let Some(last) = fresh.last() else { return Ok(Run::Known) };
    let mut hash = cursor.last_hash;
    for frame in fresh {
        if frame.previous_hash.as_ref() != hash {
            return Err(Broken::Chain { seq: frame.seq });
        }
        hash = link(frame);
    }
    Ok(Run::Fresh(fresh, Cursor { last_seq: last.seq, last_hash: hash }))
}

/// The hash that the frame after this one carries.
pub fn link(frame: &AuditFrame) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&frame.previous_hash);
    context.update(&frame.payload);
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: u64) -> Vec<AuditFrame> {
        let mut hash = START.last_hash;
        let frame = |seq: u64| {
            let frame = AuditFrame { seq, previous_hash: hash.to_vec().into(), payload: vec![seq as u8; 3].into() };
            hash = link(&frame);
            frame
        };
        (1..=count).map(frame).collect()
    }

    fn at(seq: usize) -> Cursor {
        match chain(seq as u64).last() {
            Some(last) => Cursor { last_seq: last.seq, last_hash: link(last) },
            None => START,
        }
    }

    #[test]
    fn runs_are_placed_by_sequence() {
        let all = chain(6);
        let table = [
            (0, 0..6, Ok(Run::Fresh(&all[0..6], at(6)))),
            (3, 3..6, Ok(Run::Fresh(&all[3..6], at(6)))),
            (3, 0..6, Ok(Run::Fresh(&all[3..6], at(6)))),
            (6, 0..6, Ok(Run::Known)),
            (6, 0..0, Ok(Run::Known)),
            (0, 1..6, Ok(Run::Gap)),
            (2, 4..6, Ok(Run::Gap)),
        ];
        for (committed, sent, expected) in table {
            assert_eq!(place(&at(committed), &all[sent]), expected);
        }
    }

    #[test]
    fn runs_that_do_not_continue_the_lane_are_refused() {
        let all = chain(4);
        let skipped = [all[0].clone(), all[2].clone()];
        assert_eq!(place(&START, &skipped), Err(Broken::Order { after: 1, found: 3 }));
        let zero = [AuditFrame { seq: 0, ..all[0].clone() }];
        assert_eq!(place(&START, &zero), Err(Broken::Order { after: 0, found: 0 }));
        let last = [AuditFrame { seq: u64::MAX, ..all[0].clone() }, all[1].clone()];
        assert_eq!(place(&START, &last), Err(Broken::Order { after: u64::MAX, found: 2 }));

        let mut altered = all.clone();
        altered[1].payload = vec![9].into();
        assert_eq!(place(&START, &altered), Err(Broken::Chain { seq: 3 }));
        let mut foreign = all.clone();
        foreign[0].previous_hash = vec![1; 32].into();
        assert_eq!(place(&START, &foreign), Err(Broken::Chain { seq: 1 }));
        let mut short = all;
        short[0].previous_hash = vec![].into();
        assert_eq!(place(&START, &short), Err(Broken::Chain { seq: 1 }));
    }
}
