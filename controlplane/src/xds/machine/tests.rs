//! The rows of the xDS protocol that a delta server must honour, and the states of a stream, as scripted conversations.
//! Long because it is one table of conversations with one machine. A response is shown as `Type name=content … -removed …`.

use std::collections::BTreeMap;

use mcp_gateway::{
    proto::envoy::service::discovery::v3::DeltaDiscoveryResponse,
    snapshot::{ContentHash, digest},
    type_url::{COVERED, CREDENTIAL_SHARD, GLOBAL, MANIFEST, ORG_BUNDLE, PEERS, REVOCATION, SECRET_ENVELOPE},
};

use super::*;

type Content<'a> = &'a [(&'static str, &'a str, &'a str)];

const BASE: Content<'_> = &[
    (GLOBAL, "global/p", "g1"),
    (SECRET_ENVELOPE, "secrets/p", "s1"),
    (ORG_BUNDLE, "org/a/0", "a1"),
    (ORG_BUNDLE, "org/b/0", "b1"),
    (CREDENTIAL_SHARD, "credentials/p/7", "c1"),
];

fn scope(version: u64, content: Content<'_>) -> Arc<Scope> {
    let mut types: BTreeMap<&'static str, Arc<Resources>> = COVERED.iter().map(|covered| (*covered, Arc::default())).collect();
    for (type_url, name, body) in content {
        Arc::make_mut(types.entry(type_url).or_default()).insert((*name).into(), Encoded::new(body.as_bytes().to_vec()));
    }
    let digest = digest(content.iter().map(|(type_url, name, body)| (*type_url, *name, ContentHash::of(body.as_bytes()))));
    let manifest = Encoded::new(format!("m{version}").into_bytes());
    types.insert(MANIFEST, Arc::new(BTreeMap::from([("manifest/p".into(), manifest)])));
    Arc::new(Scope { version: Version { epoch: 1, version }, digest, types })
}

/// `BASE` with one resource replaced, added, or (content empty) removed.
fn with(version: u64, type_url: &'static str, name: &'static str, body: &str) -> Arc<Scope> {
    let mut content: Vec<_> = BASE.iter().copied().filter(|(t, n, _)| (*t, *n) != (type_url, name)).collect();
    if !body.is_empty() {
        content.push((type_url, name, body));
    }
    scope(version, &content)
}

fn beside(revocation: &str) -> Arc<Beside> {
    let one = |name: &str, body: &str| Arc::new(Resources::from([(name.into(), Encoded::new(body.as_bytes().to_vec()))]));
    Arc::new(Beside { types: BTreeMap::from([(REVOCATION, one("revocation/p", revocation)), (PEERS, one("peers/p", "x"))]) })
}

fn parties() -> Parties {
    Parties { node_id: "n".into(), pool: "p".into(), replica: "r".into(), stream: "s1".into() }
}

fn node(digest: &str) -> Node {
    let digest = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(digest.to_owned())) };
    Node {
        id: "n".into(),
        cluster: "p".into(),
        metadata: Some(prost_types::Struct { fields: BTreeMap::from([("digest".into(), digest)]) }),
        ..Node::default()
    }
}

fn request(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node: Some(node("")), type_url: type_url.into(), ..DeltaDiscoveryRequest::default() }
}

fn subscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_subscribe: names.iter().map(ToString::to_string).collect(), ..request(type_url) }
}

fn unsubscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_unsubscribe: names.iter().map(ToString::to_string).collect(), ..request(type_url) }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), node: None, ..request(&response.type_url) }
}

fn nack(response: &DeltaDiscoveryResponse, code: i32) -> DeltaDiscoveryRequest {
    let status = Status { code, message: "bad".into(), details: Vec::new() };
    DeltaDiscoveryRequest { error_detail: Some(status), ..ack(response) }
}

fn show(response: &DeltaDiscoveryResponse) -> String {
    let mut line = response.type_url.rsplit('.').next().unwrap().to_owned();
    for resource in &response.resources {
        let any = resource.resource.as_ref().unwrap();
        assert_eq!(any.type_url, response.type_url);
        assert_eq!(resource.version, ContentHash::of(&any.value).to_string());
        line += &format!(" {}={}", resource.name, String::from_utf8_lossy(&any.value));
    }
    for name in &response.removed_resources {
        line += &format!(" -{name}");
    }
    line
}

