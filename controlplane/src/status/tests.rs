//! How a node stands, and what which viewer reads of it.

use mcp_gateway::{snapshot::digest, type_url};

use super::*;
use crate::{
    domain::Meta,
    publish::scope::{Beside, Scope},
    store::{node_status::Vitals, publish::Head},
};

const ACME: Uuid = Uuid::from_u128(0xacce);
const OTHER: Uuid = Uuid::from_u128(0x07e5);

fn version(version: u64) -> Version {
    Version { epoch: 1, version }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn joined_at(seconds: i64) -> Meta {
    Meta { revision: 1, config_version: 0, created_at: at(seconds), updated_at: at(seconds) }
}

/// Pool `p` should run version 5.
fn published() -> Arc<Published> {
    let hash = mcp_gateway::snapshot::ContentHash::of(b"");
    let digest = digest([(type_url::GLOBAL, "global/p", hash)]);
    let scope = Scope { version: version(5), digest, types: BTreeMap::new() };
    Arc::new(Published {
        head: Head { version: version(7), committed_at: at(700) },
        scopes: BTreeMap::from([("p".into(), Arc::new(scope))]),
        trials: BTreeMap::new(),
        beside: BTreeMap::from([("p".into(), Arc::new(Beside::default()))]),
        voids: Arc::default(),
        holds: BTreeMap::new(),
    })
}

fn node(applied: u64, refused: u64, problems: &[&str]) -> Node {
    Node {
        id: Uuid::from_u128(1),
        display_name: String::new(),
        pool: "p".into(),
        certificate_expires_at: at(9000),
        labels: BTreeMap::new(),
        meta: joined_at(0),
        connected: true,
        applied: version(applied),
        build: String::new(),
        refused: if refused == 0 { Version::default() } else { version(refused) },
        problems: problems.iter().map(|line| (*line).to_owned()).collect(),
        last_seen_at: Some(at(1000)),
        reported_at: None,
        vitals: Vitals::default(),
        advertise: String::new(),
    }
}

fn look() -> Look {
    let slugs = BTreeMap::from([(ACME, "acme".to_owned()), (OTHER, "other".to_owned())]);
    let since = BTreeMap::from([(("p".to_owned(), version(3)), at(400))]);
    Look { nodes: Vec::new(), published: Some(published()), since, slugs, at: at(1000) }
}

fn member(org: Uuid) -> Viewer {
    Viewer::Member { org, pool: "p".into() }
}

#[test]
fn a_node_is_in_exactly_one_state() {
    let line = format!("org/{ACME}: server x: bad");
    let quarantine = [line.as_str()];
    let table: [(&str, Node, NodeState); 9] = [
        ("runs it", node(5, 0, &[]), NodeState::Current),
        ("runs a newer one that another replica published", node(6, 0, &[]), NodeState::Current),
        ("runs it in part", node(5, 0, &quarantine), NodeState::Quarantining),
        ("has not answered yet", node(3, 0, &[]), NodeState::Behind),
        ("ran the one before in part", node(3, 0, &quarantine), NodeState::Behind),
        ("refused the one before", node(3, 4, &["bad"]), NodeState::Behind),
        ("refused it", node(3, 5, &["bad"]), NodeState::Refused),
        ("runs one that the restored database does not know", node(9, 5, &["restored?"]), NodeState::Refused),
        ("is away", Node { connected: false, ..node(5, 0, &[]) }, NodeState::Disconnected),
    ];
    for (case, node, expected) in table {
        assert_eq!(look().state(&node, &Viewer::Platform), expected, "{case}");
    }
    let unread = Look { published: None, ..look() };
    assert_eq!(unread.state(&node(5, 0, &[]), &Viewer::Platform), NodeState::Unspecified);
}

#[test]
fn nobody_reads_what_is_wrong_with_another_organisation() {
    let of = |org: Uuid| format!("org/{org}: server x: bad");
    let shared = format!("org/{ACME}: slug: \"x\" is also the slug of org/{OTHER}");
    let node = node(5, 0, &[&of(OTHER), &shared]);
    let look = look();
    assert_eq!(
        look.problems(&node, &Viewer::Platform),
        ["organizations/other: server x: bad", "organizations/acme: slug: \"x\" is also the slug of organizations/other"]
    );
    assert_eq!(look.problems(&node, &member(ACME)), ["organizations/acme: slug: \"x\" is also the slug of another organisation"]);
    let third = member(Uuid::from_u128(3));
    assert_eq!(look.problems(&node, &third), Vec::<String>::new());
    assert_eq!(look.state(&node, &third), NodeState::Current, "nothing of its own is quarantined");
    assert_eq!(look.wire(&node, &third).quarantined, 0);
}

#[test]
fn a_refusal_for_something_else_is_told_without_its_reason() {
    let node = node(3, 5, &["server y: bad"]);
    assert_eq!(look().state(&node, &member(ACME)), NodeState::Refused);
    assert_eq!(look().problems(&node, &member(ACME)), [words::ELSEWHERE]);
}

#[test]
fn a_line_that_is_no_name_of_an_organisation_stays_as_it_is() {
    let gone = format!("org/{}: gone", Uuid::from_u128(9));
    for line in ["org/", "org/short: x", "an org/é", "plain", &gone] {
        assert_eq!(words::of(line, &Viewer::Platform, &look().slugs).as_deref(), Some(line));
        assert_eq!(words::of(line, &member(ACME), &look().slugs), None, "{line}");
    }
}

#[test]
fn a_node_is_behind_since_the_first_change_that_it_lacks_but_not_since_before_it_joined() {
    let look = look();
    assert_eq!(look.behind_since(&node(5, 0, &[])), None);
    assert_eq!(look.behind_since(&node(3, 0, &[])), Some(at(400)));
    assert_eq!(look.behind_since(&Node { meta: joined_at(500), ..node(3, 0, &[]) }), Some(at(500)));
}

#[test]
fn staleness_goes_on_after_the_last_report() {
    let told = |connected, stale_seconds| {
        let vitals = Vitals { stale_seconds, ..Vitals::default() };
        look().stale(&Node { connected, vitals, reported_at: Some(at(990)), ..node(5, 0, &[]) }).as_secs()
    };
    assert_eq!([told(true, 0), told(true, 60), told(false, 0), told(false, 60)], [0, 70, 10, 70]);
}

#[test]
fn a_held_pool_is_shown_even_if_nothing_of_it_was_ever_published() {
    let mut published = (*published()).clone();
    published.holds.insert("p".into(), "all servers of organisation other".into());
    published.holds.insert("q".into(), "why".into());
    let look = Look { published: Some(Arc::new(published)), ..look() };
    let pools = look.pools("", &Viewer::Platform).unwrap();
    let shown: Vec<_> = pools.iter().map(|pool| (pool.pool.as_str(), pool.version, pool.hold.as_str())).collect();
    assert_eq!(shown, [("p", 5, "all servers of organisation other"), ("q", 0, "why")]);
    assert_eq!(look.pools("", &member(ACME)).unwrap()[0].hold, words::HELD, "it may name another organisation");
}
