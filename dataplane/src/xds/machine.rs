//! One node's side of delta discovery as a pure state machine: stream events in, actions out.
//! Owns what is staged, accepted and refused. No clock, no socket, no tokio: [`super::stream`] feeds it and carries out what it says.
//!
//! Resources are staged by (type, name); only a manifest whose signature, scope, order and digest fit makes them a snapshot.
//! A refusal (NACK) never touches what is in force. Nonces die with their stream.

mod backoff;
mod manifest;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mcp_gateway::proto::config::v1::{Endpoints, Manifest, Peers, Revocation};
use mcp_gateway::proto::envoy::config::core::v3::Node;
use mcp_gateway::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mcp_gateway::proto::google::rpc::Status;
use mcp_gateway::snapshot::{Digest, Problem, Staged, Version};
use mcp_gateway::type_url;
use prost_types::{Struct, Value, value::Kind};

pub use backoff::{Backoff, Lost};
pub(super) use manifest::is_older;

/// Names every resource of a type.
const ALL: &str = "*";
/// A refusal says at most this much; a control plane stores it.
const MAX_MESSAGE: usize = 4096;

/// Who asks.
#[derive(Debug, Clone)]
pub struct About {
    /// As in the node's certificate.
    pub node_id: String,
    /// As in the node's certificate.
    pub pool: String,
    /// The version of this software, such as `0.1.0`.
    pub build: String,
    /// Where other nodes reach this one, `host:port`; empty: nowhere.
    pub advertise: String,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A stream is open and nothing was said on it. The keys are those that manifests may be signed with now.
    Connected { manifest_keys: BTreeMap<String, Vec<u8>> },
    /// The control plane said something.
    Received(DeltaDiscoveryResponse),
    /// A compilation that [`Action::Compile`] asked for has ended: well, except for what the lines name (`Snapshot::report`); or not.
    /// An error without problems: it broke off.
    Compiled { ticket: u64, result: Result<Vec<String>, Vec<Problem>> },
    /// Revocations that [`Action::Revoke`] put in force are on disk, or could not be put there.
    Stored { ticket: u64, result: Result<(), String> },
    /// The stream ended, or could not be opened.
    Lost(Lost),
}

/// What to do now, in order.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "actions live for one step, a handful at a time, and most of them are this one")]
pub enum Action {
    /// Say this on the stream.
    Send(DeltaDiscoveryRequest),
    /// Compile on another thread, then tell [`Event::Compiled`].
    Compile { ticket: u64, manifest: Box<Manifest>, staged: Arc<Staged> },
    /// Put in force what the compilation with this ticket made.
    Swap { ticket: u64 },
    /// Put revocations in force at once, then on disk (`body` as received), then tell [`Event::Stored`].
    Revoke { ticket: u64, revocation: Revocation },
    /// Replace what is known of endpoints, at once; then see that `body`, as received, gets on disk. Nobody waits for that.
    SetEndpoints { endpoints: Endpoints, body: Vec<u8> },
    /// Replace the addresses of the pool's nodes.
    SetPeers(Peers),
    /// Fetch fresh credentials soon: a key is in use that this node was not told about.
    RenewCredentials,
    /// Open a stream after this long.
    Reconnect { after: Duration },
}

/// See the module.
pub struct Machine {
    about: About,
    manifest_keys: BTreeMap<String, Vec<u8>>,
    staged: Arc<Staged>,
    /// Resources that could not be staged as last sent, and why: a manifest that counts on them cannot be met.
    refused: BTreeMap<(String, String), String>,
    /// Staged, but part of a set that did not compile: asked for again on the next stream.
    suspect: BTreeSet<(String, String)>,
    applied: Option<Applied>,
    compiling: Option<Pending>,
    /// The newest manifest that arrived while another was being compiled.
    waiting: Option<Pending>,
    /// Versions of accepted resources that no manifest covers, by type and name.
    beside: BTreeMap<(String, String), String>,
    storing: BTreeMap<u64, Storing>,
    /// The ticket of the revocations that are in force.
    newest_revocation: u64,
    /// The digest that a full resynchronisation was asked for on this stream.
    resynced: Option<Digest>,
    backoff: Backoff,
    /// Streams in a row on which nothing was received.
    unanswered: u32,
    /// The control plane wants to be told what is held name by name.
    spelled_out: bool,
    last_ticket: u64,
}

/// So often a digest alone says what is held; after that everything is spelled out, whatever the reason for the silence may be.
const BRIEF_ATTEMPTS: u32 = 3;

/// What is in force.
struct Applied {
    version: Version,
    digest: Digest,
    staged: Arc<Staged>,
    /// Organisations that stayed behind, and why.
    except: Option<Refusal>,
}

