//! Manifests: believed, compared with what is staged, compiled, swapped, acknowledged, in this order and never less.

use std::sync::Arc;

use mcp_gateway::proto::config::v1::Manifest;
use mcp_gateway::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mcp_gateway::snapshot::{Digest, ManifestError, Problem, Staged, Version, verify_manifest};
use mcp_gateway::type_url;
use prost::Message;

use super::{ALL, About, Action, Applied, Machine, Pending, Refusal, ack, applied, code, nack};

/// What a believed manifest means for what is in force.
enum Order {
    /// It is what is in force.
    Same,
    Newer,
}

impl Machine {
    pub(super) fn manifests(&mut self, response: DeltaDiscoveryResponse) -> Vec<Action> {
        let nonce = response.nonce.clone();
        let mut manifest = None;
        let mut problems = Vec::new();
        for (name, usable) in self.usable(response) {
            let decoded = usable.and_then(|usable| match usable.map(|usable| Manifest::decode(&usable.body[..])) {
                None => Ok(None),
                Some(Ok(manifest)) => Ok(Some(manifest)),
                Some(Err(error)) => Err(format!("the content is not a Manifest: {error}")),
            });
            match decoded {
                Ok(decoded) => manifest = manifest.or(decoded),
                Err(reason) => problems.push(format!("{name}: {reason}")),
            }
        }
        match manifest {
            _ if !problems.is_empty() => vec![nack(type_url::MANIFEST, nonce, Refusal::of(code::INVALID_ARGUMENT, problems))],
            Some(manifest) => self.manifest(&nonce, manifest),
            // Removal changes nothing: a node serves its last good configuration until it gets another.
            None => vec![ack(type_url::MANIFEST, nonce)],
        }
    }

    fn manifest(&mut self, nonce: &str, manifest: Manifest) -> Vec<Action> {
        if let Err(refusal) = self.believe(&manifest) {
            let mut actions = vec![nack(type_url::MANIFEST, nonce.to_owned(), refusal)];
            if !self.manifest_keys.contains_key(&manifest.key_id) {
                actions.push(Action::RenewCredentials);
            }
            return actions;
        }
        let version = Version { epoch: manifest.epoch, version: manifest.version };
        let Some(digest) = Digest::from_bytes(&manifest.digest) else {
            let refusal = Refusal::new(code::INVALID_ARGUMENT, format!("{version}: digest: expected 32 bytes"));
            return vec![nack(type_url::MANIFEST, nonce.to_owned(), refusal)];
        };
        match self.order(version, digest) {
            Ok(Order::Same) => {
                let except = self.applied.as_ref().and_then(|applied| applied.except.as_ref());
                return vec![applied(nonce.to_owned(), except)];
            }
            Ok(Order::Newer) => {}
            Err(refusal) => return vec![nack(type_url::MANIFEST, nonce.to_owned(), refusal)],
        }
        let mut pending = self.compiling.iter_mut().chain(&mut self.waiting);
        if let Some(pending) = pending.find(|other| other.version == version && other.digest == digest) {
            // It came on an earlier stream already; the answer goes to this one.
            pending.nonce = Some(nonce.to_owned());
            return Vec::new();
        }
        if let Err((refusal, resync)) = self.complete(&manifest, digest) {
            let mut actions = vec![nack(type_url::MANIFEST, nonce.to_owned(), refusal)];
            if resync {
                actions.extend(self.resync(digest));
            }
            return actions;
        }
        let ticket = self.ticket();
        let staged = Arc::clone(&self.staged);
        self.begin(Pending { ticket, nonce: Some(nonce.to_owned()), manifest, version, digest, staged })
    }

    /// Only what a control plane signed for this pool, and for nodes like this one.
    fn believe(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let About { pool, build, .. } = &self.about;
        if manifest.scope != *pool {
            let message = format!("manifest of pool {:?} for a node of pool {pool:?}", manifest.scope);
            return Err(Refusal::new(code::PERMISSION_DENIED, message));
        }
        verify_manifest(manifest, &self.manifest_keys).map_err(|error| {
            let code = match &error {
                ManifestError::UnknownKey { .. } => code::FAILED_PRECONDITION,
                ManifestError::Forged { .. } => code::PERMISSION_DENIED,
            };
            Refusal::new(code, error.to_string())
        })?;
        let least = &manifest.min_node_version;
        if is_older(build, least) {
            let message = format!("this node has version {build}; {least} or newer is needed: upgrade the node");
            return Err(Refusal::new(code::FAILED_PRECONDITION, message));
        }
        Ok(())
    }

