//! One discovery stream as a pure state machine: requests and published scopes in, responses and verdicts out.
//! No clock, no socket, no database: [`super::server`] feeds it and carries out what it says. The node's last good
//! configuration is the node's business; here a refused content is remembered and not sent again.
//!
//! Rules: resources are served from one scope at a time (`serving`). A newer one becomes the `target`, which newer ones replace,
//! and is taken up when everything sent so far was answered: at most one chain in flight, nothing queues. Within a chain the order
//! is that of [`type_url::COVERED`], the manifest last. What travels beside the manifest waits for nothing.

mod events;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use mcp_gateway::{
    proto::{
        envoy::{
            config::core::v3::{ControlPlane, Node},
            service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
        },
        google::rpc::Status,
    },
    snapshot::{Digest, Version},
    type_url,
};

pub use events::{Action, Event, Fault, Parties, Refusal};

use super::subscription::{Change, Delta, Subscription};
use crate::publish::scope::{Beside, Encoded, Resources, Scope};

/// About how large one response becomes. The transport keeps a buffer of the largest for as long as the stream lives.
pub const RESPONSE_BYTES: usize = 64 * 1024;
/// Responses that a node may leave unanswered.
const MAX_OUTSTANDING: usize = 1024;
/// Resource types that a node may ask for.
const MAX_TYPES: usize = 32;
/// Refused digests remembered per stream; more than any sane node refuses.
const MAX_REFUSED: usize = 256;
/// google.rpc.Code
const CODE_OK: i32 = 0;
/// google.rpc.Code: what was staged does not have the manifest's digest.
const CODE_DATA_LOSS: i32 = 15;

/// A response that was not answered yet.
#[derive(Debug)]
struct Sent {
    type_url: String,
    /// Names and versions that were in it.
    content: Vec<(String, Arc<str>)>,
    version: Version,
    digest: Digest,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    parties: Parties,
    bound: bool,
    serving: Arc<Scope>,
    target: Option<Arc<Scope>>,
    beside: Arc<Beside>,
    /// The node said at first that it runs exactly `serving`.
    known: bool,
    /// The scope that the node said to hold by its digest alone, until every covered type was asked for.
    held: Option<Arc<Scope>>,
    /// What the node said at first that it runs. While we know nothing newer, we have nothing to tell: another replica was faster.
    floor: Version,
    subscriptions: BTreeMap<String, Subscription>,
    outstanding: BTreeMap<u64, Sent>,
    last_nonce: u64,
    refused: VecDeque<Digest>,
    /// The one full resynchronisation of this stream was granted.
    resynced: bool,
}

