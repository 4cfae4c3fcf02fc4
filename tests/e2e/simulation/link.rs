//! One discovery stream of the simulation: the control plane's real machine at one end, queues in between, and a witness that
//! checks every message against the promises of the wire.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mcp_gateway::proto::config::v1::{Manifest, Revocation};
use mcp_gateway::proto::envoy::config::core::v3::Node;
use mcp_gateway::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mcp_gateway::snapshot::Version;
use mcp_gateway::type_url::{BESIDE, COVERED, MANIFEST, REVOCATION};
use mcpgw_controlplane::publish::scope::Scope;
use mcpgw_controlplane::xds::machine::{Action, Event, Fault, Machine, Parties};
use prost::Message as _;
use prost_types::value::Kind;

use super::content::{beside, number, number_of};
use super::world::Published;

/// What a transport holds before its reader is waited for.
const ROOM: usize = 2;
/// Answers that may be missing: one chain of five types, what travels beside, and as much again for what is asked for anew.
const MAX_UNANSWERED: usize = 14;
/// google.rpc.Code: what was staged is not what the manifest covers.
pub const DATA_LOSS: i32 = 15;

/// Type, name and version of a resource.
type Content = (String, String, String);

/// See the module.
pub struct Link {
    pub replica: usize,
    machine: Machine,
    pub up: VecDeque<DeltaDiscoveryRequest>,
    pub down: VecDeque<DeltaDiscoveryResponse>,
    /// What of the replica's the stream was told of.
    pub told: Published,
    /// The control plane's end is gone; what is on its way still arrives.
    pub cut: bool,
    /// It is gone because the node stated a digest only, and another one is served.
    pub unknown: bool,
    /// The version that the control plane believes the node to run.
    pub applied: Option<Version>,
    witness: Witness,
}

/// What passed, as far as promises were made about it.
#[derive(Default)]
struct Witness {
    unanswered: BTreeMap<String, Said>,
    refused: BTreeSet<Content>,
    /// Digests of refused manifests.
    digests: BTreeSet<Vec<u8>>,
    /// The one time that everything may be sent again is over.
    resynced: bool,
    /// What the node said at first: what it runs, and what it holds of each type.
    floor: Version,
    digest: String,
    brief: bool,
    hello: BTreeMap<String, BTreeMap<String, String>>,
    /// Something changed since the stream was opened.
    news: bool,
    /// The node holds exactly what the stream opened with: one manifest may be said, and nothing else.
    unchanged: bool,
    /// How many responses the manifest and what it covers took so far.
    chained: usize,
    /// The set of revocations that the node was told of last, once it asked.
    revocation: Option<u32>,
    /// A newer one has to be the very next thing said.
    revocation_due: bool,
}

/// A response.
struct Said {
    of: String,
    content: Vec<Content>,
    /// A manifest's.
    digest: Vec<u8>,
    /// The number of a set of revocations.
    revocation: u32,
}

impl Link {
    pub fn open(replica: usize, told: Published, scope: Arc<Scope>, node: &str, stream: u64) -> Self {
        let parties = Parties {
            node_id: node.to_owned(),
            pool: super::content::POOL.to_owned(),
            replica: replica.to_string(),
            stream: format!("{node}.{stream}"),
        };
        let machine = Machine::new(parties, scope, beside(told.revocation));
        let (up, down) = (VecDeque::new(), VecDeque::new());
        Self { replica, machine, up, down, told, cut: false, unknown: false, applied: None, witness: Witness::default() }
    }

    /// The replica knows something new.
    pub fn news(&mut self, told: Published, scope: Arc<Scope>) {
        if told.release != self.told.release {
            (self.witness.news, self.witness.unchanged) = (true, false);
        }
        if told.revocation != self.told.revocation {
            let has = self.witness.revocation;
            self.witness.revocation_due = has.is_some_and(|has| has != told.revocation);
        }
        self.told = told;
        let actions = self.machine.step(Event::Published(scope));
        let more = self.machine.step(Event::Beside(beside(told.revocation)));
        assert!(actions.is_empty() && more.is_empty(), "{actions:?} {more:?}");
    }

    /// The control plane hears the next request; false: there is none.
    pub fn serve(&mut self, scope: &Scope) -> bool {
        let Some(request) = self.up.pop_front().filter(|_| !self.cut) else { return false };
        self.witness.hears(&request, scope);
        for action in self.machine.step(Event::Request(Box::new(request))) {
            match action {
                Action::Applied { version } => self.applied = Some(version),
                Action::Refused(refusal) => {
                    if refusal.code == 0 {
                        self.applied = Some(refusal.version);
                    }
                }
                Action::Close(Fault::UnknownDigest) => {
                    assert!(self.witness.news || self.witness.digest != scope.digest.to_string(), "that is the digest");
                    (self.cut, self.unknown) = (true, true);
                }
                Action::Close(fault) => panic!("a node of ours is thrown out: {fault}"),
            }
        }
        true
    }

    /// The control plane says the next thing, if there is room; false: it has nothing to say.
    pub fn speak(&mut self) -> bool {
        if self.cut || self.down.len() >= ROOM {
            return false;
        }
        let Some(response) = self.machine.next_response() else { return false };
        self.witness.says(&response);
        self.down.push_back(response);
        true
    }

    /// The number of the revocations that a request answers.
    pub fn revocation(&self, request: &DeltaDiscoveryRequest) -> u32 {
        self.witness.unanswered.get(&request.response_nonce).map_or(0, |said| said.revocation)
    }