/// A manifest whose resources are all here.
struct Pending {
    ticket: u64,
    /// To be answered with; gone when its stream is.
    nonce: Option<String>,
    manifest: Manifest,
    version: Version,
    digest: Digest,
    /// What was staged when the manifest came.
    staged: Arc<Staged>,
}

/// Revocations on their way to the disk.
struct Storing {
    nonce: Option<String>,
    name: String,
    version: String,
}

/// Why a response is refused: a google.rpc.Code and text for people. OK: it was applied, except for what the text names.
#[derive(Clone)]
struct Refusal {
    code: i32,
    message: String,
}

/// google.rpc.Code values that refusals use.
mod code {
    pub const OK: i32 = 0;
    pub const INVALID_ARGUMENT: i32 = 3;
    pub const PERMISSION_DENIED: i32 = 7;
    pub const FAILED_PRECONDITION: i32 = 9;
    pub const INTERNAL: i32 = 13;
    pub const DATA_LOSS: i32 = 15;
}

impl Machine {
    pub fn new(about: About, backoff: Backoff) -> Self {
        Self {
            about,
            manifest_keys: BTreeMap::new(),
            staged: Arc::default(),
            refused: BTreeMap::new(),
            suspect: BTreeSet::new(),
            applied: None,
            compiling: None,
            waiting: None,
            beside: BTreeMap::new(),
            storing: BTreeMap::new(),
            newest_revocation: 0,
            resynced: None,
            backoff,
            unanswered: 0,
            spelled_out: false,
            last_ticket: 0,
        }
    }

    /// Remembers revocations that were loaded from disk, so that they are not sent again.
    pub fn holds_revocation(&mut self, version: String) {
        let name = format!("revocation/{}", self.about.pool);
        self.beside.insert((type_url::REVOCATION.to_owned(), name), version);
    }

    /// As [`Machine::holds_revocation`], of the states of endpoints.
    pub fn holds_endpoints(&mut self, version: String) {
        let name = format!("endpoints/{}", self.about.pool);
        self.beside.insert((type_url::ENDPOINTS.to_owned(), name), version);
    }

