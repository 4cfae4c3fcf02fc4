//! Segments of the audit spool: whatever follows good frames, they are found, and nothing else; what is behind damage is kept.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use mcp_gateway::proto::node::v1::AuditFrame;
use tempfile::TempDir;
use uuid::Uuid;

use super::first;
use crate::audit::frame::{self, Found};
use crate::audit::spool::{Lane, Limits, Reader, Spool};

/// In memory where there is such a place, for speed.
const MEMORY: &str = "/dev/shm";

/// The first byte says how many good frames there are, and whether what follows begins with one more, of a number that the next byte
/// says; the rest follows.
pub fn spool_frame(data: &[u8]) {
    let (good, rest) = first(data);
    let (mut content, mut previous) = (Vec::new(), [0; 32]);
    let good_frames = 1 + (good % 8) as u64;
    for seq in 1..=good_frames {
        let payload = vec![b'x'; (good * seq as usize) % 97];
        frame::encode(seq, &previous, &payload, &mut content);
        previous = frame::chain(&previous, &payload);
    }
    let prefix = content.len();
    if good & 0x80 == 0 {
        content.extend_from_slice(rest);
    } else {
        let (seq, rest) = first(rest);
        frame::encode(seq as u64, &previous, rest, &mut content);
        content.extend_from_slice(rest);
    }
    judge(&content, prefix, good_frames);
}

fn judge(content: &[u8], prefix: usize, good: u64) {
    let dir = if Path::new(MEMORY).is_dir() { TempDir::new_in(MEMORY) } else { TempDir::new() }.expect("a directory");
    let lane_dir = dir.path().join(Uuid::from_u128(1).to_string()).join("0000");
    let segment = lane_dir.join("00000000000000000001.seg");
    fs::create_dir_all(&lane_dir).and_then(|()| fs::write(&segment, content)).expect("a segment");
    let (run, foreign) = following(&content[prefix..], good);

    let spool = Spool::open(dir.path(), Uuid::from_u128(2), 1, Limits::default()).expect("whatever is in it");
    let lanes = spool.lanes();
    assert_eq!(lanes.len(), 1, "good frames are a lane");
    let lane = &lanes[0];
    let (frames, whole) = read(lane);
    let seqs: Vec<u64> = frames.iter().map(|frame| frame.seq).collect();
    assert_eq!(seqs, (1..=good + run).collect::<Vec<_>>(), "all that is good, and nothing else");
    if !foreign {
        assert!(whole, "a torn tail is no damage");
        let kept: usize = frames.iter().map(|frame| frame::size(frame.payload.len())).sum();
        assert_eq!(fs::read(&segment).expect("it is there"), &content[..kept], "only the tail is cut");
        return;
    }
    spool.abandon(lane, "fuzzed").expect("there is room");
    let moved: Vec<AuditFrame> = spool.lanes().iter().flat_map(|lane| read(lane).0).collect();
    let payloads = |frames: &[AuditFrame]| frames.iter().map(|frame| frame.payload.clone()).collect::<Vec<_>>();
    assert!(payloads(&moved).starts_with(&payloads(&frames)), "what could be read is still there");
}

/// How many frames go on where the good ones end, and whether there are others behind them.
fn following(mut content: &[u8], mut last: u64) -> (u64, bool) {
    let mut run = 0;
    while let Found::Frame(frame, size) = frame::decode(content) {
        if frame.seq != last + 1 {
            break;
        }
        (run, last, content) = (run + 1, frame.seq, &content[size..]);
    }
    let later = |at| matches!(frame::decode(&content[at..]), Found::Frame(frame, _) if frame.seq > last);
    (run, (0..content.len()).any(later))
}

/// Every frame that the reader gives, and whether it came to the lane's end.
fn read(lane: &Arc<Lane>) -> (Vec<AuditFrame>, bool) {
    let (mut reader, mut frames) = (Reader::new(Arc::clone(lane)), Vec::new());
    while reader.next() <= lane.written() {
        match reader.read(3, 1 << 20) {
            Ok(batch) => frames.extend(batch.frames),
            Err(_damaged) => return (frames, false),
        }
    }
    (frames, true)
}
