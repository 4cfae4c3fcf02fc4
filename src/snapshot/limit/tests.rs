//! Limits through whole snapshots: what applies to which message, and what is refused.

use proptest::prelude::*;

use super::{Applied, Away, Traffic};
use crate::proto::config::v1::{LimitAway, LimitCost, LimitPer, LimitWindow, Match, RateLimit, Subjects};
use crate::snapshot::fixtures::{ACME, GITHUB, Scope, server};
use crate::snapshot::pattern::Pattern;
use crate::snapshot::{Ask, Snapshot, Subject};

const OTHER: &str = "0190a000-0000-7000-8000-0000000000b2";

fn id(number: usize) -> String {
    format!("0190a000-0000-7000-8000-{number:012x}")
}

fn limit(number: usize, name: &str) -> RateLimit {
    let windows = vec![LimitWindow { limit: 100, seconds: 60 }];
    RateLimit { id: id(number), name: name.into(), windows, ..RateLimit::default() }
}

fn tools(patterns: &[&str]) -> Option<Match> {
    Some(Match { tools: patterns.iter().map(|text| (*text).to_owned()).collect(), ..Match::default() })
}

fn caller<'a>(subject: &'a str, roles: &'a [String]) -> Subject<'a> {
    Subject { subject, api_key: None, roles, groups: &[], anonymous: false }
}

fn call(tool: &str) -> Traffic<'_> {
    Traffic { method: "tools/call", ask: Ask::Tool(tool) }
}

/// Names, patterns and costs of what applies on the first server.
fn applied(snapshot: &Snapshot, subject: &Subject<'_>, traffic: Traffic<'_>) -> Vec<(String, String, u32)> {
    let org = snapshot.org(ACME).unwrap();
    let server = org.servers().find(|server| &*server.id == GITHUB).unwrap();
    let told = |it: Applied<'_>| (it.limit.name.to_string(), it.limit.pattern(it.pattern).to_owned(), it.cost);
    org.limits(server, subject, traffic).into_iter().map(told).collect()
}

#[test]
fn a_message_finds_each_limit_that_it_falls_under_once() {
    let mut scope = Scope::new();
    scope.org.servers.push(server(OTHER, "other"));
    let named = |roles: &[&str], users: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Some(Subjects { roles: owned(roles), users: owned(users), ..Subjects::default() })
    };
    let costs = vec![LimitCost { tools: "search_*".into(), cost: 5 }, LimitCost { tools: "*_all".into(), cost: 9 }];
    scope.org.limits = vec![
        RateLimit { costs, ..limit(1, "a-everything") },
        RateLimit { servers: vec!["other".into()], ..limit(2, "b-elsewhere") },
        RateLimit { r#match: tools(&["*", "search_*", "get_issue"]), ..limit(3, "c-tools") },
        RateLimit { subjects: named(&["engineer"], &["alice"]), servers: vec!["github".into()], ..limit(4, "d-alice") },
        RateLimit { r#match: Some(Match { methods: vec!["tools/list".into()], ..Match::default() }), ..limit(5, "e-lists") },
    ];
    let snapshot = scope.good(None);
    let engineer = ["engineer".to_owned()];
    let (alice, bob) = (caller("alice", &engineer), caller("bob", &[]));
    let found = |subject, traffic| applied(&snapshot, subject, traffic);
    let row = |name: &str, pattern: &str, cost| (name.to_owned(), pattern.to_owned(), cost);
    let all = [row("a-everything", "", 1), row("c-tools", "get_issue", 1), row("d-alice", "", 1)];
    assert_eq!(found(&alice, call("get_issue")), all, "exact names come before patterns; two ways to match count once");
    assert_eq!(found(&bob, call("search_all")), [row("a-everything", "", 9), row("c-tools", "*", 1)]);
    let listing = Traffic { method: "tools/list", ask: Ask::Something };
    assert_eq!(found(&bob, listing), [row("a-everything", "", 1), row("e-lists", "tools/list", 1)]);
    let anonymous = Subject { anonymous: true, ..caller("anonymous", &[]) };
    assert_eq!(found(&anonymous, call("x")), [row("a-everything", "", 1), row("c-tools", "*", 1)]);
}

#[test]
fn what_is_wrong_with_a_limit_is_named() {
    type Change = fn(&mut RateLimit);
    let cases: [(Change, &str); 14] = [
        (|it| it.name = "No".into(), "limit No: name: "),
        (|it| it.id = "x".into(), "limit bad: id: "),
        (|it| it.windows.clear(), "windows: expected at least one window"),
        (|it| it.windows = (1..6).map(|n| LimitWindow { limit: 1, seconds: n }).collect(), "windows: expected at most 4"),
        (|it| it.windows[0].limit = 0, "windows[0].limit: expected 1 to 1000000000"),
        (|it| it.windows[0].seconds = 2_592_001, "windows[0].seconds: expected 1 to 2592000"),
        (|it| it.windows.push(LimitWindow { limit: 7, seconds: 60 }), "windows[1].seconds: expected each length once"),
        (|it| it.per = vec![LimitPer::User.into(); 2], "per[1]: "),
        (|it| it.per = vec![9], "per[0]: "),
        (|it| it.per = vec![LimitPer::Endpoint.into()], "match: expected the endpoints"),
        (|it| it.servers = vec!["gone".into()], "servers[0]: server \"gone\" is not in this organisation"),
        (|it| it.r#match = tools(&[""]), "match.tools[0]: a pattern cannot be empty"),
        (|it| it.costs = vec![LimitCost { tools: "x".into(), cost: 101 }], "costs[0].cost: expected 1 to the smallest"),
        (|it| it.when_away = 9, "when_away: 9 is not a value"),
    ];
    for (change, expected) in cases {
        let mut scope = Scope::new();
        let mut bad = limit(1, "bad");
        change(&mut bad);
        scope.org.limits = vec![bad];
        let problems = crate::snapshot::check_org(std::slice::from_ref(&scope.org));
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].contains(expected), "expected {expected:?}, found {told:?}");
    }
    let mut twice = Scope::new();
    twice.org.limits = vec![limit(1, "one"), limit(1, "one")];
    assert_eq!(crate::snapshot::check_org(std::slice::from_ref(&twice.org)).len(), 2, "id and name");
}

