//! What the spool promises: order, bounds, and that nothing is lost or skipped silently.

use std::io::Write;

use mcp_gateway::proto::node::v1::{AuditEvent, AuditFrame, audit_event::Event};
use prost::Message;

use super::*;

const LIMITS: Limits = Limits { max_bytes: 1 << 20, segment_bytes: 4096 };

fn open(dir: &Path) -> Spool {
    open_with(dir, LIMITS)
}

fn open_with(dir: &Path, limits: Limits) -> Spool {
    Spool::open(dir, Uuid::now_v7(), 1, limits).unwrap()
}

fn decided(id: &str) -> Decided {
    Decided { request_id: id.into(), ..Decided::default() }
}

/// A call's first frame, on disk.
fn begin(spool: &Spool, class: Class, mut decided: Decided) -> Result<Recorded, SpoolError> {
    let recorded = spool.append_decided(class, &mut decided)?;
    spool.write_now(&recorded.ticket).map(|()| recorded)
}

/// Its second frame, on disk.
fn end(spool: &Spool, recorded: &Recorded, mut ended: Ended) -> Result<(), SpoolError> {
    let ticket = spool.append_ended(recorded, &mut ended)?;
    spool.write_now(&ticket)
}

fn append(spool: &Spool, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        begin(spool, Class::Audit, decided(&id.to_string())).unwrap();
    }
}

/// Everything that one lane has to ship.
fn read(lane: &Arc<Lane>) -> Result<Vec<AuditFrame>, ReadError> {
    let mut reader = Reader::new(Arc::clone(lane));
    let mut frames = Vec::new();
    while reader.next() <= lane.written() {
        frames.extend(reader.read(7, 1 << 20)?.frames);
    }
    Ok(frames)
}

/// Of calls, in order; that others are missing is another test's subject.
fn ids(frames: &[AuditFrame]) -> Vec<u64> {
    let id = |frame: &AuditFrame| match AuditEvent::decode(&frame.payload[..]).unwrap().event.unwrap() {
        Event::Ended(ended) => Some(ended.request_id.parse().unwrap()),
        Event::Decided(decided) => Some(decided.request_id.parse().unwrap()),
        Event::Captured(captured) => Some(captured.request_id.parse().unwrap()),
        Event::Gap(_) => None,
    };
    frames.iter().filter_map(id).collect()
}

fn assert_chained(frames: &[AuditFrame]) {
    for pair in frames.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq);
        assert_eq!(pair[1].previous_hash, frame::chain(&pair[0].previous_hash, &pair[0].payload)[..]);
    }
}

fn only_lane(spool: &Spool) -> Arc<Lane> {
    let lanes = spool.lanes();
    assert_eq!(lanes.len(), 1);
    Arc::clone(&lanes[0])
}

/// Changes one byte of a file.
fn damage(path: &Path, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 0x10;
    fs::write(path, content).unwrap();
}

#[test]
fn frames_come_back_in_order_and_chained_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=200);
    let lane = only_lane(&spool);
    assert!(lane.segments().len() > 2, "several segments");
    let frames = read(&lane).unwrap();
    assert_eq!(ids(&frames), (1..=200).collect::<Vec<_>>());
    assert_eq!((frames[0].seq, &frames[0].previous_hash[..]), (1, &[0; 32][..]));
    assert_chained(&frames);
    assert_eq!(spool.backlog().frames, 200);
}

#[test]
fn records_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=1);
    let segment = only_lane(&spool).segments()[0].clone();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&segment), mode(segment.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_killed_process_loses_nothing_that_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=50);
    drop(spool); // nothing is flushed at the end: there is nothing to flush
    let spool = open(dir.path());
    append(&spool, 51..=60);
    let lanes = spool.lanes();
    assert_eq!(lanes.len(), 2, "the run before, and this one");
    assert_eq!(ids(&read(&lanes[0]).unwrap()), (1..=50).collect::<Vec<_>>());
    assert_eq!(ids(&read(&lanes[1]).unwrap()), (51..=60).collect::<Vec<_>>());
    assert_eq!(spool.backlog().frames, 60);
}

