//! What a node makes of what Redis said, moment by moment.

use std::time::Duration;

use super::*;

const SECOND: Micros = 1_000_000;
const NOW: Micros = 1_000_000 * SECOND;
const WINDOW: Window = Window { limit: 100, length: Duration::from_secs(60) };

fn asked(cost: u32, owed: u64) -> Asked {
    Asked { window: WINDOW, cost, wish: 0, owed, sent: NOW }
}

fn told(used: u64, own: u64, now: Micros) -> Told {
    let answer = Answer { used, wait: 0, reset: 30 * SECOND, leased: 0, born: 7 };
    Told { answer, admitted: true, own, settling: false, now }
}

#[test]
fn away_the_nodes_together_have_the_limit_however_unevenly_they_had_used_it() {
    // One had 60 of 80, others 20: what is left is divided.
    let caps = [(60, 80), (15, 80), (5, 80), (0, 80)].map(|(own, used)| {
        let mut held = Held::default();
        held.answered(&asked(0, 0), &told(used, own, NOW));
        held.cap(&WINDOW, 1, One { of: 4, own }, NOW + SECOND)
    });
    assert_eq!(caps, [65, 20, 10, 5]);
    assert_eq!(caps.iter().sum::<u64>(), 100);
}

#[test]
fn what_redis_said_counts_as_long_as_the_window_and_then_the_share_does() {
    let mut held = Held::default();
    assert_eq!(held.cap(&WINDOW, 1, One { of: 4, own: 0 }, NOW), 25, "nothing is known");
    held.answered(&asked(1, 0), &told(99, 10, NOW));
    assert_eq!(held.cap(&WINDOW, 1, One { of: 4, own: 11 }, NOW + SECOND), 11, "all is used, 11 of it here");
    assert_eq!(held.cap(&WINDOW, 1, One { of: 4, own: 5 }, NOW + 2 * SECOND), 11, "what becomes free here stays here");
    assert_eq!(held.cap(&WINDOW, 1, One { of: 4, own: 11 }, NOW + 64 * SECOND), 25);
    // What had become free before Redis was away was anybody's.
    held.answered(&asked(1, 0), &told(99, 10, NOW + 65 * SECOND));
    assert_eq!(held.cap(&WINDOW, 1, One { of: 4, own: 3 }, NOW + 66 * SECOND), 3);
}

#[test]
fn where_nothing_would_be_admitted_it_is_one_call_unless_nothing_is_left() {
    let small = Window { limit: 3, ..WINDOW };
    let mut held = Held::default();
    assert_eq!(held.cap(&small, 1, One { of: 8, own: 0 }, NOW), 1);
    assert_eq!(held.cap(&WINDOW, 64, One { of: 8, own: 0 }, NOW), 64, "one call, whatever it costs");
    assert_eq!(held.cap(&small, 4, One { of: 8, own: 0 }, NOW), 3, "what never fits does not fit now");
    held.answered(&Asked { window: small, ..asked(0, 0) }, &told(1, 1, NOW));
    assert_eq!(held.cap(&small, 1, One { of: 8, own: 1 }, NOW), 1, "it has had one");
    held.answered(&Asked { window: small, ..asked(0, 0) }, &told(3, 0, NOW));
    assert_eq!(held.cap(&small, 1, One { of: 8, own: 0 }, NOW), 0);
}

#[test]
fn a_refusal_holds_until_its_wait_is_over_for_as_much_and_for_no_larger_limit() {
    let mut held = Held::default();
    let answer = Answer { used: 100, wait: 5 * SECOND, reset: SECOND, leased: 0, born: 7 };
    held.answered(&asked(3, 0), &Told { answer, admitted: false, own: 0, settling: false, now: NOW });
    assert_eq!(held.denied(100, 3, NOW + SECOND), Some(4 * SECOND));
    assert_eq!(held.denied(100, 4, NOW + SECOND), Some(4 * SECOND));
    assert_eq!(held.denied(100, 2, NOW + SECOND), None, "less may fit");
    assert_eq!(held.denied(101, 3, NOW + SECOND), None, "the limit was raised");
    assert_eq!(held.denied(100, 3, NOW + 5 * SECOND), None);
    assert!(!held.is_idle(NOW) && held.is_idle(NOW + 5 * SECOND));
}

#[test]
fn a_count_that_began_anew_although_something_counts_was_lost() {
    let mut held = Held::default();
    assert!(!held.answered(&asked(1, 0), &told(0, 0, NOW)), "the first answer");
    assert!(!held.answered(&asked(1, 0), &told(1, 1, NOW)), "the same count");
    let later = Told { answer: Answer { used: 0, wait: 0, reset: 0, leased: 0, born: 8 }, ..told(0, 2, NOW + SECOND) };
    assert!(held.answered(&asked(1, 0), &later));
    assert_eq!(held.owed, 2, "what this node had in it; the call itself is counted");
    assert!(held.is_settling(NOW + SECOND), "others have not told theirs");
    assert!(!held.answered(&asked(0, 2), &Told { own: 3, ..later }), "once");
    // Ended by itself, with nothing left to count.
    let mut held = Held::default();
    held.answered(&asked(1, 0), &told(0, 0, NOW));
    assert!(!held.answered(&asked(1, 0), &Told { own: 0, now: NOW + 100 * SECOND, ..later }));
    // Nothing of it was this node's, but it was somebody's.
    let mut held = Held::default();
    held.answered(&asked(0, 0), &told(50, 0, NOW));
    assert!(held.answered(&asked(1, 0), &Told { own: 0, ..later }));
    assert_eq!(held.owed, 0);
}

#[test]
fn tokens_in_hand_are_part_of_what_the_node_has() {
    let mut held = Held::default();
    let answer = Answer { used: 10, wait: 0, reset: SECOND, leased: 5, born: 7 };
    held.answered(&Asked { wish: 5, ..asked(1, 0) }, &Told { answer, ..told(0, 3, NOW) });
    assert_eq!(held.lease.tokens(NOW + SECOND), 5);
    assert_eq!(held.lease.tokens(NOW + 2 * SECOND), 0, "within a bucket");
    // 16 used, 9 of them here: admitted 4, in hand 5.
    assert_eq!(held.cap(&WINDOW, 1, One { of: 4, own: 4 }, NOW), 9 + 84 / 4);
}