#[test]
fn a_limit_without_windows_caps_what_is_in_flight_and_unknown_is_share() {
    let mut scope = Scope::new();
    let capped = RateLimit { windows: Vec::new(), max_concurrent: 3, when_away: LimitAway::Closed.into(), ..limit(1, "capped") };
    scope.org.limits = vec![capped, limit(2, "plain")];
    let snapshot = scope.good(None);
    let limits: Vec<_> = snapshot.org(ACME).unwrap().all_limits().collect();
    assert_eq!((limits[0].max_concurrent, limits[0].windows.len(), limits[0].away), (Some(3), 0, Away::Closed));
    assert_eq!((limits[1].max_concurrent, limits[1].away), (None, Away::Share));
}

proptest! {
    /// The index finds what reading every limit finds.
    #[test]
    fn the_index_agrees_with_reading_every_limit(
        rules in prop::collection::vec((prop::option::of("[ab]{1}"), prop::collection::vec(
            prop::sample::select(vec!["*", "a*", "*b", "ab", "a*b", "b"]), 0..3)), 0..12),
        role in "[abc]{1}",
        name in "[ab]{0,3}",
    ) {
        let mut scope = Scope::new();
        scope.org.limits = rules.iter().enumerate().map(|(number, (role, patterns))| {
            let subjects = role.clone().map(|role| Subjects { roles: vec![role], ..Subjects::default() });
            RateLimit { subjects, r#match: tools(patterns), ..limit(number, &format!("l{number:02}")) }
        }).collect();
        let snapshot = scope.good(None);
        let expected: Vec<String> = rules.iter().enumerate().filter(|(_, (wanted, patterns))| {
            wanted.as_ref().is_none_or(|wanted| *wanted == role)
                && (patterns.is_empty() || patterns.iter().any(|text| Pattern::new(text).matches(&name)))
        }).map(|(number, _)| format!("l{number:02}")).collect();
        let roles = [role];
        let found: Vec<String> = applied(&snapshot, &caller("u", &roles), call(&name)).into_iter().map(|it| it.0).collect();
        prop_assert_eq!(found, expected);
    }
}