/// A stream with a node that remembers what it was sent.
struct Stream {
    machine: Machine,
    inbox: Vec<DeltaDiscoveryResponse>,
    actions: Vec<Action>,
}

impl Stream {
    fn open(scope: &Arc<Scope>) -> Self {
        Self { machine: Machine::new(parties(), scope.clone(), beside("r1")), inbox: Vec::new(), actions: Vec::new() }
    }

    /// Every covered type and the manifest, in a node's order, with everything acknowledged.
    fn settled(scope: &Arc<Scope>) -> Self {
        let mut stream = Self::open(scope);
        for type_url in COVERED.into_iter().chain([MANIFEST]) {
            stream.say(subscribe(type_url, &["*"]));
        }
        stream.ack_all();
        stream.actions.clear();
        stream
    }

    /// What the machine sends after an event.
    fn after(&mut self, event: Event) -> Vec<String> {
        self.actions.extend(self.machine.step(event));
        let sent: Vec<_> = std::iter::from_fn(|| self.machine.next_response()).collect();
        let lines = sent.iter().map(show).collect();
        self.inbox.extend(sent);
        lines
    }

    fn say(&mut self, request: DeltaDiscoveryRequest) -> Vec<String> {
        self.after(Event::Request(Box::new(request)))
    }

    fn publish(&mut self, scope: &Arc<Scope>) -> Vec<String> {
        self.after(Event::Published(scope.clone()))
    }

    /// Acknowledges everything, also what that brings; returns what it brought.
    fn ack_all(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while !self.inbox.is_empty() {
            for response in std::mem::take(&mut self.inbox) {
                lines.extend(self.say(ack(&response)));
            }
        }
        lines
    }

    fn take(&mut self) -> DeltaDiscoveryResponse {
        self.inbox.remove(0)
    }

    fn last(&mut self) -> DeltaDiscoveryResponse {
        self.inbox.pop().unwrap()
    }
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn the_node_is_bound_by_the_first_request() {
    let anonymous = DeltaDiscoveryRequest { node: None, ..request(GLOBAL) };
    let named = |id: &str, pool: &str| Node { id: id.into(), cluster: pool.into(), ..Node::default() };
    let as_node = |id: &str, pool: &str| DeltaDiscoveryRequest { node: Some(named(id, pool)), ..request(GLOBAL) };
    let table = [
        (vec![anonymous.clone()], Some(Fault::NoNode)),
        (vec![as_node("m", "p")], Some(Fault::OtherNode { claimed: "m".into(), certified: "n".into() })),
        (vec![as_node("n", "q")], Some(Fault::OtherPool { claimed: "q".into(), certified: "p".into() })),
        (vec![as_node("n", "")], None),
        (vec![as_node("n", "p"), anonymous], None),
        (vec![as_node("n", "p"), as_node("n", "p")], None),
        (vec![as_node("n", "p"), as_node("m", "p")], Some(Fault::NodeChanged { bound: "n".into(), claimed: "m".into() })),
        (vec![DeltaDiscoveryRequest { type_url: String::new(), ..as_node("n", "p") }], Some(Fault::NoType)),
    ];
    for (requests, fault) in table {
        let mut stream = Stream::open(&scope(1, BASE));
        for request in requests {
            stream.say(request);
        }
        let expected: Vec<_> = fault.into_iter().map(Action::Close).collect();
        assert_eq!(stream.actions, expected);
    }
}

#[test]
fn a_wildcard_gets_everything_and_the_manifest_comes_last() {
    let mut stream = Stream::open(&scope(1, BASE));
    let mut lines = Vec::new();
    for type_url in COVERED.into_iter().chain([MANIFEST]) {
        lines.extend(stream.say(subscribe(type_url, &["*"])));
    }
    assert_eq!(
        lines,
        [
            "Global global/p=g1",
            "SecretEnvelope secrets/p=s1",
            "OrgBundle org/a/0=a1 org/b/0=b1",
            "CredentialShard credentials/p/7=c1",
            "Manifest manifest/p=m1"
        ]
    );
    assert_eq!(stream.ack_all(), none());
    assert_eq!(stream.actions, [Action::Applied { version: Version { epoch: 1, version: 1 } }]);
}

#[test]
fn a_change_sends_its_delta_and_then_the_manifest() {
    let mut stream = Stream::settled(&scope(1, BASE));
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2")), ["OrgBundle org/b/0=b2", "Manifest manifest/p=m2"]);
    assert_eq!(stream.ack_all(), none());
    assert_eq!(stream.actions, [Action::Applied { version: Version { epoch: 1, version: 2 } }]);
}

#[test]
fn a_removal_names_the_resource() {
    let mut stream = Stream::settled(&scope(1, BASE));
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "")), ["OrgBundle -org/b/0", "Manifest manifest/p=m2"]);
}

