use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::domain::{
    Labels, Meta,
    rollout::{Share, State},
};

const STEP: Version = Version { epoch: 1, version: 10 };

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn rollout() -> Rollout {
    Rollout {
        id: Uuid::from_u128(9),
        org_id: Uuid::from_u128(7),
        org_slug: "acme".into(),
        pool: "default".into(),
        state: State::Running,
        diff: Vec::new(),
        labels: Labels::new(),
        steps: vec![Share::Nodes(1), Share::Percent(100)],
        step: 0,
        bake: Duration::from_secs(60),
        min_calls: 20,
        canaries: BTreeSet::from([Uuid::from_u128(1)]),
        version: STEP,
        step_started_at: at(1000),
        baking_since: Some(at(1000)),
        halt: None,
        actor: String::new(),
        reason: String::new(),
        meta: Meta::default(),
    }
}

fn canary(version: u64) -> Canary {
    let applied = Version { epoch: 1, version };
    Canary { id: Uuid::from_u128(1), connected: true, applied, refused: Version::default(), problems: Vec::new() }
}

fn facts(seconds: i64, canary: Canary) -> Facts {
    let none = Tally::default();
    Facts { now: at(seconds), canaries: vec![canary], canary_calls: none, control_calls: none, earlier_calls: none }
}

fn halted(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Halt(halt) => Some(halt.reason),
        Decision::Wait(_) | Decision::Bake | Decision::Advance | Decision::Promote => None,
    }
}

#[test]
fn a_step_bakes_from_when_every_connected_canary_runs_it_and_then_goes_on() {
    let (baking, fresh) = (rollout(), Rollout { baking_since: None, ..rollout() });
    let last = Rollout { step: 1, ..rollout() };
    let at_once = Rollout { bake: Duration::ZERO, ..fresh.clone() };
    let away = Canary { connected: false, ..canary(10) };
    let behind_and_away = Canary { connected: false, ..canary(9) };
    let yet = Decision::Wait("a canary does not run the candidate yet");
    let nobody = Decision::Wait("no canary is connected");
    for (name, rollout, canary, now, expected) in [
        ("behind", &fresh, canary(9), 1001, yet.clone()),
        ("arrived", &fresh, canary(10), 1001, Decision::Bake),
        ("newer is fine", &fresh, canary(12), 1001, Decision::Bake),
        ("baking", &baking, canary(10), 1059, Decision::Wait("the step is baking")),
        ("baked", &baking, canary(10), 1060, Decision::Advance),
        ("no bake time", &at_once, canary(10), 1000, Decision::Advance),
        ("the last step", &last, canary(10), 1060, Decision::Promote),
        ("nobody there", &baking, away, 9999, nobody.clone()),
        ("nobody there yet", &fresh, behind_and_away, 9999, nobody),
        ("fell behind while baking", &baking, canary(9), 1100, yet),
    ] {
        assert_eq!(decide(rollout, &facts(now, canary)), expected, "{name}");
    }
    assert_eq!(halted(&decide(&fresh, &facts(1600, canary(9)))), Some(Reason::Stalled));
    let mut two = facts(1001, canary(10));
    two.canaries.push(Canary { connected: false, ..canary(3) });
    assert_eq!(decide(&fresh, &two), Decision::Bake, "one that is away holds nothing up");
}

#[test]
fn what_canaries_refuse_of_the_candidate_halts_it() {
    let version = |version| Version { epoch: 1, version };
    let own = vec![format!("{}: policy p: servers: none", Uuid::from_u128(7))];
    let other = vec![format!("{}: policy p: servers: none", Uuid::from_u128(8))];
    for (name, canary, expected) in [
        ("refused", Canary { refused: STEP, problems: own.clone(), ..canary(9) }, Some(Reason::Refused)),
        ("refused a later one", Canary { refused: version(12), ..canary(10) }, Some(Reason::Refused)),
        ("refused before the step", Canary { refused: version(9), problems: own.clone(), ..canary(8) }, None),
        ("refused, then took a newer one", Canary { refused: version(10), ..canary(11) }, None),
        ("without the organisation", Canary { problems: own.clone(), ..canary(10) }, Some(Reason::Quarantined)),
        ("without another one", Canary { problems: other, ..canary(10) }, None),
        ("without it, before the step", Canary { problems: own.clone(), ..canary(9) }, None),
        ("away, and refused", Canary { connected: false, refused: STEP, ..canary(9) }, Some(Reason::Refused)),
    ] {
        assert_eq!(halted(&decide(&rollout(), &facts(1001, canary))), expected, "{name}");
    }
}

#[test]
fn calls_that_end_badly_more_often_than_elsewhere_halt_it() {
    let tally = |bad, calls| Tally { calls, bad };
    let none = Tally::default();
    for (name, canaries, control, earlier, halts) in [
        ("all denied", tally(20, 20), tally(0, 20), none, true),
        ("too few to tell", tally(19, 19), tally(0, 500), none, false),
        ("as elsewhere", tally(20, 100), tally(200, 1000), none, false),
        ("a little more", tally(14, 100), tally(100, 1000), none, false),
        ("up to twice as many", tally(20, 100), tally(100, 1000), none, false),
        ("more than twice", tally(21, 100), tally(100, 1000), none, true),
        ("within five points", tally(5, 100), tally(0, 1000), none, false),
        ("beyond five points", tally(6, 100), tally(0, 1000), none, true),
        ("too few elsewhere, for now", tally(20, 20), tally(0, 19), none, false),
        ("few elsewhere, enough before", tally(20, 20), tally(0, 5), tally(0, 100), true),
        ("nobody elsewhere, usual before", tally(50, 100), none, tally(500, 1000), false),
        ("nobody to compare with", tally(20, 20), none, none, true),
        ("nobody to compare with, all well", tally(0, 20), none, none, false),
    ] {
        let facts = Facts { canary_calls: canaries, control_calls: control, earlier_calls: earlier, ..facts(1001, canary(10)) };
        assert_eq!(halted(&decide(&rollout(), &facts)), halts.then_some(Reason::Worse), "{name}");
    }
}
