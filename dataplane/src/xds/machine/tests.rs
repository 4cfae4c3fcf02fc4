//! The machine against the xDS protocol and its known incidents, row by row as far as a node is concerned.
//! Long because it is one table of conversations with one machine.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use mcp_gateway::proto::config::v1::{ApiKey, CredentialShard, Global, OrgBundle, Peer, SecretEnvelope, ServerEndpoints};
use mcp_gateway::proto::envoy::service::discovery::v3::Resource;
use mcp_gateway::snapshot::{ContentHash, sign_manifest};
use prost::Message;

use super::*;

const ORG: &str = "0190a000-0000-7000-8000-0000000000a1";
const OTHER: &str = "0190a000-0000-7000-8000-0000000000a2";
const KEY: &str = "m1";

struct Node {
    machine: Machine,
    signer: Ed25519KeyPair,
    nonce: u64,
}

/// What one step said and did, without the details.
#[derive(Debug, PartialEq)]
enum Did {
    Ack(&'static str),
    /// Type, google.rpc.Code, and text that must be in the message.
    Nack(&'static str, i32),
    Subscribed(&'static str),
    Resubscribed(&'static str),
    Compile,
    Swap,
    Revoke,
    SetEndpoints(usize),
    SetPeers(usize),
    Renew,
    Reconnect,
}

impl Node {
    fn new() -> Self {
        let about =
            About { node_id: "n1".into(), pool: "default".into(), build: "0.3.1".into(), advertise: "10.0.0.1:9000".into() };
        let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Self { machine: Machine::new(about, Backoff::new(|| 0.5)), signer, nonce: 0 }
    }

    fn connected() -> Self {
        let mut node = Self::new();
        node.connect();
        node
    }

    fn connect(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let manifest_keys = BTreeMap::from([(KEY.to_owned(), self.signer.public_key().as_ref().to_vec())]);
        sent(self.machine.step(Event::Connected { manifest_keys }))
    }

    /// A node that serves version 1 of [`first`].
    fn serving() -> Self {
        let mut node = Self::connected();
        node.deliver(&first());
        assert_eq!(node.manifest(1, &first()), [Did::Compile]);
        assert_eq!(node.compiled(Ok(())), [Did::Swap, Did::Ack(type_url::MANIFEST)]);
        node
    }

    fn respond(&mut self, type_url: &str, resources: Vec<Resource>) -> Vec<Action> {
        self.respond_removing(type_url, resources, &[])
    }

    fn respond_removing(&mut self, type_url: &str, resources: Vec<Resource>, removed: &[&str]) -> Vec<Action> {
        self.nonce += 1;
        self.machine.step(Event::Received(DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: self.nonce.to_string(),
            system_version_info: "nobody reads this".into(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            control_plane: None,
        }))
    }

    /// Sends resources, one response per type; all must be acknowledged.
    fn deliver(&mut self, content: &[(&'static str, Resource)]) {
        for type_url in type_url::COVERED {
            let of_type: Vec<_> =
                content.iter().filter(|(of, _)| *of == type_url).map(|(_, resource)| resource.clone()).collect();
            let did = did(self.respond(type_url, of_type));
            assert_eq!(did, [Did::Ack(type_url)]);
        }
    }

    fn manifest(&mut self, version: u64, content: &[(&'static str, Resource)]) -> Vec<Did> {
        let manifest = manifest(version, content);
        self.signed(manifest)
    }

    fn signed(&mut self, mut manifest: Manifest) -> Vec<Did> {
        sign_manifest(&mut manifest, KEY, &self.signer);
        did(self.respond(type_url::MANIFEST, vec![resource(type_url::MANIFEST, "manifest/default", &manifest)]))
    }

    fn compiled(&mut self, result: Result<(), Vec<Problem>>) -> Vec<Did> {
        let ticket = self.machine.compiling.as_ref().unwrap().ticket;
        let result = result.map(|()| Vec::new());
        did(self.machine.step(Event::Compiled { ticket, result }))
    }

    fn lose(&mut self) {
        assert_eq!(did(self.machine.step(Event::Lost(Lost::Failed))), [Did::Reconnect]);
    }

    fn version(&self) -> Option<u64> {
        self.machine.applied.as_ref().map(|applied| applied.version.version)
    }
}

fn resource(type_url: &str, name: &str, message: &impl Message) -> Resource {
    let value = message.encode_to_vec();
    Resource {
        version: ContentHash::of(&value).to_string(),
        resource: Some(prost_types::Any { type_url: type_url.into(), value }),
        name: name.into(),
        aliases: vec![],
    }
}

fn bundle(org: &str, chunk: u32) -> (&'static str, Resource) {
    let body = OrgBundle { org_id: org.into(), chunk, chunk_count: chunk + 1, ..OrgBundle::default() };
    (type_url::ORG_BUNDLE, resource(type_url::ORG_BUNDLE, &format!("org/{org}/{chunk}"), &body))
}

fn shard(number: u32) -> (&'static str, Resource) {
    let body = CredentialShard { shard: number, keys: vec![] };
    (type_url::CREDENTIAL_SHARD, resource(type_url::CREDENTIAL_SHARD, &format!("credentials/default/{number}"), &body))
}

/// One resource of each covered type.
fn first() -> Vec<(&'static str, Resource)> {
    let global = Global { pool: "default".into(), ..Global::default() };
    vec![
        (type_url::GLOBAL, resource(type_url::GLOBAL, "global/default", &global)),
        (type_url::SECRET_ENVELOPE, resource(type_url::SECRET_ENVELOPE, "secrets/default", &SecretEnvelope::default())),
        shard(7),
        bundle(ORG, 0),
    ]
}

fn second() -> Vec<(&'static str, Resource)> {
    [first(), vec![bundle(OTHER, 0)]].concat()
}

fn manifest(version: u64, content: &[(&'static str, Resource)]) -> Manifest {
    let mut staged = Staged::new();
    for (type_url, resource) in content {
        staged.put(type_url, &resource.name, resource.resource.clone().unwrap().value.into()).unwrap();
    }
    Manifest {
        epoch: 1,
        version,
        scope: "default".into(),
        digest: staged.digest().as_bytes().to_vec().into(),
        resource_count: u32::try_from(content.len()).unwrap(),
        ..Manifest::default()
    }
}

fn sent(actions: Vec<Action>) -> Vec<DeltaDiscoveryRequest> {
    actions.into_iter().map(|action| if let Action::Send(request) = action { request } else { panic!("{action:?}") }).collect()
}

fn did(actions: Vec<Action>) -> Vec<Did> {
    let known = |name: &str| {
        let types = [type_url::MANIFEST].into_iter().chain(type_url::BESIDE).chain(type_url::COVERED);
        types.into_iter().find(|known| *known == name).unwrap_or("unknown")
    };
    let of = |action: Action| match action {
        Action::Send(request) => match (&request.error_detail, request.response_nonce.as_str()) {
            (Some(status), _) => Did::Nack(known(&request.type_url), status.code),
            (None, "") if request.resource_names_unsubscribe.is_empty() => Did::Subscribed(known(&request.type_url)),
            (None, "") => Did::Resubscribed(known(&request.type_url)),
            (None, _) => Did::Ack(known(&request.type_url)),
        },
        Action::Compile { .. } => Did::Compile,
        Action::Swap { .. } => Did::Swap,
        Action::Revoke { .. } => Did::Revoke,
        Action::SetEndpoints { endpoints, .. } => Did::SetEndpoints(endpoints.servers.len()),
        Action::SetPeers(peers) => Did::SetPeers(peers.peers.len()),
        Action::RenewCredentials => Did::Renew,
        Action::Reconnect { .. } => Did::Reconnect,
    };
    actions.into_iter().map(of).collect()
}

fn message(actions: Vec<Action>) -> String {
    let [Action::Send(request)] = &actions[..] else { panic!("{actions:?}") };
    request.error_detail.clone().expect("a refusal").message
}

#[test]
fn the_first_request_of_each_type_subscribes_to_all_and_only_the_very_first_carries_the_node() {
    let requests = Node::new().connect();
    let types: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(types.len(), 8);
    assert_eq!(types[..3], type_url::BESIDE);
    assert_eq!(types[3..7], type_url::COVERED);
    assert_eq!(types[7], type_url::MANIFEST, "asked for last: everything it covers was asked for before");
    for request in &requests {
        assert_eq!(request.resource_names_subscribe, ["*"]);
        assert!(request.resource_names_unsubscribe.is_empty() && request.initial_resource_versions.is_empty());
        assert!(request.response_nonce.is_empty() && request.error_detail.is_none());
    }
    let node = requests[0].node.as_ref().unwrap();
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("n1", "default"));
    let facts = &node.metadata.as_ref().unwrap().fields;
    assert_eq!(facts["advertise"].kind, Some(Kind::StringValue("10.0.0.1:9000".into())));
    assert!(requests[1..].iter().all(|request| request.node.is_none()));
}

#[test]
fn resources_are_staged_and_swapped_only_when_the_manifest_fits() {
    let mut node = Node::connected();
    node.deliver(&first());
    assert_eq!(node.version(), None, "nothing is in force without a manifest");
    assert_eq!(node.manifest(1, &first()), [Did::Compile]);
    assert_eq!(node.version(), None, "nothing is in force before it compiled");
    assert_eq!(node.compiled(Ok(())), [Did::Swap, Did::Ack(type_url::MANIFEST)]);
    assert_eq!(node.version(), Some(1));
}

#[test]
fn an_answer_carries_the_nonce_of_its_response_and_nothing_else() {
    let mut node = Node::connected();
    let mut content = first();
    let answers = sent(node.respond(content[0].0, vec![content.remove(0).1]));
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].response_nonce, node.nonce.to_string());
    assert!(answers[0].node.is_none() && answers[0].initial_resource_versions.is_empty());
    assert!(answers[0].resource_names_subscribe.is_empty());
}

#[test]
fn a_reconnect_states_what_runs_and_that_nothing_else_is_held_and_no_old_nonce() {
    let mut node = Node::serving();
    node.lose();
    let requests = node.connect();
    assert!(requests.iter().all(|request| request.initial_resource_versions.is_empty()), "the digest says it");
    let fields = requests[0].node.clone().unwrap().metadata.unwrap().fields;
    let text = |name: &str| match &fields[name].kind {
        Some(Kind::StringValue(value)) => value.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((text("epoch"), text("applied_version"), text("build")), ("1".into(), "1".into(), "0.3.1".into()));
    assert_eq!((text("digest"), text("holds")), (hex::encode(&manifest(1, &first()).digest), "digest".into()));
    assert!(requests.iter().all(|request| request.response_nonce.is_empty()));
    // The manifest alone says that nothing changed.
    assert_eq!(node.manifest(1, &first()), [Did::Ack(type_url::MANIFEST)]);
}

#[test]
fn what_is_held_is_spelled_out_where_its_digest_is_unknown_or_never_answered() {
    let spelled_out = |node: &mut Node| {
        let requests = node.connect();
        let stated = requests[0].node.clone().unwrap().metadata.unwrap().fields.contains_key("holds");
        let held = &requests.iter().find(|request| request.type_url == type_url::ORG_BUNDLE).unwrap().initial_resource_versions;
        assert_ne!(stated, held.get(&format!("org/{ORG}/0")) == Some(&bundle(ORG, 0).1.version));
        !stated
    };
    let mut node = Node::serving();
    node.lose();
    assert!(!spelled_out(&mut node));
    node.machine.step(Event::Lost(Lost::Unknown));
    assert!(spelled_out(&mut node));
    node.manifest(1, &first());
    let mut silent = Vec::new();
    for _ in 0..5 {
        node.lose();
        silent.push(spelled_out(&mut node));
    }
    assert_eq!(silent, [false, false, false, true, true]);
    // What is held beside what runs is no digest's to say.
    let mut node = Node::serving();
    node.deliver(&second());
    node.lose();
    assert!(spelled_out(&mut node));
}

#[test]
fn a_compilation_that_outlives_its_stream_swaps_without_an_answer() {
    let mut node = Node::connected();
    node.deliver(&first());
    node.manifest(1, &first());
    node.lose();
    assert_eq!(node.compiled(Ok(())), [Did::Swap]);
    node.connect();
    assert_eq!(node.manifest(1, &first()), [Did::Ack(type_url::MANIFEST)]);
}

#[test]
fn a_compilation_that_outlives_its_stream_answers_the_next_one_if_asked_again() {
    let mut node = Node::connected();
    node.deliver(&first());
    node.manifest(1, &first());
    node.lose();
    node.connect();
    assert_eq!(node.manifest(1, &first()), [], "the answer waits for the compilation that runs");
    assert_eq!(node.compiled(Ok(())), [Did::Swap, Did::Ack(type_url::MANIFEST)]);
}

#[test]
fn a_wrong_digest_is_refused_as_data_loss_and_everything_is_asked_for_once_more_but_only_once() {
    let mut node = Node::serving();
    let resubscribed = type_url::COVERED.into_iter().chain([type_url::MANIFEST]).map(Did::Resubscribed);
    let expected: Vec<_> = [Did::Nack(type_url::MANIFEST, code::DATA_LOSS)].into_iter().chain(resubscribed).collect();
    assert_eq!(node.manifest(2, &second()), expected);
    assert_eq!(node.version(), Some(1), "what was in force stays");
    // The same again, still without the bundle: no second round.
    node.deliver(&first());
    assert_eq!(node.manifest(2, &second()), [Did::Nack(type_url::MANIFEST, code::DATA_LOSS)]);
    // Whole at last.
    node.deliver(&second());
    assert_eq!(node.manifest(2, &second()), [Did::Compile]);
}

#[test]
fn resynchronising_takes_back_and_renews_the_subscription_in_one_message() {
    let mut node = Node::serving();
    let mut manifest = manifest(2, &second());
    sign_manifest(&mut manifest, KEY, &node.signer);
    let actions = node.respond(type_url::MANIFEST, vec![resource(type_url::MANIFEST, "manifest/default", &manifest)]);
    for request in &sent(actions)[1..] {
        assert_eq!(
            (&request.resource_names_unsubscribe, &request.resource_names_subscribe),
            (&vec!["*".into()], &vec!["*".into()])
        );
        assert!(request.initial_resource_versions.is_empty() && request.response_nonce.is_empty());
    }
}

#[test]
fn removed_resources_leave_the_set() {
    let mut node = Node::connected();
    node.deliver(&second());
    node.manifest(1, &second());
    node.compiled(Ok(()));
    let gone = format!("org/{OTHER}/0");
    assert_eq!(did(node.respond_removing(type_url::ORG_BUNDLE, vec![], &[&gone])), [Did::Ack(type_url::ORG_BUNDLE)]);
    assert_eq!(node.manifest(2, &first()), [Did::Compile]);
}

#[test]
fn a_bad_resource_is_refused_by_name_and_its_neighbours_are_used() {
    let (type_url, good) = shard(7);
    let any = |value: Vec<u8>| Some(prost_types::Any { type_url: type_url.into(), value });
    let hash = |value: &[u8]| ContentHash::of(value).to_string();
    let rubbish = vec![0xff; 9];
    let other = shard(8).1;
    let table: Vec<(&str, Vec<Resource>, &str)> = vec![
        ("undecodable", vec![Resource { version: hash(&rubbish), resource: any(rubbish), ..other.clone() }], "not a valid"),
        ("twice", vec![other.clone(), other.clone()], "twice"),
        ("another pool's shape", vec![Resource { name: "global/default".into(), ..other.clone() }], "does not fit"),
        ("no shard number", vec![Resource { name: "credentials/default/x".into(), ..other.clone() }], "does not fit"),
        ("without content", vec![Resource { resource: None, ..other.clone() }], "without content"),
        ("wrong version", vec![Resource { version: hash(b"else"), ..other.clone() }], "not the content's hash"),
        (
            "wrong type inside",
            vec![Resource { resource: first()[0].1.resource.clone(), ..other.clone() }],
            "the content is of type type.googleapis.com/mcpgw.config.v1.Global",
        ),
    ];
    for (what, bad, expected) in table {
        let mut node = Node::serving();
        let name = bad[0].name.clone();
        let changed = CredentialShard { shard: 7, keys: vec![ApiKey::default()] };
        let neighbour = resource(type_url, &good.name, &changed);
        let said = message(node.respond(type_url, [bad, vec![neighbour.clone()]].concat()));
        assert!(said.contains(expected) && said.contains(&name), "{what}: {said}");
        assert_eq!(node.machine.staged.versions(type_url)[&good.name], neighbour.version, "{what}");
        assert_eq!(node.version(), Some(1), "{what}");
        node.lose();
        let held = node.connect().into_iter().find(|request| request.type_url == type_url).unwrap().initial_resource_versions;
        assert!(!held.contains_key(&name), "{what}: not remembered as held");
    }
}

#[test]
fn a_refused_resource_keeps_its_last_good_version_on_record() {
    let mut node = Node::serving();
    let (type_url, good) = shard(7);
    let value = vec![0xff; 9];
    let version = ContentHash::of(&value).to_string();
    let bad = Resource { version, resource: Some(prost_types::Any { type_url: type_url.into(), value }), ..good.clone() };
    assert_eq!(did(node.respond(type_url, vec![bad])), [Did::Nack(type_url, code::INVALID_ARGUMENT)]);
    // A manifest that counts on it cannot be met, and asking for the same again would not help.
    assert_eq!(node.manifest(2, &second()), [Did::Nack(type_url::MANIFEST, code::INVALID_ARGUMENT)]);
    // A control plane that does not know the node's digest asks for all that is held.
    assert_eq!(did(node.machine.step(Event::Lost(Lost::Unknown))), [Did::Reconnect]);
    let held = node.connect().into_iter().find(|request| request.type_url == type_url).unwrap().initial_resource_versions;
    assert_eq!(held[&good.name], good.version, "so that the server sends the new one");
}

#[test]
fn names_of_other_pools_are_refused() {
    let foreign = [
        (type_url::GLOBAL, "global/other"),
        (type_url::SECRET_ENVELOPE, "secrets/other"),
        (type_url::CREDENTIAL_SHARD, "credentials/other/1"),
        (type_url::CREDENTIAL_SHARD, "credentials/default/256"),
        (type_url::ORG_BUNDLE, "org/not-a-uuid/0"),
        (type_url::MANIFEST, "manifest/other"),
        (type_url::REVOCATION, "revocation/other"),
        (type_url::ENDPOINTS, "endpoints/other"),
        (type_url::PEERS, "peers/other"),
    ];
    for (type_url, name) in foreign {
        let mut node = Node::serving();
        let actions = node.respond(type_url, vec![resource(type_url, name, &Global::default())]);
        assert_eq!(did(actions), [Did::Nack(type_url, code::INVALID_ARGUMENT)], "{name}");
    }
}

#[test]
fn a_heartbeat_for_what_is_held_changes_nothing() {
    let mut node = Node::serving();
    let (type_url, held) = bundle(ORG, 0);
    let heartbeat = Resource { resource: None, ..held };
    assert_eq!(did(node.respond(type_url, vec![heartbeat])), [Did::Ack(type_url)]);
    assert_eq!(node.manifest(2, &first()), [Did::Compile]);
}

#[test]
fn types_that_nobody_asked_for_are_refused() {
    let mut node = Node::serving();
    let actions = node.respond("type.googleapis.com/envoy.config.cluster.v3.Cluster", vec![]);
    assert_eq!(did(actions), [Did::Nack("unknown", code::INVALID_ARGUMENT)]);
}

#[test]
fn manifests_that_must_not_be_believed_are_refused() {
    let content = second();
    type Change = fn(&mut Manifest);
    let table: Vec<(&str, Change, Vec<Did>)> = vec![
        ("older", |manifest| manifest.version = 0, vec![Did::Nack(type_url::MANIFEST, code::FAILED_PRECONDITION)]),
        (
            "same version, other content",
            |manifest| manifest.version = 1,
            vec![Did::Nack(type_url::MANIFEST, code::FAILED_PRECONDITION)],
        ),
        ("older epoch", |manifest| manifest.epoch = 0, vec![Did::Nack(type_url::MANIFEST, code::FAILED_PRECONDITION)]),
        ("other pool", |manifest| manifest.scope = "other".into(), vec![Did::Nack(type_url::MANIFEST, code::PERMISSION_DENIED)]),
        (
            "no digest",
            |manifest| manifest.digest = vec![1, 2].into(),
            vec![Did::Nack(type_url::MANIFEST, code::INVALID_ARGUMENT)],
        ),
        (
            "node too old",
            |manifest| manifest.min_node_version = "0.10.0".into(),
            vec![Did::Nack(type_url::MANIFEST, code::FAILED_PRECONDITION)],
        ),
        ("node new enough", |manifest| manifest.min_node_version = "0.3".into(), vec![Did::Compile]),
        ("newer epoch, lower version", |manifest| (manifest.epoch, manifest.version) = (2, 0), vec![Did::Compile]),
    ];
    for (what, change, expected) in table {
        let mut node = Node::serving();
        node.deliver(&content);
        let mut manifest = manifest(2, &content);
        change(&mut manifest);
        assert_eq!(node.signed(manifest), expected, "{what}");
        assert_eq!(node.version(), Some(1), "{what}");
    }
}

#[test]
fn a_forged_manifest_is_refused_and_an_unknown_key_fetches_credentials() {
    let mut node = Node::serving();
    let mut forged = manifest(2, &first());
    sign_manifest(&mut forged, KEY, &Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap());
    let actions = node.respond(type_url::MANIFEST, vec![resource(type_url::MANIFEST, "manifest/default", &forged)]);
    assert_eq!(did(actions), [Did::Nack(type_url::MANIFEST, code::PERMISSION_DENIED)]);
    let mut unknown = manifest(2, &first());
    sign_manifest(&mut unknown, "m2", &node.signer);
    let actions = node.respond(type_url::MANIFEST, vec![resource(type_url::MANIFEST, "manifest/default", &unknown)]);
    assert_eq!(did(actions), [Did::Nack(type_url::MANIFEST, code::FAILED_PRECONDITION), Did::Renew]);
    assert_eq!(node.version(), Some(1));
}

#[test]
fn a_configuration_that_does_not_compile_is_refused_and_asked_for_again_on_the_next_stream() {
    let mut node = Node::serving();
    node.deliver(&second());
    node.manifest(2, &second());
    let problem = Problem::NoEndpoint { server: "github".into() };
    assert_eq!(node.compiled(Err(vec![problem])), [Did::Nack(type_url::MANIFEST, code::INVALID_ARGUMENT)]);
    assert_eq!(node.version(), Some(1));
    node.lose();
    let hello = node.connect();
    let facts = &hello[0].node.as_ref().unwrap().metadata.as_ref().unwrap().fields;
    assert!(facts.contains_key("applied_version") && !facts.contains_key("digest"), "it holds more than what is in force");
    let held = hello.into_iter().find(|request| request.type_url == type_url::ORG_BUNDLE).unwrap().initial_resource_versions;
    let (good, suspect) = (&held[&format!("org/{ORG}/0")], &held[&format!("org/{OTHER}/0")]);
    assert!(
        !good.is_empty() && suspect.is_empty(),
        "told of, so that its removal arrives; under no version, so that it comes again"
    );
    // A repaired version is taken.
    node.deliver(&second());
    assert_eq!(node.manifest(3, &second()), [Did::Compile]);
}

/// What an answer to a manifest says beside yes: google.rpc.Code and text.
fn except(actions: Vec<Action>) -> Option<(i32, String)> {
    let [.., Action::Send(request)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(request.type_url, type_url::MANIFEST);
    request.error_detail.clone().map(|status| (status.code, status.message))
}

#[test]
fn a_bundle_that_nobody_can_read_is_staged_for_the_compilation_to_judge() {
    let mut node = Node::serving();
    let (type_url, good) = bundle(ORG, 0);
    let value = vec![0xff; 9];
    let version = ContentHash::of(&value).to_string();
    let bad = Resource { version, resource: Some(prost_types::Any { type_url: type_url.into(), value }), ..good };
    let content = [&first()[..3], &[(type_url, bad)]].concat();
    node.deliver(&content);
    assert_eq!(node.manifest(2, &content), [Did::Compile]);
}

#[test]
fn what_a_configuration_left_out_is_said_with_its_acknowledgement_and_again_on_every_stream() {
    let mut node = Node::serving();
    node.deliver(&second());
    assert_eq!(node.manifest(2, &second()), [Did::Compile]);
    let ticket = node.machine.compiling.as_ref().unwrap().ticket;
    let report = vec![format!("org/{OTHER}: it is bad"), format!("org/{OTHER}: and worse")];
    let expected = Some((code::OK, report.join("\n")));
    let actions = node.machine.step(Event::Compiled { ticket, result: Ok(report.clone()) });
    assert!(matches!(actions[0], Action::Swap { .. }), "{actions:?}");
    assert_eq!(except(actions), expected);
    assert_eq!(node.version(), Some(2), "it is in force");

    let mut again = manifest(2, &second());
    sign_manifest(&mut again, KEY, &node.signer);
    let again = resource(type_url::MANIFEST, "manifest/default", &again);
    node.lose();
    let hello = node.connect();
    let fields = hello[0].node.clone().unwrap().metadata.unwrap().fields;
    assert!(fields.contains_key("holds"), "what is in quarantine is held: nothing of it is to be sent again");
    assert_eq!(except(node.respond(type_url::MANIFEST, vec![again.clone()])), expected);

    // So does a node that was started again.
    let mut restarted = Node::new();
    let mut staged = Staged::new();
    for (type_url, resource) in second() {
        staged.put(type_url, &resource.name, resource.resource.unwrap().value.into()).unwrap();
    }
    restarted.machine.holds(&manifest(2, &second()), Arc::new(staged), report);
    restarted.connect();
    assert_eq!(except(restarted.respond(type_url::MANIFEST, vec![again])), expected);

    // Until a version is whole.
    node.deliver(&first());
    let gone = format!("org/{OTHER}/0");
    node.respond_removing(type_url::ORG_BUNDLE, vec![], &[&gone]);
    node.manifest(3, &first());
    assert_eq!(node.compiled(Ok(())), [Did::Swap, Did::Ack(type_url::MANIFEST)]);
    assert_eq!(node.manifest(3, &first()), [Did::Ack(type_url::MANIFEST)]);
}

#[test]
fn what_was_left_out_outlives_a_later_version_that_was_refused() {
    let mut node = Node::serving();
    node.deliver(&second());
    node.manifest(2, &second());
    let ticket = node.machine.compiling.as_ref().unwrap().ticket;
    let result = Ok(vec![format!("org/{OTHER}: it is bad")]);
    node.machine.step(Event::Compiled { ticket, result });
    let worse = [second(), vec![shard(9)]].concat();
    node.deliver(&worse);
    node.manifest(3, &worse);
    let problem = Problem::NoEndpoint { server: "github".into() };
    assert_eq!(node.compiled(Err(vec![problem])), [Did::Nack(type_url::MANIFEST, code::INVALID_ARGUMENT)]);
    assert_eq!(node.manifest(2, &second()), [Did::Nack(type_url::MANIFEST, code::OK)], "the one in force, as it is");
}

#[test]
fn a_missing_pool_key_fetches_credentials() {
    let mut node = Node::serving();
    node.deliver(&second());
    node.manifest(2, &second());
    let problem = Problem::PoolKeyUnknown { resource: "secrets/default".into(), key_id: "p2".into() };
    assert_eq!(node.compiled(Err(vec![problem])), [Did::Renew, Did::Nack(type_url::MANIFEST, code::INVALID_ARGUMENT)]);
}

#[test]
fn a_manifest_that_comes_during_a_compilation_is_compiled_after_it() {
    let mut node = Node::connected();
    node.deliver(&first());
    node.manifest(1, &first());
    node.deliver(&second());
    assert_eq!(node.manifest(2, &second()), []);
    assert_eq!(node.compiled(Ok(())), [Did::Swap, Did::Ack(type_url::MANIFEST), Did::Compile]);
    assert_eq!(node.compiled(Ok(())), [Did::Swap, Did::Ack(type_url::MANIFEST)]);
    assert_eq!(node.version(), Some(2));
}

#[test]
fn a_removed_manifest_or_revocation_changes_nothing() {
    let mut node = Node::serving();
    let actions = node.respond_removing(type_url::MANIFEST, vec![], &["manifest/default"]);
    assert_eq!(did(actions), [Did::Ack(type_url::MANIFEST)]);
    let actions = node.respond_removing(type_url::REVOCATION, vec![], &["revocation/default"]);
    assert_eq!(did(actions), [Did::Ack(type_url::REVOCATION)]);
    assert_eq!(node.version(), Some(1));
}

#[test]
fn revocations_hold_at_once_and_are_acknowledged_when_they_are_on_disk() {
    let revocation = Revocation { api_keys: vec!["k".into()], ..Revocation::default() };
    let content = resource(type_url::REVOCATION, "revocation/default", &revocation);
    let mut node = Node::connected();
    let revoke = |node: &mut Node| match &node.respond(type_url::REVOCATION, vec![content.clone()])[..] {
        [Action::Revoke { ticket, .. }] => *ticket,
        other => panic!("{other:?}"),
    };
    let ticket = revoke(&mut node);
    let actions = node.machine.step(Event::Stored { ticket, result: Err("disk full".into()) });
    assert_eq!(did(actions), [Did::Nack(type_url::REVOCATION, code::INTERNAL)]);
    let ticket = revoke(&mut node);
    node.lose();
    node.connect();
    assert_eq!(did(node.machine.step(Event::Stored { ticket, result: Ok(()) })), [], "its stream is gone");
    let ticket = revoke(&mut node);
    assert_eq!(did(node.machine.step(Event::Stored { ticket, result: Ok(()) })), [Did::Ack(type_url::REVOCATION)]);
    node.lose();
    let held = node.connect().into_iter().find(|request| request.type_url == type_url::REVOCATION).unwrap();
    assert_eq!(held.initial_resource_versions["revocation/default"], content.version);
}

#[test]
fn peers_apply_at_once_also_while_a_manifest_is_refused() {
    let mut node = Node::serving();
    node.manifest(2, &second());
    let peers = Peers { peers: vec![Peer { node_id: "n2".into(), address: "10.0.0.2:9000".into() }] };
    let actions = node.respond(type_url::PEERS, vec![resource(type_url::PEERS, "peers/default", &peers)]);
    assert_eq!(did(actions), [Did::SetPeers(1), Did::Ack(type_url::PEERS)]);
    let actions = node.respond_removing(type_url::PEERS, vec![], &["peers/default"]);
    assert_eq!(did(actions), [Did::SetPeers(0), Did::Ack(type_url::PEERS)]);
}

#[test]
fn endpoints_apply_at_once_also_while_a_manifest_is_refused_and_removal_leaves_the_last_known() {
    let mut node = Node::serving();
    node.manifest(2, &second());
    let endpoints = Endpoints { servers: vec![ServerEndpoints::default()] };
    let content = resource(type_url::ENDPOINTS, "endpoints/default", &endpoints);
    let actions = node.respond(type_url::ENDPOINTS, vec![content.clone()]);
    assert_eq!(did(actions), [Did::SetEndpoints(1), Did::Ack(type_url::ENDPOINTS)]);
    let actions = node.respond_removing(type_url::ENDPOINTS, vec![], &["endpoints/default"]);
    assert_eq!(did(actions), [Did::Ack(type_url::ENDPOINTS)]);
    node.lose();
    let held = node.connect().into_iter().find(|request| request.type_url == type_url::ENDPOINTS).unwrap();
    assert_eq!(held.initial_resource_versions["endpoints/default"], content.version);
}

#[test]
fn a_refusal_says_no_more_than_fits_and_how_much_it_left_out() {
    let problems = (0..1000).map(|number| format!("org/{number}: {}", "é".repeat(20)));
    let refusal = Refusal::of(code::INVALID_ARGUMENT, problems);
    assert!(refusal.message.len() <= MAX_MESSAGE, "{}", refusal.message.len());
    assert!(refusal.message.contains("more"));
    assert!(Refusal::of(code::INTERNAL, ["é".repeat(MAX_MESSAGE)]).message.len() <= MAX_MESSAGE);
}