#[test]
fn an_empty_first_subscription_is_a_wildcard_and_a_later_empty_one_is_nothing() {
    let mut stream = Stream::open(&scope(1, BASE));
    assert_eq!(stream.say(request(ORG_BUNDLE)), ["OrgBundle org/a/0=a1 org/b/0=b1"]);
    // An explicit name beside it does not end it, unsubscribing from `*` does.
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["org/a/0"])), ["OrgBundle org/a/0=a1"]);
    assert_eq!(stream.say(unsubscribe(ORG_BUNDLE, &["*"])), none());
    stream.ack_all();
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2")), none());
    assert_eq!(stream.say(unsubscribe(ORG_BUNDLE, &["org/a/0"])), none());
    assert_eq!(stream.say(request(ORG_BUNDLE)), none(), "empty again, and not a wildcard again");
}

#[test]
fn subscribing_to_and_from_everything_at_once_is_nothing() {
    let mut stream = Stream::open(&scope(1, BASE));
    let both = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["*".into()], ..subscribe(ORG_BUNDLE, &["*"]) };
    assert_eq!(stream.say(both), none());
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2")), none());
}

#[test]
fn giving_everything_up_and_asking_for_it_in_one_later_request_sends_it_anew() {
    let mut stream = Stream::settled(&scope(1, BASE));
    let anew = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["*".into()], ..subscribe(ORG_BUNDLE, &["*"]) };
    assert_eq!(stream.say(anew), ["OrgBundle org/a/0=a1 org/b/0=b1"]);
    stream.ack_all();
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2")), ["OrgBundle org/b/0=b2", "Manifest manifest/p=m2"]);
}

#[test]
fn a_node_that_another_replica_brought_further_is_not_told_of_the_past() {
    let mut stream = Stream::open(&scope(4, BASE));
    let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
    let fields = [("digest", "feed"), ("epoch", "1"), ("applied_version", "6")].map(|(key, value)| (key.into(), text(value)));
    let ahead = Node { metadata: Some(prost_types::Struct { fields: fields.into() }), ..node("") };
    assert_eq!(stream.say(DeltaDiscoveryRequest { node: Some(ahead), ..subscribe(GLOBAL, &["*"]) }), none());
    assert_eq!(stream.say(subscribe(MANIFEST, &["*"])), none());
    assert!(stream.machine.is_behind());
    assert_eq!(stream.say(subscribe(REVOCATION, &["*"])), ["Revocation revocation/p=r1"], "which is always told");
    assert_eq!(stream.publish(&scope(5, BASE)), none());
    assert_eq!(stream.publish(&with(6, GLOBAL, "global/p", "g6")), ["Global global/p=g6", "Manifest manifest/p=m6"]);
    assert!(!stream.machine.is_behind());
}

#[test]
fn only_subscribed_names_are_sent() {
    let mut stream = Stream::open(&scope(1, BASE));
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["org/b/0", "org/b/0"])), ["OrgBundle org/b/0=b1"]);
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["org/a/0"])), ["OrgBundle org/a/0=a1"]);
    assert_eq!(stream.say(unsubscribe(ORG_BUNDLE, &["org/b/0"])), none());
    stream.ack_all();
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2")), none());
}

#[test]
fn subscribing_again_sends_again() {
    let mut stream = Stream::settled(&scope(1, BASE));
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["org/a/0"])), ["OrgBundle org/a/0=a1"]);
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["*"])), ["OrgBundle org/a/0=a1 org/b/0=b1"]);
    stream.say(unsubscribe(GLOBAL, &["*"]));
    assert_eq!(stream.say(subscribe(GLOBAL, &["*"])), ["Global global/p=g1"]);
}