impl Machine {
    pub fn new(parties: Parties, scope: Arc<Scope>, beside: Arc<Beside>) -> Self {
        Self {
            parties,
            bound: false,
            serving: scope,
            target: None,
            beside,
            known: false,
            held: None,
            floor: Version::default(),
            subscriptions: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            last_nonce: 0,
            refused: VecDeque::new(),
            resynced: false,
        }
    }

    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Request(request) => match self.request(&request) {
                Ok(action) => action.into_iter().collect(),
                Err(fault) => vec![Action::Close(fault)],
            },
            Event::Published(scope) => {
                self.target = (!same(&scope, &self.serving)).then_some(scope);
                Vec::new()
            }
            Event::Beside(beside) => {
                self.beside = beside;
                self.touch(&type_url::BESIDE);
                Vec::new()
            }
        }
    }

    /// The next response, if one is due. Call until nothing comes, whenever the transport has room.
    pub fn next_response(&mut self) -> Option<DeltaDiscoveryResponse> {
        for type_url in type_url::BESIDE {
            if let Some(response) = self.respond(type_url) {
                return Some(response);
            }
        }
        self.advance();
        if let Some(response) = self.chain() {
            return Some(response);
        }
        let foreign = self.subscriptions.iter().find(|(name, held)| !is_ours(name) && held.is_dirty());
        let foreign = foreign.map(|(name, _)| name.clone())?;
        self.respond(&foreign).or_else(|| self.next_response())
    }

    /// The version that the node said at first that it runs.
    pub fn stated(&self) -> Version {
        self.floor
    }

    /// Whether the node runs a newer version than we know.
    pub fn is_behind(&self) -> bool {
        self.target.as_ref().map_or(self.serving.version, |target| target.version) < self.floor
    }

    /// Whether everything was sent once more on this stream.
    pub fn is_resynced(&self) -> bool {
        self.resynced
    }

    /// The next response of the chain that ends in the manifest.
    fn chain(&mut self) -> Option<DeltaDiscoveryResponse> {
        if self.serving.version < self.floor {
            return None;
        }
        for type_url in type_url::COVERED {
            if let Some(response) = self.respond(type_url) {
                return Some(response);
            }
        }
        // What the node refused it would refuse again; it gets the next content instead.
        let refused = self.refused.contains(&self.serving.digest);
        if refused { None } else { self.respond(type_url::MANIFEST) }
    }

    fn request(&mut self, request: &DeltaDiscoveryRequest) -> Result<Option<Action>, Fault> {
        self.bind(request.node.as_ref())?;
        if request.type_url.is_empty() {
            return Err(Fault::NoType);
        }
        // A stale nonce answers nothing, but what its request subscribes to still counts.
        let answer = self.answered(request);
        self.subscribe(request)?;
        if self.outstanding.len() > MAX_OUTSTANDING {
            return Err(Fault::Excessive { what: "unanswered responses" });
        }
        Ok(answer)
    }

    fn bind(&mut self, node: Option<&Node>) -> Result<(), Fault> {
        let Parties { node_id, pool, .. } = &self.parties;
        let Some(node) = node else {
            return if self.bound { Ok(()) } else { Err(Fault::NoNode) };
        };
        if self.bound {
            let same = node.id.is_empty() || node.id == *node_id;
            return same.then_some(()).ok_or_else(|| Fault::NodeChanged { bound: node_id.clone(), claimed: node.id.clone() });
        }
        if node.id != *node_id {
            return Err(Fault::OtherNode { claimed: node.id.clone(), certified: node_id.clone() });
        }
        if !node.cluster.is_empty() && node.cluster != *pool {
            return Err(Fault::OtherPool { claimed: node.cluster.clone(), certified: pool.clone() });
        }
        self.bound = true;
        self.floor = stated_version(node);
        self.known = stated(node, "digest").is_some_and(|digest| digest.eq_ignore_ascii_case(&self.serving.digest.to_string()));
        if stated(node, "holds") == Some("digest") {
            // It left out what it holds; without that, all of it would be sent again.
            let known = self.known.then_some(()).ok_or(Fault::UnknownDigest);
            self.held = known.map(|()| Some(Arc::clone(&self.serving)))?;
        }
        Ok(())
    }

    fn subscribe(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Fault> {
        let change = Change { subscribe: &request.resource_names_subscribe, unsubscribe: &request.resource_names_unsubscribe };
        if let Some(subscription) = self.subscriptions.get_mut(&request.type_url) {
            subscription.change(&change);
        } else {
            if self.subscriptions.len() == MAX_TYPES {
                return Err(Fault::Excessive { what: "resource types" });
            }
            let first = self.first(request, &change);
            self.subscriptions.insert(request.type_url.clone(), first);
            if type_url::COVERED.iter().all(|covered| self.subscriptions.contains_key(*covered)) {
                self.held = None;
            }
        }
        match self.subscriptions.get(&request.type_url) {
            Some(subscription) if subscription.is_excessive() => Err(Fault::Excessive { what: "names" }),
            _ => Ok(()),
        }
    }

    fn first(&self, request: &DeltaDiscoveryRequest, change: &Change<'_>) -> Subscription {
        let stated = request.initial_resource_versions.iter().map(|(name, version)| (name.as_str(), version.as_str()));
        if request.type_url == type_url::MANIFEST {
            // Sent on every stream: it tells a node that nothing changed, and its answer tells us what the node runs.
            return Subscription::first(change, []);
        }
        if let Some(held) = self.held.as_ref().filter(|_| is_covered(&request.type_url)) {
            return Subscription::complete(change, held.types.get(request.type_url.as_str()));
        }
        if self.known && request.initial_resource_versions.is_empty() && is_covered(&request.type_url) {
            return Subscription::complete(change, self.resources(&request.type_url));
        }
        Subscription::first(change, stated)
    }

    /// Takes the acknowledgement or refusal in a request, if its nonce is one that waits for an answer.
    fn answered(&mut self, request: &DeltaDiscoveryRequest) -> Option<Action> {
        let nonce = self.nonce(&request.response_nonce)?;
        if self.outstanding.get(&nonce)?.type_url != request.type_url {
            return None;
        }
        let sent = self.outstanding.remove(&nonce)?;
        if sent.type_url == type_url::MANIFEST {
            // It comes last: whoever answers it has seen what came before.
            self.outstanding.retain(|earlier, other| *earlier > nonce || !is_chained(&other.type_url));
        }
        match &request.error_detail {
            None if sent.type_url == type_url::MANIFEST => Some(Action::Applied { version: sent.version }),
            None => None,
            Some(status) => Some(self.refuse(sent, status)),
        }
    }

    fn refuse(&mut self, sent: Sent, status: &Status) -> Action {
        if sent.type_url == type_url::MANIFEST {
            if status.code == CODE_DATA_LOSS && !self.resynced {
                self.resync();
            } else if status.code != CODE_OK {
                self.refused.push_back(sent.digest);
                while self.refused.len() > MAX_REFUSED {
                    self.refused.pop_front();
                }
            }
        } else if let Some(subscription) = self.subscriptions.get_mut(&sent.type_url) {
            subscription.refuse(&sent.content);
        }
        Action::Refused(Refusal {
            type_url: sent.type_url,
            version: sent.version,
            names: sent.content.into_iter().map(|(name, _)| name).collect(),
            code: status.code,
            message: status.message.clone(),
        })
    }

    /// Everything covered goes out once more, then the manifest: what the node staged is not what we sent.
    fn resync(&mut self) {
        self.resynced = true;
        for (type_url, subscription) in &mut self.subscriptions {
            if is_chained(type_url) {
                subscription.resync();
            }
        }
    }

    /// Takes up the target once the chain before it was answered.
    fn advance(&mut self) {
        let in_flight = self.outstanding.values().any(|sent| is_chained(&sent.type_url));
        let unsent = type_url::COVERED.iter().any(|covered| self.subscriptions.get(*covered).is_some_and(Subscription::is_dirty));
        if self.serving.version >= self.floor && (in_flight || unsent) {
            return;
        }
        let Some(target) = self.target.take() else { return };
        if self.refused.contains(&target.digest) {
            return;
        }
        self.serving = target;
        self.known = false;
        self.touch(&type_url::COVERED);
        self.touch(&[type_url::MANIFEST]);
    }

    fn touch(&mut self, types: &[&str]) {
        for type_url in types {
            if let Some(subscription) = self.subscriptions.get_mut(*type_url) {
                subscription.touch();
            }
        }
    }

    fn resources(&self, type_url: &str) -> Option<&Arc<Resources>> {
        self.serving.types.get(type_url).or_else(|| self.beside.types.get(type_url))
    }

    fn respond(&mut self, type_url: &str) -> Option<DeltaDiscoveryResponse> {
        // Not through resources(): the subscription is borrowed from the same self.
        let current = self.serving.types.get(type_url).or_else(|| self.beside.types.get(type_url));
        let none = Arc::default();
        let delta = self.subscriptions.get_mut(type_url)?.next(current.unwrap_or(&none), RESPONSE_BYTES)?;
        if !is_chained(type_url) {
            // A newer response of a type beside the chain replaces the older one, answered or not.
            self.outstanding.retain(|_, sent| sent.type_url != type_url);
        }
        self.last_nonce += 1;
        self.outstanding.insert(
            self.last_nonce,
            Sent {
                type_url: type_url.to_owned(),
                content: delta.resources.iter().map(|(name, encoded)| (name.to_string(), encoded.version.clone())).collect(),
                version: self.serving.version,
                digest: self.serving.digest,
            },
        );
        Some(self.encode(type_url, delta))
    }

    fn encode(&self, type_url: &str, delta: Delta) -> DeltaDiscoveryResponse {
        let resource = |(name, encoded): (Arc<str>, Encoded)| Resource {
            version: encoded.version.to_string(),
            resource: Some(prost_types::Any { type_url: type_url.to_owned(), value: encoded.body.to_vec() }),
            name: name.to_string(),
            aliases: Vec::new(),
        };
        DeltaDiscoveryResponse {
            system_version_info: format!("{}/{}", self.serving.version.epoch, self.serving.version.version),
            resources: delta.resources.into_iter().map(resource).collect(),
            type_url: type_url.to_owned(),
            nonce: format!("{}-{}", self.parties.stream, self.last_nonce),
            removed_resources: delta.removed,
            control_plane: Some(ControlPlane { identifier: self.parties.replica.clone() }),
        }
    }

    fn nonce(&self, text: &str) -> Option<u64> {
        text.strip_prefix(&self.parties.stream)?.strip_prefix('-')?.parse().ok()
    }
}

/// Types whose responses form the chain that ends in the manifest.
fn is_chained(type_url: &str) -> bool {
    is_covered(type_url) || type_url == type_url::MANIFEST
}

fn is_covered(type_url: &str) -> bool {
    type_url::COVERED.contains(&type_url)
}

fn is_ours(type_url: &str) -> bool {
    is_chained(type_url) || type_url::BESIDE.contains(&type_url)
}

/// The version of what the node runs, as it says in its metadata.
fn stated_version(node: &Node) -> Version {
    let number = |key| stated(node, key).and_then(|text| text.parse().ok()).unwrap_or_default();
    Version { epoch: number("epoch"), version: number("applied_version") }
}

pub(super) fn stated<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
        prost_types::value::Kind::StringValue(text) => Some(text),
        _ => None, // a foreign type in free-form metadata
    }
}

/// Whether a node could tell the two apart. The covered resources are compared by their digest.
fn same(one: &Scope, other: &Scope) -> bool {
    let manifest = |scope: &Scope| scope.types.get(type_url::MANIFEST).cloned();
    one.version == other.version && one.digest == other.digest && manifest(one) == manifest(other)
}