#[test]
fn a_torn_tail_is_cut_at_the_last_good_frame() {
    let sizes = {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        append(&spool, 1..=2);
        fs::metadata(&only_lane(&spool).segments()[0]).unwrap().len()
    };
    let second = usize::try_from(sizes / 2).unwrap();
    for torn in [1, 7, 8, 9, 48, second - 1] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        append(&spool, 1..=3);
        let path = only_lane(&spool).segments()[0].clone();
        drop(spool);
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..2 * second + torn]).unwrap();
        let lane = only_lane(&open(dir.path()));
        assert_eq!(ids(&read(&lane).unwrap()), [1, 2], "{torn} bytes of the third frame");
    }
}

#[test]
fn a_tail_of_zeros_after_power_loss_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=3);
    let path = only_lane(&spool).segments()[0].clone();
    drop(spool);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0; 4096]).unwrap();
    let spool = open(dir.path());
    assert_eq!(ids(&read(&only_lane(&spool)).unwrap()), [1, 2, 3]);
    assert_eq!(spool.backlog().bytes, fs::metadata(&path).unwrap().len());
}

#[test]
fn a_segment_that_was_created_and_never_written_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=3);
    let path = only_lane(&spool).segments()[0].clone();
    drop(spool);
    fs::write(path.with_file_name(lane::segment_name(4)), [1, 2, 3]).unwrap();
    assert_eq!(ids(&read(&only_lane(&open(dir.path()))).unwrap()), [1, 2, 3]);
}

#[test]
fn damage_is_an_error_its_segment_is_kept_aside_and_what_is_readable_moves_on() {
    for (segment, newest) in [(0, false), (1, false), (usize::MAX, true)] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        append(&spool, 1..=120);
        let segments = only_lane(&spool).segments();
        let path = segments[segment.min(segments.len() - 1)].clone();
        let damaged_first = lane::first_seq(&path).unwrap();
        drop(spool);
        damage(&path, 50); // in the payload of its first frame, with good frames behind it
        let spool = open(dir.path());
        let lane = only_lane(&spool);
        assert!(matches!(read(&lane), Err(ReadError::Damaged { seq, .. }) if seq == damaged_first), "newest: {newest}");
        spool.abandon(&lane, "damaged").unwrap();
        let moved = read(&only_lane(&spool)).unwrap();
        assert_chained(&moved);
        let expected: Vec<u64> = (1..=120).filter(|id| *id != damaged_first).collect();
        assert_eq!(ids(&moved), expected);
        let kept: Vec<_> = fs::read_dir(dir.path().join("quarantine")).unwrap().collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(spool.counters().quarantined.load(Relaxed), 1);
        assert_eq!(spool.counters().lost.load(Relaxed), 1);
        assert!(!path.exists());
    }
}

#[test]
fn a_lane_in_use_is_given_up_without_losing_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=10);
    let lane = only_lane(&spool);
    damage(&lane.segments()[0], 50);
    spool.abandon(&lane, "damaged").unwrap();
    append(&spool, 11..=12);
    assert_eq!(ids(&read(&only_lane(&spool)).unwrap()), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn a_missing_segment_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=120);
    let lane = only_lane(&spool);
    fs::remove_file(&lane.segments()[1]).unwrap();
    assert!(matches!(read(&lane), Err(ReadError::Missing { .. })));
}

#[test]
fn acknowledged_segments_are_deleted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=200);
    let lane = only_lane(&spool);
    let segments = lane.segments();
    let third = lane::first_seq(&segments[2]).unwrap();
    spool.acknowledge(&lane, third, None);
    assert_eq!(lane.segments(), segments, "kept for a control plane that loses what it acknowledged");
    assert!(spool.forget_all_kept());
    assert_eq!(lane.segments(), segments[2..], "the third still holds frames");
    let frames = read(&lane).unwrap();
    assert_eq!(ids(&frames), (third + 1..=200).collect::<Vec<_>>());
    spool.acknowledge(&lane, 200, None);
    spool.forget_all_kept();
    assert_eq!(lane.segments().len(), 1, "the one that is written to stays");
    assert_eq!((spool.backlog().frames, spool.backlog().oldest_ms), (0, 0));
    append(&spool, 201..=201);
    assert_eq!(ids(&read(&lane).unwrap()), [201]);
    drop((spool, lane));
    let spool = open(dir.path());
    let lane = only_lane(&spool);
    spool.acknowledge(&lane, 201, None);
    assert_eq!(spool.backlog(), Backlog::default(), "what is kept does not wait");
    assert!(spool.forget_all_kept() && spool.lanes().is_empty());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"], "an earlier run that is wholly acknowledged leaves nothing behind");
}