#[test]
fn unsubscribing_a_name_that_the_wildcard_covers_is_answered() {
    let mut stream = Stream::settled(&scope(1, BASE));
    assert_eq!(stream.say(unsubscribe(ORG_BUNDLE, &["org/a/0"])), ["OrgBundle org/a/0=a1"]);
    assert_eq!(stream.say(unsubscribe(ORG_BUNDLE, &["org/z/0"])), ["OrgBundle -org/z/0"]);
}

#[test]
fn a_name_that_does_not_exist_is_remembered() {
    let mut stream = Stream::open(&scope(1, BASE));
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["org/z/0"])), ["OrgBundle -org/z/0"]);
    stream.ack_all();
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/z/0", "z1")), ["OrgBundle org/z/0=z1"]);
    stream.ack_all();
    assert_eq!(stream.publish(&scope(3, BASE)), ["OrgBundle -org/z/0"]);
    stream.ack_all();
    assert_eq!(stream.publish(&with(4, ORG_BUNDLE, "org/z/0", "z2")), ["OrgBundle org/z/0=z2"]);
}

#[test]
fn a_wildcard_over_nothing_is_answered_once() {
    let empty: Vec<_> = BASE.iter().copied().filter(|(type_url, ..)| *type_url != CREDENTIAL_SHARD).collect();
    let mut stream = Stream::open(&scope(1, &empty));
    assert_eq!(stream.say(subscribe(CREDENTIAL_SHARD, &["*"])), ["CredentialShard"]);
    assert_eq!(stream.ack_all(), none());
    assert_eq!(stream.publish(&scope(2, BASE)), ["CredentialShard credentials/p/7=c1"]);
}

#[test]
fn initial_versions_count_in_the_first_request_of_a_type_only() {
    let initial = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, body)| (name.to_string(), ContentHash::of(body.as_bytes()).to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    let mut stream = Stream::open(&scope(1, BASE));
    let first = DeltaDiscoveryRequest {
        initial_resource_versions: initial(&[("org/a/0", "a1"), ("org/b/0", "b0"), ("org/gone/0", "x")]),
        ..subscribe(ORG_BUNDLE, &["*"])
    };
    assert_eq!(stream.say(first), ["OrgBundle org/b/0=b1 -org/gone/0"]);
    let later = DeltaDiscoveryRequest { initial_resource_versions: initial(&[("org/b/0", "b0")]), ..request(ORG_BUNDLE) };
    assert_eq!(stream.say(later), none());
}

#[test]
fn an_unchanged_digest_costs_one_message() {
    // A type without any resource is known as well as the others.
    let no_keys: Vec<_> = BASE.iter().copied().filter(|(type_url, ..)| *type_url != CREDENTIAL_SHARD).collect();
    let scope = scope(9, &no_keys);
    let mut stream = Stream::open(&scope);
    let mut lines = Vec::new();
    for type_url in COVERED.into_iter().chain([MANIFEST]) {
        let known = DeltaDiscoveryRequest { node: Some(node(&scope.digest.to_string())), ..subscribe(type_url, &["*"]) };
        lines.extend(stream.say(known));
    }
    assert_eq!(lines, ["Manifest manifest/p=m9"]);
    stream.ack_all();
    assert_eq!(stream.actions, [Action::Applied { version: Version { epoch: 1, version: 9 } }]);
    assert_eq!(
        stream.publish(&with(10, GLOBAL, "global/p", "g2")),
        ["Global global/p=g2", "CredentialShard credentials/p/7=c1", "Manifest manifest/p=m10"]
    );
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["*"])), ["OrgBundle org/a/0=a1 org/b/0=b1"], "unless it resynchronises");
}

#[test]
fn a_digest_that_was_overtaken_is_not_trusted_for_types_that_come_later() {
    let old = scope(1, BASE);
    let mut stream = Stream::open(&old);
    stream.say(DeltaDiscoveryRequest { node: Some(node(&old.digest.to_string())), ..subscribe(MANIFEST, &["*"]) });
    stream.ack_all();
    stream.publish(&with(2, ORG_BUNDLE, "org/a/0", "a2"));
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["*"])), ["OrgBundle org/a/0=a2 org/b/0=b1"]);
}

