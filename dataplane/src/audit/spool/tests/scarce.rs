//! What is kept while room is scarce, and that what is not kept is said.

use super::*;

fn of_acme() -> Decided {
    Decided { org_id: "acme".into(), ..decided("1") }
}

#[test]
fn while_room_is_scarce_fewer_and_fewer_access_records_are_kept_and_what_is_missing_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open_with(dir.path(), Limits { max_bytes: 256 << 10, segment_bytes: 4 << 10 });
    let percent = || spool.backlog().bytes / ((256 << 10) / 100);
    let (mut asked, mut kept) = ([0_u64; 4], [0_u64; 4]);
    for _ in 0..20_000 {
        let step = match percent() {
            ..80 => 0,
            80..85 => 1,
            85..90 => 2,
            90.. => 3,
        };
        asked[step] += 1;
        kept[step] += u64::from(begin(&spool, Class::Access, of_acme()).is_ok());
    }
    assert_eq!(asked[0], kept[0], "with room all are kept");
    for (step, n) in [(1, 2), (2, 4)] {
        assert!(kept[step].abs_diff(asked[step] / n) <= 2, "one of {n}: {kept:?} of {asked:?}");
    }
    assert!((94..=96).contains(&percent()), "the rest is for class audit: {} %", percent());
    let mut audit = 0_u64;
    while begin(&spool, Class::Audit, of_acme()).is_ok() {
        audit += 1;
    }
    let lane = only_lane(&spool);
    let before = read(&lane).unwrap();
    spool.acknowledge(&lane, lane.written(), None);
    begin(&spool, Class::Access, of_acme()).expect("room again");
    let after = read(&lane).unwrap();
    assert!(matches!(AuditEvent::decode(&after[0].payload[..]).unwrap().event, Some(Event::Gap(_))), "before what comes next");
    let all: Vec<_> = before.into_iter().chain(after).collect();
    assert_chained(&all);
    let (calls, access_missing, audit_missing) = told(&all);
    assert_eq!(calls, kept.iter().sum::<u64>() + audit + 1);
    assert_eq!((access_missing, audit_missing), (20_000 - kept.iter().sum::<u64>(), 1), "kept and missing are all there were");
    assert_eq!(spool.counters().shed.load(Relaxed), access_missing);
}

#[test]
fn a_process_that_ends_says_what_it_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open_with(dir.path(), Limits { max_bytes: 64 << 10, segment_bytes: 4 << 10 });
    let kept = (0..2_000).filter(|_| begin(&spool, Class::Access, of_acme()).is_ok()).count() as u64;
    drop(spool);
    let frames = read(&only_lane(&open(dir.path()))).unwrap();
    assert_eq!(told(&frames), (kept, 2_000 - kept, 0));
}

#[test]
fn what_a_disk_refused_is_missing_and_said_once_it_takes_records_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let in_the_way = dir.path().join(spool.boot().to_string());
    fs::write(&in_the_way, "").unwrap();
    for class in [Class::Audit, Class::Access, Class::Access] {
        let mut record = Decided { class: AuditClass::from(class).into(), ..of_acme() };
        let recorded = spool.append_decided(class, &mut record).unwrap();
        assert!(matches!(spool.write_now(&recorded.ticket), Err(SpoolError::Io { .. })));
    }
    fs::remove_file(&in_the_way).unwrap();
    begin(&spool, Class::Audit, of_acme()).unwrap();
    assert_eq!(told(&read(&only_lane(&spool)).unwrap()), (1, 2, 1));
}

#[test]
fn what_is_kept_for_ends_is_not_for_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let calls: Vec<Recorded> = (0..100).map(|id| begin(&spool, Class::Audit, decided(&id.to_string())).unwrap()).collect();
    let lane = only_lane(&spool);
    // Up to where the next call wants another segment.
    while lane.segments().last().unwrap().metadata().unwrap().len() < LIMITS.segment_bytes {
        begin(&spool, Class::Access, of_acme()).unwrap();
    }
    let next = lane.segments()[0].with_file_name(lane::segment_name(lane.written() + 1));
    fs::create_dir(&next).unwrap(); // in the way of the segment's file
    let before = told(&read(&lane).unwrap()).0;
    for _ in 0..5 {
        assert!(matches!(begin(&spool, Class::Access, of_acme()), Err(SpoolError::Io { .. })));
    }
    for call in &calls {
        end(&spool, call, Ended { request_id: "1".into(), ..Ended::default() }).unwrap();
    }
    assert_eq!(told(&read(&lane).unwrap()), (before, 0, 0), "nothing but the ends");
    fs::remove_dir(&next).unwrap();
    begin(&spool, Class::Access, of_acme()).unwrap();
    assert_eq!(told(&read(&lane).unwrap()), (before + 1, 5, 0));
}