    /// The digest of the manifest that a request answers.
    pub fn digest(&self, request: &DeltaDiscoveryRequest) -> &[u8] {
        self.witness.unanswered.get(&request.response_nonce).map_or(&[], |said| &said.digest)
    }
}

/// A request in a few words.
pub fn asked(request: &DeltaDiscoveryRequest) -> String {
    let DeltaDiscoveryRequest { type_url, response_nonce, error_detail, resource_names_subscribe, .. } = request;
    let status = error_detail.as_ref().map(|status| (status.code, &status.message));
    format!("{} {response_nonce:?} {resource_names_subscribe:?} {status:?}", short(type_url))
}

/// A response in a few words.
pub fn told(response: &DeltaDiscoveryResponse) -> String {
    let names: Vec<_> =
        response.resources.iter().map(|held| held.name.trim_start_matches("org/00000000-0000-0000-0000-")).collect();
    let DeltaDiscoveryResponse { type_url, nonce, system_version_info, removed_resources, .. } = response;
    format!("{} {nonce} of {system_version_info} {names:?} without {removed_resources:?}", short(type_url))
}

fn short(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or(type_url)
}

impl Witness {
    fn hears(&mut self, request: &DeltaDiscoveryRequest, scope: &Scope) {
        if let Some(node) = &request.node {
            self.opened(node);
        }
        if request.response_nonce.is_empty() && !self.hello.contains_key(&request.type_url) {
            self.hello.insert(request.type_url.clone(), request.initial_resource_versions.clone());
            if request.type_url == REVOCATION {
                let held = request.initial_resource_versions.values().next();
                self.revocation = Some(held.and_then(|held| number_of(held)).unwrap_or(u32::MAX));
            }
            self.unchanged = request.type_url == MANIFEST && !self.news && self.holds(scope);
            assert!(!self.unchanged || self.chained == 0, "the node holds all of it, and was sent something");
        }
        let Some(said) = self.unanswered.remove(&request.response_nonce) else { return };
        if said.of == MANIFEST {
            self.unanswered.retain(|_, earlier| earlier.of != MANIFEST); // whoever answers the last one means the same ones before
        }
        let Some(status) = &request.error_detail else { return };
        if said.of == MANIFEST && status.code == DATA_LOSS && !self.resynced {
            self.resynced = true;
            self.refused.clear();
        } else if status.code != 0 {
            self.refused.extend(said.content);
            self.digests.extend((said.of == MANIFEST).then_some(said.digest));
        }
    }

    fn opened(&mut self, node: &Node) {
        let text = |key: &str| match node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.clone()),
            _ => None,
        };
        let number = |key| text(key).and_then(|text| text.parse().ok()).unwrap_or_default();
        self.floor = Version { epoch: number("epoch"), version: number("applied_version") };
        self.digest = text("digest").unwrap_or_default();
        self.brief = text("holds").is_some();
    }

    /// Whether the node said that it holds exactly this.
    fn holds(&self, scope: &Scope) -> bool {
        let same = |covered: &&str| {
            let published = scope.types[covered].iter().map(|(name, encoded)| (&**name, &*encoded.version));
            let held = self.hello.get(*covered);
            held.is_some_and(|held| held.iter().map(|(name, version)| (&**name, &**version)).eq(published))
        };
        self.digest == scope.digest.to_string() && (self.brief || COVERED.iter().all(same))
    }

    fn says(&mut self, response: &DeltaDiscoveryResponse) {
        let of = response.type_url.as_str();
        let resources = response.resources.iter();
        let content: Vec<Content> = resources.map(|held| (of.to_owned(), held.name.clone(), held.version.clone())).collect();
        for sent in &content {
            assert!(!self.refused.contains(sent), "sent again after it was refused: {sent:?}");
        }
        let (mut digest, mut revocation) = (Vec::new(), 0);
        if BESIDE.contains(&of) {
            self.revocation_due &= of != REVOCATION;
            self.unanswered.retain(|_, earlier| earlier.of != of); // replaced, answered or not
        } else {
            assert!(!self.revocation_due, "{of} was said before the revocation");
            self.chained += 1;
            assert!(!self.unchanged || (of == MANIFEST && self.chained == 1), "the node holds all of it, and is sent {of}");
        }
        if of == MANIFEST {
            digest = self.says_manifest(response);
        }
        if let (REVOCATION, Some(held)) = (of, response.resources.first()) {
            self.revocation = Some(number(&Revocation::decode(&held.resource.as_ref().unwrap().value[..]).unwrap()));
            revocation = self.revocation.unwrap_or_default();
        }
        self.unanswered.insert(response.nonce.clone(), Said { of: of.to_owned(), content, digest, revocation });
        assert!(self.unanswered.len() <= MAX_UNANSWERED, "{} responses wait for an answer", self.unanswered.len());
    }

    fn says_manifest(&mut self, response: &DeltaDiscoveryResponse) -> Vec<u8> {
        let waiting = self.unanswered.values().filter(|said| said.of == MANIFEST).count();
        // Asking for everything anew may overtake what is sent anew because of the refusal.
        assert!(waiting <= usize::from(self.resynced), "two chains in flight");
        let body = &response.resources[0].resource.as_ref().unwrap().value[..];
        let manifest = Manifest::decode(body).unwrap();
        let version = Version { epoch: manifest.epoch, version: manifest.version };
        assert!(version >= self.floor, "{version} is told to a node that said it runs {}", self.floor);
        let digest = manifest.digest.to_vec();
        assert!(!self.digests.contains(&digest), "{version} has content that was refused");
        digest
    }
}
