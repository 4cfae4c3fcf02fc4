//! Whole frames that are out of place, as when a disk gives old blocks again: their checksums fit, their numbers do not follow.

use std::collections::BTreeSet;

use super::*;
use crate::audit::frame::Found;

/// The frames of a segment, each as its bytes.
fn split(mut content: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Found::Frame(_, size) = frame::decode(content) {
        frames.push(content[..size].to_vec());
        content = &content[size..];
    }
    frames
}

/// What a run finds where the one before wrote six frames and its only segment now holds those of `frames`, by their numbers.
fn found(dir: &Path, frames: &[usize]) -> (Spool, Arc<Lane>) {
    let spool = open(dir);
    append(&spool, 1..=6);
    let path = only_lane(&spool).segments()[0].clone();
    drop(spool);
    let written = split(&fs::read(&path).unwrap());
    assert_eq!(written.len(), 6);
    let now: Vec<u8> = frames.iter().flat_map(|number| written[number - 1].clone()).collect();
    let first = frames[0] as u64;
    fs::remove_file(&path).unwrap();
    fs::write(path.with_file_name(lane::segment_name(first)), now).unwrap();
    let spool = open(dir);
    let lane = only_lane(&spool);
    (spool, lane)
}

#[test]
fn a_frame_that_repeats_or_goes_back_behind_the_good_ones_is_cut() {
    for (tail, good) in [(&[2, 3, 4, 4][..], 2..=4), (&[2, 3, 4, 3], 2..=4), (&[3, 4, 5, 1, 2], 3..=5), (&[4, 5, 3], 4..=5)] {
        let dir = tempfile::tempdir().unwrap();
        let (spool, lane) = found(dir.path(), tail);
        assert_eq!(ids(&read(&lane).unwrap()), good.collect::<Vec<_>>(), "{tail:?}");
        assert_eq!(spool.backlog().bytes, fs::metadata(&lane.segments()[0]).unwrap().len());
    }
}

#[test]
fn one_with_good_frames_behind_it_is_damage_and_moves_nothing_twice() {
    for (order, lost) in [(&[1, 2, 2, 3, 4][..], 0), (&[1, 2, 1, 2, 3, 4], 0), (&[1, 2, 4], 1), (&[2, 3, 1, 6], 2)] {
        let dir = tempfile::tempdir().unwrap();
        let (spool, lane) = found(dir.path(), order);
        assert!(matches!(read(&lane), Err(ReadError::Damaged { .. })), "{order:?}");
        spool.abandon(&lane, "damaged").unwrap();
        let moved = read(&only_lane(&spool)).unwrap();
        assert_chained(&moved);
        let once: BTreeSet<u64> = order.iter().filter(|number| **number >= order[0]).map(|number| *number as u64).collect();
        assert_eq!(ids(&moved), Vec::from_iter(once), "{order:?}");
        let counters = spool.counters();
        assert_eq!((counters.lost.load(Relaxed), counters.quarantined.load(Relaxed)), (lost, 1), "{order:?}");
    }
}
