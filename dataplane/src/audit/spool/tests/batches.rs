//! Frames that are ready together: one write, and each of them on disk before anybody is told so.

use tokio::task::JoinSet;

use super::*;

fn queue(spool: &Spool, id: &str) -> Recorded {
    spool.append_decided(Class::Audit, &mut decided(id)).unwrap()
}

fn queue_end(spool: &Spool, call: &Recorded, id: &str) -> Ticket {
    spool.append_ended(call, &mut Ended { request_id: id.into(), ..Ended::default() }).unwrap()
}

fn writes(spool: &Spool) -> u64 {
    spool.counters().batches.load(Relaxed)
}

#[test]
fn what_waits_in_a_lane_is_written_at_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let calls: Vec<Recorded> = (1..=20).map(|id| queue(&spool, &id.to_string())).collect();
    assert!(spool.lanes().is_empty(), "nothing is on disk yet");
    let last = queue_end(&spool, &calls[0], "21");
    spool.write_now(&calls[7].ticket).unwrap();
    assert_eq!((writes(&spool), spool.backlog().frames), (1, 21));
    for ticket in calls.iter().map(|call| &call.ticket).chain([&last]) {
        spool.write_now(ticket).unwrap();
    }
    assert_eq!(writes(&spool), 1, "all of them were on disk");
    let frames = read(&only_lane(&spool)).unwrap();
    assert_eq!(ids(&frames), (1..=21).collect::<Vec<_>>());
    assert_chained(&frames);
}

#[tokio::test]
async fn calls_of_one_turn_share_a_write_and_none_goes_on_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(open(dir.path()));
    // So many that waiting for others is worth it.
    let _open: Vec<Recorded> = (0..10).map(|_| begin(&spool, Class::Audit, decided("0")).unwrap()).collect();
    let before = writes(&spool);
    let mut calls = JoinSet::new();
    for id in 1..=50 {
        let spool = Arc::clone(&spool);
        calls.spawn(async move {
            let call = queue(&spool, &id.to_string());
            spool.written(&call.ticket).await.unwrap();
            let begun = spool.counters().written.load(Relaxed);
            assert!(read(&only_lane(&spool)).map(|frames| ids(&frames)).unwrap().contains(&id));
            spool.written(&queue_end(&spool, &call, &id.to_string())).await.unwrap();
            begun
        });
    }
    let begun = calls.join_all().await;
    assert_eq!(begun, vec![10 + 50; 50], "everybody's beginning was written with the first's");
    assert_eq!(writes(&spool) - before, 2);
}

#[tokio::test]
async fn a_call_that_is_alone_does_not_wait_for_company() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let call = queue(&spool, "1");
    let mut written = std::pin::pin!(spool.written(&call.ticket));
    assert!(futures_util::poll!(written.as_mut()).is_ready());
}

#[test]
fn a_disk_that_refuses_takes_no_call_and_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let in_the_way = dir.path().join(spool.boot().to_string());
    fs::write(&in_the_way, "").unwrap();
    let (first, second) = (queue(&spool, "1"), queue(&spool, "2"));
    let with_it = queue_end(&spool, &first, "1");
    spool.write_now(&with_it).expect("it went with its beginning");
    assert!(matches!(spool.write_now(&first.ticket), Err(SpoolError::Io { .. })));
    assert!(matches!(spool.write_now(&second.ticket), Err(SpoolError::Io { .. })));
    assert_eq!((spool.backlog().bytes, writes(&spool)), (0, 0));
    fs::remove_file(&in_the_way).unwrap();
    let orphan = queue_end(&spool, &second, "2");
    let third = queue(&spool, "3");
    spool.write_now(&orphan).unwrap();
    spool.write_now(&third.ticket).unwrap();
    assert_eq!(ids(&read(&only_lane(&spool)).unwrap()), [3], "no end without its beginning");
    assert_eq!(spool.backlog().bytes, fs::metadata(&only_lane(&spool).segments()[0]).unwrap().len());
}

#[test]
fn ends_are_written_where_beginnings_find_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // Large enough that the next batch wants another segment.
    let calls: Vec<Recorded> = (0..100).map(|id| queue(&spool, &id.to_string())).collect();
    spool.write_now(&calls[99].ticket).unwrap();
    let lane = only_lane(&spool);
    let next = lane.segments()[0].with_file_name(lane::segment_name(101));
    fs::create_dir(&next).unwrap(); // in the way of the segment's file
    let (end, begin) = (queue_end(&spool, &calls[0], "100"), queue(&spool, "101"));
    let with_it = queue_end(&spool, &begin, "101");
    assert!(matches!(spool.write_now(&begin.ticket), Err(SpoolError::Io { .. })));
    spool.write_now(&end).unwrap();
    spool.write_now(&with_it).unwrap();
    fs::remove_dir(&next).unwrap();
    let again = queue(&spool, "102");
    spool.write_now(&again.ticket).unwrap();
    let frames = read(&lane).unwrap();
    assert_eq!(ids(&frames), (0..=100).chain([102]).collect::<Vec<_>>());
    assert_chained(&frames);
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    assert_eq!(spool.backlog().bytes, lane.segments().iter().map(size).sum::<u64>());
}