    /// Versions only grow: compared with what is in force, or will be as soon as it is compiled.
    fn order(&self, version: Version, digest: Digest) -> Result<Order, Refusal> {
        let applied = self.applied.as_ref().map(|applied| (applied.version, applied.digest));
        let pending = self.compiling.iter().chain(&self.waiting).map(|pending| (pending.version, pending.digest));
        let Some((newest, its_digest)) = applied.into_iter().chain(pending).max() else { return Ok(Order::Newer) };
        if version > newest {
            return Ok(Order::Newer);
        }
        if version == newest && digest == its_digest {
            return Ok(if applied == Some((version, digest)) { Order::Same } else { Order::Newer });
        }
        let message = if version == newest {
            format!("version {version} is here already with another digest")
        } else {
            format!(
                "version {version} is older than {newest}, which is here already; a rollback is a new version with old content"
            )
        };
        Err(Refusal::new(code::FAILED_PRECONDITION, message))
    }

    /// Whether what is staged is what the manifest covers; if not, whether everything should be sent once more.
    fn complete(&self, manifest: &Manifest, digest: Digest) -> Result<(), (Refusal, bool)> {
        let found = self.staged.digest();
        if found == digest {
            return Ok(());
        }
        if !self.refused.is_empty() {
            // Sending the same again would not help.
            let problems = self.refused.iter().map(|((_, name), reason)| format!("{name}: {reason}"));
            return Err((Refusal::of(code::INVALID_ARGUMENT, problems), false));
        }
        let (held, covered) = (self.staged.len(), manifest.resource_count);
        let message = format!("staged {held} resources with digest {found}; the manifest covers {covered} with digest {digest}");
        Err((Refusal::new(code::DATA_LOSS, message), self.resynced != Some(digest)))
    }

    /// Asks for everything once more: re-subscribing makes the server send what it believes is here (xDS protocol).
    fn resync(&mut self, digest: Digest) -> Vec<Action> {
        self.resynced = Some(digest);
        self.staged = Arc::new(Staged::new());
        self.suspect.clear();
        let again = |type_url: &str| {
            Action::Send(DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_unsubscribe: vec![ALL.to_owned()],
                resource_names_subscribe: vec![ALL.to_owned()],
                ..DeltaDiscoveryRequest::default()
            })
        };
        type_url::COVERED.into_iter().chain([type_url::MANIFEST]).map(again).collect()
    }

    /// One compilation at a time; of the manifests that wait only the newest counts, the others stay unanswered.
    fn begin(&mut self, pending: Pending) -> Vec<Action> {
        if self.compiling.is_some() {
            self.waiting = Some(pending);
            return Vec::new();
        }
        let action = Action::Compile {
            ticket: pending.ticket,
            manifest: Box::new(pending.manifest.clone()),
            staged: Arc::clone(&pending.staged),
        };
        self.compiling = Some(pending);
        vec![action]
    }

    pub(super) fn compiled(&mut self, ticket: u64, result: Result<Vec<String>, Vec<Problem>>) -> Vec<Action> {
        let Some(done) = self.compiling.take_if(|pending| pending.ticket == ticket) else { return Vec::new() };
        let mut actions = Vec::new();
        match result {
            Ok(report) => {
                let except = Refusal::except(report);
                actions.push(Action::Swap { ticket });
                actions.extend(done.nonce.map(|nonce| applied(nonce, except.as_ref())));
                self.suspect.clear();
                self.applied = Some(Applied { version: done.version, digest: done.digest, staged: done.staged, except });
            }
            Err(problems) => {
                self.suspect_changes(&done.staged);
                if problems.iter().any(|problem| matches!(problem, Problem::PoolKeyUnknown { .. })) {
                    actions.push(Action::RenewCredentials);
                }
                let refusal = if problems.is_empty() {
                    Refusal::new(code::INTERNAL, "the compilation broke off; the node's log says why")
                } else {
                    Refusal::of(code::INVALID_ARGUMENT, problems.iter().map(Problem::to_string))
                };
                actions.extend(done.nonce.map(|nonce| nack(type_url::MANIFEST, nonce, refusal)));
            }
        }
        if let Some(next) = self.waiting.take() {
            actions.extend(self.begin(next));
        }
        actions
    }

    /// What differs from the last good configuration is not counted as held: the next stream brings it again, perhaps better.
    fn suspect_changes(&mut self, staged: &Staged) {
        for type_url in type_url::COVERED {
            for name in staged.versions(type_url).into_keys() {
                let good = self.applied.as_ref().and_then(|applied| applied.staged.hash(type_url, &name));
                if staged.hash(type_url, &name) != good && staged.hash(type_url, &name) == self.staged.hash(type_url, &name) {
                    self.suspect.insert((type_url.to_owned(), name));
                }
            }
        }
    }
}

/// Whether a node of version `build` is older than `least`; nothing is older than an empty version.
pub(in crate::xds) fn is_older(build: &str, least: &str) -> bool {
    !least.is_empty() && numbers(build) < numbers(least)
}

/// `1.12.3-rc1` as numbers that compare: what is not a number counts as 0.
fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers: Vec<u64> = release.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    numbers.resize(3.max(numbers.len()), 0);
    numbers
}