/// A first request that says what the node holds by nothing but a digest.
fn brief(digest: &str, type_url: &str) -> DeltaDiscoveryRequest {
    let mut node = node(digest);
    let holds = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("digest".to_owned())) };
    node.metadata.get_or_insert_default().fields.insert("holds".into(), holds);
    DeltaDiscoveryRequest { node: Some(node), ..subscribe(type_url, &["*"]) }
}

#[test]
fn what_a_node_holds_by_its_digest_is_what_it_is_compared_with_however_late_it_asks() {
    let old = scope(1, BASE);
    let mut stream = Stream::open(&old);
    stream.say(brief(&old.digest.to_string(), MANIFEST));
    stream.ack_all();
    stream.publish(&with(2, ORG_BUNDLE, "org/a/0", "a2"));
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["*"])), ["OrgBundle org/a/0=a2"]);
}

#[test]
fn a_digest_that_stands_for_what_nobody_knows_ends_the_stream() {
    let mut stream = Stream::open(&scope(1, BASE));
    assert_eq!(stream.say(brief("feed", GLOBAL)), none());
    assert_eq!(stream.actions, [Action::Close(Fault::UnknownDigest)]);
}

#[test]
fn an_unknown_digest_gets_the_difference_to_what_the_node_holds() {
    let mut stream = Stream::open(&scope(2, BASE));
    let held = |name: &str, body: &str| BTreeMap::from([(name.to_owned(), ContentHash::of(body.as_bytes()).to_string())]);
    let first = |type_url, name, body| DeltaDiscoveryRequest {
        node: Some(node("feed")),
        initial_resource_versions: held(name, body),
        ..subscribe(type_url, &["*"])
    };
    assert_eq!(stream.say(first(GLOBAL, "global/p", "g1")), none());
    assert_eq!(stream.say(first(ORG_BUNDLE, "org/a/0", "a0")), ["OrgBundle org/a/0=a1 org/b/0=b1"]);
    assert_eq!(stream.say(first(MANIFEST, "manifest/p", "m2")), ["Manifest manifest/p=m2"]);
}

#[test]
fn newer_versions_replace_the_target_while_a_chain_is_in_flight() {
    let mut stream = Stream::settled(&scope(1, BASE));
    assert_eq!(stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2")).len(), 2);
    for version in 3..=6 {
        assert_eq!(stream.publish(&with(version, ORG_BUNDLE, "org/b/0", &format!("b{version}"))), none());
    }
    assert_eq!(stream.ack_all(), ["OrgBundle org/b/0=b6", "Manifest manifest/p=m6"]);
    let applied: Vec<_> = [2, 6].map(|version| Action::Applied { version: Version { epoch: 1, version } }).into();
    assert_eq!(stream.actions, applied);
}

#[test]
fn a_subscription_in_mid_chain_is_served_from_the_scope_of_the_chain() {
    let mut stream = Stream::open(&scope(1, BASE));
    stream.say(subscribe(GLOBAL, &["*"]));
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2"));
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["*"])), ["OrgBundle org/a/0=a1 org/b/0=b1"]);
    assert_eq!(stream.ack_all(), ["OrgBundle org/b/0=b2"]);
}

#[test]
fn the_manifest_s_answer_settles_what_came_before_it() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2"));
    let (bundle, manifest) = (stream.take(), stream.take());
    stream.publish(&with(3, ORG_BUNDLE, "org/b/0", "b3"));
    assert_eq!(stream.say(ack(&manifest)), ["OrgBundle org/b/0=b3", "Manifest manifest/p=m3"]);
    assert_eq!(stream.say(nack(&bundle, 3)), none(), "stale by now");
    assert_eq!(stream.actions.len(), 1);
}

#[test]
fn stale_nonce_unsubscribe_is_honoured() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, GLOBAL, "global/p", "g2"));
    let stale = DeltaDiscoveryRequest {
        response_nonce: "s0-1".into(),
        error_detail: Some(Status::default()),
        ..unsubscribe(ORG_BUNDLE, &["*"])
    };
    assert_eq!(stream.say(stale), none());
    stream.ack_all();
    assert_eq!(stream.actions, [Action::Applied { version: Version { epoch: 1, version: 2 } }], "its refusal was not");
    assert_eq!(stream.publish(&with(3, ORG_BUNDLE, "org/b/0", "b3")), ["Global global/p=g1", "Manifest manifest/p=m3"]);
}