    /// Begins with a configuration that is in force already, except for what `report` names: the first stream states it, as a reconnect
    /// would. One of another pool is not begun with.
    pub fn holds(&mut self, manifest: &Manifest, staged: Arc<Staged>, report: Vec<String>) {
        if manifest.scope != self.about.pool {
            return;
        }
        let version = Version { epoch: manifest.epoch, version: manifest.version };
        self.staged = Arc::clone(&staged);
        self.applied = Some(Applied { version, digest: staged.digest(), staged, except: Refusal::except(report) });
    }

    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Connected { manifest_keys } => {
                self.manifest_keys = manifest_keys;
                self.hello()
            }
            Event::Received(response) => {
                self.backoff.succeeded();
                (self.unanswered, self.spelled_out) = (0, false);
                self.receive(response)
            }
            Event::Compiled { ticket, result } => self.compiled(ticket, result),
            Event::Stored { ticket, result } => self.stored(ticket, result),
            Event::Lost(lost) => {
                self.spelled_out |= lost == Lost::Unknown;
                self.forget_stream();
                vec![Action::Reconnect { after: self.backoff.next(lost) }]
            }
        }
    }

    /// The first request of every type. The manifest comes last: when it is asked for, everything it covers was.
    fn hello(&mut self) -> Vec<Action> {
        let brief = self.holds_what_runs() && !self.spelled_out && self.unanswered < BRIEF_ATTEMPTS;
        self.unanswered = self.unanswered.saturating_add(1);
        let mut node = Some(self.node(brief));
        let types = type_url::BESIDE.into_iter().chain(type_url::COVERED).chain([type_url::MANIFEST]);
        types
            .map(|type_url| {
                Action::Send(DeltaDiscoveryRequest {
                    node: node.take(),
                    type_url: type_url.to_owned(),
                    resource_names_subscribe: vec![ALL.to_owned()],
                    initial_resource_versions: match brief && type_url::COVERED.contains(&type_url) {
                        true => BTreeMap::new(),
                        false => self.stated(type_url),
                    },
                    ..DeltaDiscoveryRequest::default()
                })
            })
            .collect()
    }

    /// What this node holds of a type, for a new stream: the suspect under no version, so that it comes again, or its removal does.
    fn stated(&self, type_url: &str) -> BTreeMap<String, String> {
        let suspect = self.suspect.iter().filter(|(of_type, _)| of_type == type_url);
        let mut held = self.accepted(type_url);
        held.extend(suspect.map(|(_, name)| (name.clone(), String::new())));
        held
    }

    /// What this node holds of a type, staged and not refused.
    fn accepted(&self, type_url: &str) -> BTreeMap<String, String> {
        let mut held = self.staged.versions(type_url);
        held.retain(|name, _| !self.suspect.contains(&(type_url.to_owned(), name.clone())));
        let beside = self.beside.iter().filter(|((of_type, _), _)| of_type == type_url);
        held.extend(beside.map(|((_, name), version)| (name.clone(), version.clone())));
        held
    }

    /// Whether the digest of what runs says all that is held: then a reconnect costs the same however large the configuration is.
    fn holds_what_runs(&self) -> bool {
        let same = |applied: &Applied| Arc::ptr_eq(&applied.staged, &self.staged) || applied.digest == self.staged.digest();
        self.refused.is_empty() && self.suspect.is_empty() && self.applied.as_ref().is_some_and(same)
    }

    fn node(&self, brief: bool) -> Node {
        let text = |value: String| Value { kind: Some(Kind::StringValue(value)) };
        let mut fields = BTreeMap::from([("build".to_owned(), text(self.about.build.clone()))]);
        if !self.about.advertise.is_empty() {
            fields.insert("advertise".to_owned(), text(self.about.advertise.clone()));
        }
        if let Some(applied) = &self.applied {
            fields.insert("epoch".to_owned(), text(applied.version.epoch.to_string()));
            fields.insert("applied_version".to_owned(), text(applied.version.version.to_string()));
            // What newer versions have brought since is not part of it: a control plane that believed the digest would leave gaps.
            if self.holds_what_runs() {
                fields.insert("digest".to_owned(), text(applied.digest.to_string()));
            }
        }
        if brief {
            fields.insert("holds".to_owned(), text("digest".to_owned()));
        }
        Node {
            id: self.about.node_id.clone(),
            cluster: self.about.pool.clone(),
            metadata: Some(Struct { fields }),
            user_agent_name: "mcpgw-dataplane".to_owned(),
            user_agent_version: self.about.build.clone(),
        }
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) -> Vec<Action> {
        let (type_url, nonce) = (response.type_url.clone(), response.nonce.clone());
        let result = if type_url::COVERED.contains(&type_url.as_str()) {
            self.stage(response).map(|()| Vec::new())
        } else {
            match type_url.as_str() {
                type_url::MANIFEST => return self.manifests(response),
                type_url::REVOCATION => return self.revoke(response),
                type_url::ENDPOINTS => self.endpoints(response),
                type_url::PEERS => self.peers(response),
                _ => Err(Refusal::new(code::INVALID_ARGUMENT, format!("type {type_url} was not asked for"))),
            }
        };
        match result {
            Ok(mut actions) => {
                actions.push(ack(&type_url, nonce));
                actions
            }
            Err(refusal) => vec![nack(&type_url, nonce, refusal)],
        }
    }

    /// Nothing of the old stream may be said on the next one.
    fn forget_stream(&mut self) {
        self.resynced = None;
        // What was refused comes again, or is gone: without this, something that is gone would be held against every later manifest.
        self.refused.clear();
        for pending in self.compiling.iter_mut().chain(&mut self.waiting) {
            pending.nonce = None;
        }
        for storing in self.storing.values_mut() {
            storing.nonce = None;
        }
    }

    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }
}

impl Refusal {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What an applied configuration left out; `None`: nothing.
    fn except(report: Vec<String>) -> Option<Self> {
        (!report.is_empty()).then(|| Self::of(code::OK, report))
    }

    /// One line per problem, as many as fit.
    fn of(code: i32, problems: impl IntoIterator<Item = String>) -> Self {
        let mut message = String::new();
        let mut left_out = 0;
        for problem in problems {
            if message.len() + problem.len() > MAX_MESSAGE - 32 && !message.is_empty() {
                left_out += 1;
                continue;
            }
            if !message.is_empty() {
                message.push('\n');
            }
            message.push_str(&problem);
        }
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - 32));
        if left_out > 0 {
            message.push_str(&format!("\nand {left_out} more"));
        }
        Self { code, message }
    }
}

fn ack(type_url: &str, nonce: String) -> Action {
    Action::Send(answer(type_url, nonce))
}

/// Says that a manifest is in force, and what it left out.
fn applied(nonce: String, except: Option<&Refusal>) -> Action {
    match except {
        None => ack(type_url::MANIFEST, nonce),
        Some(except) => nack(type_url::MANIFEST, nonce, except.clone()),
    }
}

fn nack(type_url: &str, nonce: String, refusal: Refusal) -> Action {
    let status = Status { code: refusal.code, message: refusal.message, ..Status::default() };
    Action::Send(DeltaDiscoveryRequest { error_detail: Some(status), ..answer(type_url, nonce) })
}

fn answer(type_url: &str, nonce: String) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), response_nonce: nonce, ..DeltaDiscoveryRequest::default() }
}