#[test]
fn what_is_kept_is_shipped_again_if_the_control_plane_forgets_it_and_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=200);
    let (lane, bytes) = (only_lane(&spool), spool.backlog().bytes);
    spool.acknowledge(&lane, 200, None);
    assert!(lane.may_be_forgotten() && spool.backlog().bytes < bytes);
    spool.rewind(&lane, 50);
    assert_eq!((lane.acked(), lane.pending(), lane.oldest_us()), (50, 150, None));
    assert_eq!(ids(&read(&lane).unwrap()), (51..=200).collect::<Vec<_>>());
    spool.acknowledge(&lane, 200, None);
    // The oldest go first when it is too much.
    let segments = lane.segments();
    assert!(spool.forget_kept_beyond(LIMITS.segment_bytes * 2, keep::KEPT_FOR));
    let left = lane.segments();
    assert!(left.len() < segments.len() && left.len() > 1 && segments.ends_with(&left), "{left:?}");
    spool.forget_kept();
    assert_eq!(lane.segments(), left, "neither too old nor too much");
}

#[test]
fn a_full_spool_refuses_access_first_then_everything_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open_with(dir.path(), Limits { max_bytes: 64 << 10, segment_bytes: 4 << 10 });
    let access = || begin(&spool, Class::Access, decided("1"));
    let audit = || begin(&spool, Class::Audit, decided("1"));
    let call = access().unwrap();
    let mut refused = 0;
    while refused < 8 {
        refused = if access().is_ok() { 0 } else { refused + 1 };
    }
    assert!(matches!(access(), Err(SpoolError::Shed)));
    end(&spool, &call, Ended::default()).expect("the end of a call that was recorded");
    audit().expect("room is kept for class audit");
    while audit().is_ok() {}
    assert!(matches!(audit(), Err(SpoolError::Full { max_bytes: 65536 })));
    assert!(spool.backlog().bytes <= 64 << 10);
    let counters = spool.counters();
    assert!(counters.shed.load(Relaxed) >= 2 && counters.full.load(Relaxed) >= 2);
    let lane = only_lane(&spool);
    spool.acknowledge(&lane, lane.written(), None);
    access().expect("room again");
    assert_chained(&read(&lane).unwrap());
}

/// What is on record of a lane: calls, and records that are missing, of class access and audit.
fn told(frames: &[AuditFrame]) -> (u64, u64, u64) {
    frames.iter().fold((0, 0, 0), |(calls, access, audit), frame| {
        match AuditEvent::decode(&frame.payload[..]).unwrap().event.unwrap() {
            Event::Decided(_) => (calls + 1, access, audit),
            Event::Ended(_) => (calls, access, audit),
            Event::Captured(_) => unreachable!("nothing is captured"),
            Event::Gap(gap) => {
                assert!(gap.from_us <= gap.until_us && gap.from_us > 0 && !gap.gap_id.is_empty(), "{gap:?}");
                let told_apart: u64 = gap.orgs.iter().map(|org| org.access + org.audit).sum();
                assert!([0, gap.access + gap.audit].contains(&told_apart), "{gap:?}");
                (calls, access + gap.access, audit + gap.audit)
            }
        }
    })
}

#[test]
fn what_does_not_fit_a_frame_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let huge = decided(&"x".repeat(frame::MAX_PAYLOAD));
    assert!(matches!(begin(&spool, Class::Audit, huge), Err(SpoolError::TooLarge { .. })));
    let frames = read(&only_lane(&spool)).unwrap();
    assert_eq!((frames.len(), told(&frames)), (1, (0, 0, 1)), "only that it is missing");
}