#[test]
fn nonces_of_another_stream_or_type_answer_nothing() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, GLOBAL, "global/p", "g2"));
    let (global, manifest) = (stream.take(), stream.take());
    for nonce in ["1", "", "s2-6", "s1-999", "s1-x", &global.nonce.clone()] {
        let foreign = DeltaDiscoveryRequest { response_nonce: nonce.into(), ..request(MANIFEST) };
        assert_eq!(stream.say(foreign), none());
    }
    assert_eq!(stream.actions, []);
    stream.say(ack(&manifest));
    assert_eq!(stream.actions.len(), 1);
    stream.say(ack(&manifest));
    assert_eq!(stream.actions.len(), 1, "an acknowledgement counts once");
}

#[test]
fn a_refused_resource_is_not_sent_again_but_the_next_content_is() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "bad"));
    let (bundle, manifest) = (stream.take(), stream.take());
    assert_eq!(stream.say(nack(&bundle, 3)), none());
    let refusal = Refusal {
        type_url: ORG_BUNDLE.into(),
        version: Version { epoch: 1, version: 2 },
        names: vec!["org/b/0".into()],
        code: 3,
        message: "bad".into(),
    };
    assert_eq!(stream.actions, [Action::Refused(refusal)]);
    stream.say(ack(&manifest));
    assert_eq!(stream.say(subscribe(ORG_BUNDLE, &["*"])), ["OrgBundle org/a/0=a1"], "also not when asked again");
    stream.ack_all();
    assert_eq!(stream.publish(&with(3, ORG_BUNDLE, "org/b/0", "b3")), ["OrgBundle org/b/0=b3", "Manifest manifest/p=m3"]);
}

#[test]
fn nack_is_not_resent_forever() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "bad"));
    let (bundle, manifest) = (stream.take(), stream.take());
    stream.say(ack(&bundle));
    assert_eq!(stream.say(nack(&manifest, 3)), none());
    assert_eq!(stream.say(subscribe(MANIFEST, &["*"])), none(), "the same digest, not even when asked");
    assert_eq!(stream.publish(&with(3, ORG_BUNDLE, "org/b/0", "bad")), none(), "not under another version either");
    assert_eq!(stream.publish(&with(4, ORG_BUNDLE, "org/b/0", "good")), ["OrgBundle org/b/0=good", "Manifest manifest/p=m4"]);
    stream.ack_all();
    assert_eq!(stream.actions.last(), Some(&Action::Applied { version: Version { epoch: 1, version: 4 } }));
}

#[test]
fn a_refusal_leaves_the_way_back_open() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "bad"));
    let manifest = stream.last();
    stream.say(nack(&manifest, 3));
    assert_eq!(stream.publish(&scope(3, BASE)), ["OrgBundle org/b/0=b1", "Manifest manifest/p=m3"]);
}

#[test]
fn lost_data_is_sent_once_more_and_only_once() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "b2"));
    let manifest = stream.last();
    let all = [
        "Global global/p=g1",
        "SecretEnvelope secrets/p=s1",
        "OrgBundle org/a/0=a1 org/b/0=b2",
        "CredentialShard credentials/p/7=c1",
        "Manifest manifest/p=m2",
    ];
    assert_eq!(stream.say(nack(&manifest, CODE_DATA_LOSS)), all);
    let manifest = stream.last();
    assert_eq!(stream.say(nack(&manifest, CODE_DATA_LOSS)), none());
    assert_eq!(stream.actions.len(), 2);
}

#[test]
fn a_manifest_applied_in_part_is_not_refused() {
    let mut stream = Stream::settled(&scope(1, BASE));
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "bad"));
    let manifest = stream.last();
    stream.say(nack(&manifest, CODE_OK));
    assert!(matches!(&stream.actions[..], [Action::Refused(refusal)] if refusal.code == CODE_OK));
    assert_eq!(stream.say(subscribe(MANIFEST, &["*"])), ["Manifest manifest/p=m2"]);
}

