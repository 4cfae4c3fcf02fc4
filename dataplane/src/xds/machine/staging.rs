//! Takes in resources: what the manifest covers is staged, what travels beside it is put in force at once.
//! The good resources of a response count even if others in it are refused (gRPC A46).

use std::collections::BTreeSet;
use std::sync::Arc;

use mcp_gateway::proto::config::v1::{CredentialShard, Endpoints, Global, Peers, Revocation, SecretEnvelope};
use mcp_gateway::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use mcp_gateway::snapshot::{ContentHash, is_uuid};
use mcp_gateway::type_url;
use prost::Message;

use super::{Action, Machine, Refusal, Storing, ack, code, nack};

/// A resource that may be used: its name, content and version.
pub(super) struct Usable {
    pub name: String,
    pub body: Vec<u8>,
    pub version: String,
}

impl Machine {
    pub(super) fn stage(&mut self, response: DeltaDiscoveryResponse) -> Result<(), Refusal> {
        let type_url = response.type_url.clone();
        for name in &response.removed_resources {
            let key = (type_url.clone(), name.clone());
            self.refused.remove(&key);
            self.suspect.remove(&key);
            Arc::make_mut(&mut self.staged).remove(&type_url, name);
        }
        let mut problems = Vec::new();
        for (name, usable) in self.usable(response) {
            let key = (type_url.clone(), name.clone());
            let staged = usable.and_then(|usable| {
                // A heartbeat confirms what is held.
                let Some(usable) = usable else { return Ok(()) };
                decodes(&type_url, &usable.body)?;
                Arc::make_mut(&mut self.staged)
                    .put(&type_url, &usable.name, usable.body.into())
                    .map(drop)
                    .map_err(|problem| problem.to_string())
            });
            match staged {
                Ok(()) => {
                    self.refused.remove(&key);
                    self.suspect.remove(&key);
                }
                Err(reason) => {
                    problems.push(format!("{name}: {reason}"));
                    self.refused.insert(key, reason);
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Refusal::of(code::INVALID_ARGUMENT, problems)) }
    }

    /// Revocations hold from now on; the answer waits until they are on disk, so that a restart cannot undo what was acknowledged.
    pub(super) fn revoke(&mut self, response: DeltaDiscoveryResponse) -> Vec<Action> {
        let nonce = response.nonce.clone();
        // Removal changes nothing: only a newer set of revocations takes one back.
        let mut actions = Vec::new();
        let mut problems = Vec::new();
        for (name, usable) in self.usable(response) {
            let decoded = usable.and_then(|usable| {
                let decode = |usable: Usable| match Revocation::decode(&usable.body[..]) {
                    Ok(revocation) => Ok((usable, revocation)),
                    Err(error) => Err(format!("the content is not a Revocation: {error}")),
                };
                usable.map(decode).transpose()
            });
            match decoded {
                Ok(None) => {}
                Ok(Some((usable, revocation))) => {
                    let ticket = self.ticket();
                    // What is in force now is not what is on disk: until it is, a new stream has to bring it again.
                    self.beside.remove(&(type_url::REVOCATION.to_owned(), usable.name.clone()));
                    self.newest_revocation = ticket;
                    let storing = Storing { nonce: Some(nonce.clone()), name: usable.name, version: usable.version };
                    self.storing.insert(ticket, storing);
                    actions.push(Action::Revoke { ticket, revocation });
                }
                Err(reason) => problems.push(format!("{name}: {reason}")),
            }
        }
        if !problems.is_empty() {
            for storing in self.storing.values_mut().filter(|storing| storing.nonce.as_ref() == Some(&nonce)) {
                storing.nonce = None; // one answer per response, and it is no
            }
            actions.push(nack(type_url::REVOCATION, nonce, Refusal::of(code::INVALID_ARGUMENT, problems)));
        } else if actions.is_empty() {
            actions.push(ack(type_url::REVOCATION, nonce));
        }
        actions
    }

    pub(super) fn stored(&mut self, ticket: u64, result: Result<(), String>) -> Vec<Action> {
        let Some(Storing { nonce, name, version }) = self.storing.remove(&ticket) else { return Vec::new() };
        let key = (type_url::REVOCATION.to_owned(), name.clone());
        let refusal = match result {
            Ok(()) => {
                // An older set that gets there later says nothing about the newest.
                if ticket == self.newest_revocation {
                    self.beside.insert(key, version);
                }
                None
            }
            Err(reason) => Some(Refusal::new(code::INTERNAL, format!("{name}: in force, but not on disk: {reason}"))),
        };
        match (nonce, refusal) {
            (None, _) => Vec::new(),
            (Some(nonce), None) => vec![ack(type_url::REVOCATION, nonce)],
            (Some(nonce), Some(refusal)) => vec![nack(type_url::REVOCATION, nonce, refusal)],
        }
    }

    /// Removal changes nothing: what was received last holds.
    pub(super) fn endpoints(&mut self, response: DeltaDiscoveryResponse) -> Result<Vec<Action>, Refusal> {
        let mut actions = Vec::new();
        for (name, usable) in self.usable(response) {
            let refused = |reason| Refusal::new(code::INVALID_ARGUMENT, format!("{name}: {reason}"));
            let Some(usable) = usable.map_err(refused)? else { continue };
            let endpoints = Endpoints::decode(&usable.body[..]);
            let endpoints = endpoints.map_err(|error| refused(format!("the content is not Endpoints: {error}")))?;
            self.beside.insert((type_url::ENDPOINTS.to_owned(), usable.name), usable.version);
            actions.push(Action::SetEndpoints { endpoints, body: usable.body });
        }
        Ok(actions)
    }

    pub(super) fn peers(&mut self, response: DeltaDiscoveryResponse) -> Result<Vec<Action>, Refusal> {
        let mut actions = Vec::new();
        if !response.removed_resources.is_empty() {
            self.beside.retain(|(type_url, _), _| type_url != type_url::PEERS);
            actions.push(Action::SetPeers(Peers::default()));
        }
        for (name, usable) in self.usable(response) {
            let refused = |reason| Refusal::new(code::INVALID_ARGUMENT, format!("{name}: {reason}"));
            let Some(usable) = usable.map_err(refused)? else { continue };
            let peers = Peers::decode(&usable.body[..]).map_err(|error| refused(format!("the content is not Peers: {error}")))?;
            self.beside.insert((type_url::PEERS.to_owned(), usable.name), usable.version);
            actions.push(Action::SetPeers(peers));
        }
        Ok(actions)
    }

    /// Every name in a response, once, with its resource or what is wrong with it. `None` is a heartbeat for what is held.
    pub(super) fn usable(&self, response: DeltaDiscoveryResponse) -> Vec<(String, Result<Option<Usable>, String>)> {
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<String> = response
            .resources
            .iter()
            .filter(|resource| !seen.insert(&resource.name))
            .map(|resource| resource.name.clone())
            .collect();
        let mut found: Vec<_> =
            twice.iter().map(|name| (name.clone(), Err("is in the response twice; neither was used".to_owned()))).collect();
        for resource in response.resources {
            if !twice.contains(&resource.name) {
                found.push((resource.name.clone(), self.check(&response.type_url, resource)));
            }
        }
        found
    }

    fn check(&self, type_url: &str, resource: Resource) -> Result<Option<Usable>, String> {
        let Resource { name, version, resource, .. } = resource;
        if !self.fits(type_url, &name) {
            return Err(format!("the name does not fit type {type_url} in pool {}", self.about.pool));
        }
        let Some(any) = resource else {
            return match self.accepted(type_url).get(&name) {
                Some(held) if *held == version => Ok(None),
                _ => Err("a resource without content that this node does not hold".to_owned()),
            };
        };
        if any.type_url != type_url {
            return Err(format!("the content is of type {}", any.type_url));
        }
        let expected = ContentHash::of(&any.value).to_string();
        if version != expected {
            return Err(format!("the version {version:?} is not the content's hash {expected}"));
        }
        Ok(Some(Usable { name, body: any.value, version }))
    }

    fn fits(&self, type_url: &str, name: &str) -> bool {
        let pool = self.about.pool.as_str();
        let parts: Vec<&str> = name.split('/').collect();
        match (type_url, &parts[..]) {
            (type_url::GLOBAL, ["global", of])
            | (type_url::SECRET_ENVELOPE, ["secrets", of])
            | (type_url::MANIFEST, ["manifest", of])
            | (type_url::REVOCATION, ["revocation", of])
            | (type_url::ENDPOINTS, ["endpoints", of])
            | (type_url::PEERS, ["peers", of]) => *of == pool,
            (type_url::CREDENTIAL_SHARD, ["credentials", of, shard]) => *of == pool && shard.parse::<u8>().is_ok(),
            (type_url::ORG_BUNDLE, ["org", org, chunk]) => is_uuid(org) && chunk.parse::<u32>().is_ok(),
            _ => false,
        }
    }
}

/// Whether the content is a message of its type; what it means is for the compilation to say. An organisation's is staged in any case:
/// the digest covers it, and a bundle that nobody can read is that organisation's problem alone.
fn decodes(type_url: &str, body: &[u8]) -> Result<(), String> {
    let result = match type_url {
        type_url::GLOBAL => Global::decode(body).map(drop),
        type_url::SECRET_ENVELOPE => SecretEnvelope::decode(body).map(drop),
        type_url::CREDENTIAL_SHARD => CredentialShard::decode(body).map(drop),
        _ => Ok(()), // an organisation's; Staged::put refuses other types by name
    };
    result.map_err(|error| format!("the content is not a valid {type_url}: {error}"))
}