#[test]
fn a_disk_that_refuses_leaves_no_half_frame_and_is_used_again_when_it_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // A file where the lane's directory belongs: creating the segment fails, whoever we are.
    let in_the_way = dir.path().join(spool.boot().to_string());
    fs::write(&in_the_way, "").unwrap();
    assert!(matches!(begin(&spool, Class::Audit, decided("1")), Err(SpoolError::Io { .. })));
    assert_eq!((spool.backlog().bytes, spool.counters().disk_errors.load(Relaxed)), (0, 1));
    fs::remove_file(&in_the_way).unwrap();
    append(&spool, 1..=2);
    assert_eq!(ids(&read(&only_lane(&spool)).unwrap()), [1, 2]);
}

#[test]
fn stamps_never_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let stamps: Vec<i64> = (0..100).map(|_| begin(&spool, Class::Audit, decided("1")).unwrap().decided_at_us).collect();
    assert!(stamps.is_sorted());
    let frames = read(&only_lane(&spool)).unwrap();
    let on_disk: Vec<i64> = frames
        .iter()
        .map(|frame| match AuditEvent::decode(&frame.payload[..]).unwrap().event.unwrap() {
            Event::Decided(decided) => decided.decided_at_us,
            Event::Ended(_) | Event::Captured(_) | Event::Gap(_) => unreachable!(),
        })
        .collect();
    assert_eq!(on_disk, stamps);
}

#[test]
fn both_frames_of_a_call_share_a_lane_whichever_thread_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Uuid::now_v7(), 3, LIMITS).unwrap();
    let ended = |id: u64| Ended { request_id: id.to_string(), ..Ended::default() };
    for id in 0..20 {
        let call = begin(&spool, Class::Audit, decided(&id.to_string())).unwrap();
        std::thread::scope(|scope| scope.spawn(|| end(&spool, &call, ended(id)).unwrap()).join().unwrap());
    }
    let lane = only_lane(&spool);
    assert_eq!(ids(&read(&lane).unwrap()), (0..20).flat_map(|id| [id, id]).collect::<Vec<_>>());
}

#[test]
fn two_processes_cannot_share_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    let _spool = open(dir.path());
    assert!(matches!(Spool::open(dir.path(), Uuid::now_v7(), 1, LIMITS), Err(OpenError::InUse { .. })));
}

#[test]
fn threads_append_to_lanes_of_their_own_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Uuid::now_v7(), 3, LIMITS).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let spool = &spool;
            scope.spawn(move || append(spool, thread * 100..thread * 100 + 100));
        }
    });
    let lanes = spool.lanes();
    assert!(lanes.len() > 1);
    let mut all: Vec<u64> = lanes.iter().flat_map(|lane| ids(&read(lane).unwrap())).collect();
    all.sort_unstable();
    assert_eq!(all, (0..600).collect::<Vec<_>>());
    lanes.iter().for_each(|lane| assert_chained(&read(lane).unwrap()));
}

#[tokio::test]
async fn where_nobody_ships_the_oldest_records_make_room_and_no_call_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 40_000, ..LIMITS };
    let spool = Spool::open(dir.path(), Uuid::now_v7(), 1, limits).unwrap();
    append(&spool, 0..50);
    drop(spool);
    let spool = Spool::open(dir.path(), Uuid::now_v7(), 1, limits).unwrap();
    let mut retired = 0;
    for id in 50..2_000 {
        append(&spool, id..id + 1);
        if spool.percent_full() >= 75 {
            retired += spool.retired().await;
        }
    }
    let kept: Vec<u64> = spool.lanes().iter().flat_map(|lane| ids(&read(lane).unwrap())).collect();
    assert_eq!(retired + kept.len() as u64, 2_000);
    assert!(kept.is_sorted() && kept.last() == Some(&1_999) && kept.len() > 50, "{} kept", kept.len());
    assert!(spool.backlog().bytes <= 40_000 / 100 * 80);
}

mod batches;
mod numbers;
mod scarce;