#[test]
fn what_travels_beside_is_never_held_up() {
    let mut stream = Stream::settled(&scope(1, BASE));
    assert_eq!(stream.say(subscribe(REVOCATION, &["*"])), ["Revocation revocation/p=r1"]);
    assert_eq!(stream.say(subscribe(PEERS, &["*"])), ["Peers peers/p=x"]);
    stream.publish(&with(2, ORG_BUNDLE, "org/b/0", "bad"));
    let manifest = stream.last();
    // A chain in flight, an unanswered revocation, a refused configuration: none of them matters.
    assert_eq!(stream.after(Event::Beside(beside("r2"))), ["Revocation revocation/p=r2"]);
    stream.say(nack(&manifest, 3));
    assert_eq!(stream.after(Event::Beside(beside("r3"))), ["Revocation revocation/p=r3"]);
    assert_eq!(stream.after(Event::Beside(beside("r3"))), none());
}

#[test]
fn responses_stay_within_their_limit() {
    let large = "x".repeat(RESPONSE_BYTES * 2 / 5);
    let bodies: Vec<_> = (0..5).map(|n| format!("{n}{large}")).collect();
    let names = ["org/0/0", "org/1/0", "org/2/0", "org/3/0", "org/4/0"];
    let content: Vec<_> = names.iter().zip(&bodies).map(|(name, body)| (ORG_BUNDLE, *name, body.as_str())).collect();
    let mut stream = Stream::open(&scope(1, &content));
    stream.say(subscribe(ORG_BUNDLE, &["*"]));
    let counts: Vec<_> = stream.inbox.iter().map(|response| response.resources.len()).collect();
    assert_eq!(counts, [2, 2, 1]);
    for response in &stream.inbox {
        assert!(prost::Message::encoded_len(response) <= RESPONSE_BYTES);
    }
    let mut nonces: Vec<_> = stream.inbox.iter().map(|response| &response.nonce).collect();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
}

#[test]
fn a_type_that_we_do_not_have_is_empty() {
    let mut stream = Stream::open(&scope(1, BASE));
    assert_eq!(stream.say(subscribe("t/foreign.Thing", &["*"])), ["Thing"]);
    assert_eq!(stream.say(subscribe("t/foreign.Other", &["x"])), ["Other -x"]);
    assert_eq!(stream.ack_all(), none());
}

#[test]
fn a_stream_that_asks_for_too_much_ends() {
    let mut stream = Stream::open(&scope(1, BASE));
    for n in 0..=MAX_TYPES {
        stream.say(subscribe(&format!("t/type{n}"), &["*"]));
    }
    assert_eq!(stream.actions, [Action::Close(Fault::Excessive { what: "resource types" })]);
    let mut stream = Stream::open(&scope(1, BASE));
    let names: Vec<_> = (0..=crate::xds::subscription::MAX_NAMES).map(|n| format!("org/{n}/0")).collect();
    stream.say(DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(ORG_BUNDLE) });
    assert_eq!(stream.actions, [Action::Close(Fault::Excessive { what: "names" })]);
    let mut stream = Stream::settled(&scope(1, BASE));
    for _ in 0..=MAX_OUTSTANDING + 1 {
        stream.say(subscribe(GLOBAL, &["*"]));
    }
    assert!(matches!(stream.actions.first(), Some(Action::Close(Fault::Excessive { .. }))));
}

#[test]
fn another_replica_sends_the_same_bytes() {
    let published = with(2, ORG_BUNDLE, "org/b/0", "b2");
    let lines = |mut stream: Stream| {
        let held = BASE.iter().filter(|(t, ..)| *t == ORG_BUNDLE);
        let held = held.map(|(_, n, b)| ((*n).to_owned(), ContentHash::of(b.as_bytes()).to_string())).collect();
        let first = DeltaDiscoveryRequest { initial_resource_versions: held, ..subscribe(ORG_BUNDLE, &["*"]) };
        let mut lines = stream.say(first);
        lines.extend(stream.say(subscribe(MANIFEST, &["*"])));
        lines
    };
    assert_eq!(lines(Stream::open(&published)), ["OrgBundle org/b/0=b2", "Manifest manifest/p=m2"]);
    assert_eq!(lines(Stream::open(&published.clone())), lines(Stream::open(&published)));
}
