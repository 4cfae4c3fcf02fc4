//! Several limits at once, bounds, and callers that try for more.

use mcp_gateway::proto::config::v1::{LimitWindow, RateLimit};
use mcp_gateway::snapshot::Limit;

use super::*;

const SECOND: Micros = 1_000_000;
const NOW: Micros = 1_000_000 * SECOND;

fn limit(name: &str, windows: &[(u64, u32)], max_concurrent: u32) -> Limit {
    let windows = windows.iter().map(|(limit, seconds)| LimitWindow { limit: *limit, seconds: *seconds }).collect();
    Limit::compile(&RateLimit { id: name.into(), name: name.into(), windows, max_concurrent, ..RateLimit::default() })
}

fn demand<'a>(limit: &'a Limit, caller: Option<Caller<'a>>) -> Demand<'a> {
    Demand { org: "acme", limit, cost: 1, caller, server: None, pattern: None }
}

fn alice(limit: &Limit) -> Demand<'_> {
    demand(limit, Some(Caller::Subject("alice")))
}

fn stranger(limit: &Limit, last: u8) -> Demand<'_> {
    demand(limit, Some(Caller::Address([192, 0, 2, last].into())))
}

#[test]
fn a_call_that_one_limit_refuses_counts_for_none() {
    let (user, org) = (limit("user", &[(2, 60)], 0), limit("org", &[(10, 60)], 0));
    let memory = Memory::new(1000);
    let ask = || memory.admit(&[alice(&user), demand(&org, None)], NOW);
    assert!((0..2).all(|_| ask().is_ok()));
    let refusal = ask().unwrap_err();
    assert!(matches!(refusal, Refusal { demand: 0, why: Why::Window { .. } }), "{refusal:?}");
    (0..100).for_each(|_| drop(ask().unwrap_err()));
    let others = (0..100).filter(|_| memory.admit(&[demand(&org, None)], NOW).is_ok()).count();
    assert_eq!(others, 8, "what was refused has not been counted");
}

#[test]
fn every_window_has_to_fit_and_the_longest_wait_is_told() {
    let both = limit("both", &[(3, 1), (5, 60)], 0);
    let memory = Memory::new(1000);
    let admitted = |now| (0..10).filter(|_| memory.admit(&[alice(&both)], now).is_ok()).count();
    assert_eq!((admitted(NOW), admitted(NOW + 2 * SECOND), admitted(NOW + 4 * SECOND)), (3, 2, 0));
    let Why::Window { room, wait } = memory.admit(&[alice(&both)], NOW + 4 * SECOND).unwrap_err().why else { panic!("a window") };
    assert_eq!((room.length, room.remaining), (60, 0));
    assert!((55 * SECOND..=62 * SECOND).contains(&wait), "{wait}");
}

#[test]
fn what_is_in_flight_is_given_back() {
    let capped = limit("capped", &[], 2);
    let memory = Memory::new(1000);
    let first = memory.admit(&[alice(&capped)], NOW).unwrap();
    let _second = memory.admit(&[alice(&capped)], NOW).unwrap();
    let refusal = memory.admit(&[alice(&capped)], NOW).unwrap_err();
    assert_eq!(refusal.why, Why::InFlight { most: 2 });
    drop(first);
    let _third = memory.admit(&[alice(&capped)], NOW).unwrap();
}

#[test]
fn counts_are_bounded_and_strangers_cannot_push_out_who_is_somebody() {
    let each = limit("each", &[(1, 60)], 0);
    let memory = Memory::new(SHARDS);
    let mut crowded = 0;
    assert!(memory.admit(&[alice(&each)], NOW).is_ok());
    for last in 0..=255 {
        crowded += usize::from(memory.admit(&[stranger(&each, last)], NOW).is_err_and(|refusal| refusal.why == Why::Crowded));
    }
    assert!(memory.counts() <= SHARDS && crowded >= 192, "{crowded}");
    assert!(memory.admit(&[alice(&each)], NOW).is_err(), "her count is still there");
    // Somebody new takes the place of the one that was not used for longest.
    let subjects: Vec<String> = (0..500).map(|number| format!("user-{number}")).collect();
    for subject in &subjects {
        assert!(memory.admit(&[demand(&each, Some(Caller::Subject(subject)))], NOW + SECOND).is_ok());
    }
    assert!(memory.counts() <= SHARDS);
    // What is idle makes room for strangers, too.
    assert!(
        (0..=255).all(|last| memory.admit(&[stranger(&each, last)], NOW + 1000 * SECOND).is_ok() || memory.counts() <= SHARDS)
    );
}

#[test]
fn many_threads_admit_exactly_the_limit() {
    let (user, org) = (limit("user", &[(700, 60)], 0), limit("org", &[(1000, 60)], 0));
    let memory = Memory::new(1000);
    let by = |subject: &'static str| {
        let demands = [demand(&user, Some(Caller::Subject(subject))), demand(&org, None)];
        (0..1000).filter(|_| memory.admit(&demands, NOW).is_ok()).count()
    };
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = ["a", "b", "a", "b"].into_iter().map(|subject| scope.spawn(move || by(subject))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1000);
    let usage = memory.usage(10, NOW);
    assert_eq!(usage.iter().find(|it| it.limit == "org").map(|it| it.used), Some(1000));
}

#[test]
fn a_count_says_how_full_it_is_and_forgets_refusals_once_it_is_unused() {
    let user = limit("user", &[(2, 60)], 3);
    let memory = Memory::new(1000);
    let held: Vec<_> = (0..2).map(|_| memory.admit(&[alice(&user)], NOW).unwrap()).collect();
    (0..5).for_each(|_| drop(memory.admit(&[alice(&user)], NOW).unwrap_err()));
    let told = |now| memory.usage(10, now).into_iter().map(|it| (it.seconds, it.used, it.admits, it.refused)).collect::<Vec<_>>();
    assert_eq!(told(NOW), [(60, 2, 2, 5), (0, 2, 3, 5)], "the fullest first");
    assert_eq!(told(NOW), told(NOW), "asking changes nothing");
    drop(held);
    assert_eq!(told(NOW + 200 * SECOND), [], "nothing is used any more");
    let _one = memory.admit(&[alice(&user)], NOW + 200 * SECOND).unwrap();
    assert!(told(NOW + 200 * SECOND).iter().all(|(_, used, _, refused)| (*used, *refused) == (1, 0)));
}
