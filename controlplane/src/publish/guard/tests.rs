//! A table of what vanished and what the log says of it.

use super::*;

fn org(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn counts_of(rows: &[(u128, u32, u32)]) -> Counts {
    rows.iter().map(|(n, servers, policies)| (org(*n), Rows { servers: *servers, policies: *policies, limits: 0 })).collect()
}

#[test]
fn what_vanishes_is_held_unless_it_is_accounted_for() {
    let nothing = Accounted::default();
    let net = |n: u128, servers: i64, policies: i64| Accounted {
        net: [(org(n), (servers, policies, 0))].into(),
        ..Accounted::default()
    };
    let deleted = Accounted { deleted: [org(1)].into(), ..Accounted::default() };
    let accepted = Accounted { accepted: true, ..Accounted::default() };
    // Before, now, the log, and whether that is held.
    #[rustfmt::skip]
    let table = [
        ("nothing", vec![(1, 4, 4)], vec![(1, 4, 4)], nothing.clone(), false),
        ("less than half", vec![(1, 4, 4)], vec![(1, 2, 2)], nothing.clone(), false),
        ("most servers", vec![(1, 4, 4)], vec![(1, 1, 4)], nothing.clone(), true),
        ("most policies", vec![(1, 4, 4)], vec![(1, 4, 1)], nothing.clone(), true),
        ("everything", vec![(1, 4, 4), (2, 1, 0)], vec![], nothing.clone(), true),
        ("everything, recorded", vec![(1, 4, 4)], vec![(1, 0, 0)], net(1, -4, -4), false),
        ("most, half of it recorded", vec![(1, 4, 4)], vec![(1, 1, 4)], net(1, -2, 0), false),
        ("what came since is gone too", vec![(1, 4, 0)], vec![(1, 3, 0)], net(1, 2, 0), true),
        ("a whole organisation", vec![(1, 1, 1), (2, 9, 9)], vec![(2, 9, 9)], nothing.clone(), true),
        ("a whole organisation, recorded", vec![(1, 1, 1), (2, 9, 9)], vec![(2, 9, 9)], deleted.clone(), false),
        ("an empty organisation", vec![(1, 0, 0), (2, 9, 9)], vec![(2, 9, 9)], nothing.clone(), false),
        ("all policies of one", vec![(1, 1, 1), (2, 9, 9)], vec![(1, 1, 0), (2, 9, 9)], nothing, true),
        ("accepted", vec![(1, 4, 4)], vec![], accepted, false),
        ("another one was deleted", vec![(1, 1, 1), (2, 1, 1)], vec![], deleted, true),
    ];
    for (case, last, now, log, held) in table {
        let found = unaccounted(&counts_of(&last), &counts_of(&now), &log, |_| false);
        assert_eq!(found.is_some(), held, "{case}: {found:?}");
    }
    let moved = unaccounted(&counts_of(&[(1, 4, 4)]), &Counts::new(), &Accounted::default(), |id| *id == org(1));
    assert_eq!(moved, None, "it is in another pool now");
}

#[test]
fn a_hold_says_how_much_and_whose() {
    let last = counts_of(&[(1, 2, 0), (2, 2, 3)]);
    let text = unaccounted(&last, &counts_of(&[(2, 2, 3)]), &Accounted::default(), |_| false).unwrap();
    let expected = "2 of 4 servers vanished, all servers, all policies or all limits of organisation \
                    00000000-0000-0000-0000-000000000001";
    assert_eq!(text, expected);
}

#[test]
fn limits_that_vanish_are_held_as_policies_are() {
    let with = |limits| Counts::from([(org(1), Rows { servers: 1, policies: 1, limits })]);
    let nothing = Accounted::default();
    assert_eq!(unaccounted(&with(4), &with(2), &nothing, |_| false), None, "half of them may");
    assert!(unaccounted(&with(4), &with(1), &nothing, |_| false).unwrap().contains("3 of 4 limits"));
    let recorded = Accounted { net: [(org(1), (0, 0, -4))].into(), ..Accounted::default() };
    assert_eq!(unaccounted(&with(4), &with(0), &recorded, |_| false), None);
}
