//! Staged resources to a [`Snapshot`]: decode, validate, index. Reuses what the previous snapshot already compiled.
//!
//! What is common to all (global settings, secrets, key shards) fails the whole; what is one organisation's is judged in [`super::quarantine`].

use std::collections::BTreeMap;

use hashbrown::HashMap;
use prost::{Message, Name};
use zeroize::Zeroizing;

use super::fallback::Fallbacks;
use super::model::{Issuer, SessionKey, SessionKeys, Snapshot, VerificationKey};
use super::org::read_orgs;
use super::quarantine::{Credentials, Wallet, judge};
use super::shard::{key_problems, read_shards};
use super::validate::{check_issuers, check_origins};
use super::{Problem, Staged, Version, stdio};
use crate::proto::config::v1::{self as wire, Global, Manifest, SecretEnvelope, Secrets};
use crate::seal::{PoolKey, open_secrets};
use crate::type_url;

/// Compiles what was staged under a manifest whose digest and signature the caller has checked.
///
/// An organisation that cannot be served as its bundles say falls back to what it is in `previous`, see [`Snapshot::quarantined`]; that is
/// no error. What concerns all of them is: every such problem is returned, not only the first. Nothing of `previous` is changed.
pub fn compile(
    manifest: &Manifest,
    staged: &Staged,
    pool_keys: &BTreeMap<String, PoolKey>,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, Vec<Problem>> {
    let mut problems = Vec::new();
    let global = read_global(&manifest.scope, staged, &mut problems);
    let secrets = index_secrets(read_secrets(staged, pool_keys, &mut problems), &mut problems);
    let shards = read_shards(staged, previous, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let wallet = Wallet { usable: &secrets.credentials, unusable: &secrets.unusable };
    let judged = judge(read_orgs(staged, previous), &wallet, previous);
    let key_problems = key_problems(&shards, &judged.orgs, |org| judged.quarantined.contains_key(org));
    Ok(Snapshot {
        version: Version { epoch: manifest.epoch, version: manifest.version },
        digest: staged.digest(),
        created_at_ms: manifest.created_at_ms,
        issuers: global.issuers.iter().map(issuer).collect(),
        allowed_origins: global.allowed_origins,
        shards,
        session_keys: secrets.session_keys,
        credentials: secrets.credentials,
        key_problems,
        ..Snapshot::of(judged)
    })
}

/// As [`compile`], in a process that has no previous snapshot but what [`Snapshot::fallbacks`] gave in an earlier one.
pub fn restore(
    manifest: &Manifest,
    staged: &Staged,
    pool_keys: &BTreeMap<String, PoolKey>,
    fallbacks: &Fallbacks,
) -> Result<Snapshot, Vec<Problem>> {
    compile(manifest, staged, pool_keys, Some(&Snapshot::of_fallbacks(fallbacks)))
}

pub(super) fn decode<M: Message + Name + Default>(resource: &str, body: &[u8], problems: &mut Vec<Problem>) -> Option<M> {
    M::decode(body)
        .map_err(|error| {
            problems.push(Problem::Undecodable {
                resource: resource.to_owned(),
                type_url: M::full_name(),
                reason: error.to_string(),
            });
        })
        .ok()
}

fn read_global(scope: &str, staged: &Staged, problems: &mut Vec<Problem>) -> Global {
    let found: Vec<_> = staged.of_type(type_url::GLOBAL).collect();
    let [(name, held)] = found.as_slice() else {
        problems.push(Problem::GlobalCount { scope: scope.to_owned(), found: found.len() });
        return Global::default();
    };
    let global: Global = decode(name, &held.body, problems).unwrap_or_default();
    if global.pool != scope {
        let (expected, found) = (scope.to_owned(), global.pool.clone());
        problems.push(Problem::WrongPool { resource: (*name).to_owned(), expected, found });
    }
    check_origins(name, &global.allowed_origins, problems);
    check_issuers(name, &global.issuers, problems);
    global
}

fn read_secrets(staged: &Staged, pool_keys: &BTreeMap<String, PoolKey>, problems: &mut Vec<Problem>) -> Vec<(String, Secrets)> {
    let mut opened = Vec::new();
    for (name, held) in staged.of_type(type_url::SECRET_ENVELOPE) {
        let Some(envelope) = decode::<SecretEnvelope>(name, &held.body, problems) else {
            continue;
        };
        let (resource, key_id) = (name.to_owned(), envelope.pool_key_id.clone());
        match pool_keys.get(&key_id).map(|key| open_secrets(key, name, &envelope)) {
            None => problems.push(Problem::PoolKeyUnknown { resource, key_id }),
            Some(Err(_)) => problems.push(Problem::SecretsUnreadable { resource, key_id }),
            Some(Ok(secrets)) => opened.push((resource, secrets)),
        }
    }
    opened
}

pub(super) fn issuer(wire: &wire::TokenIssuer) -> Issuer {
    let key = |key: &wire::VerificationKey| {
        let (algorithm, public_key) = (key.algorithm(), key.public_key.to_vec());
        (key.key_id.clone(), VerificationKey { algorithm, public_key })
    };
    Issuer { issuer: wire.issuer.clone(), audiences: wire.audiences.clone(), keys: wire.keys.iter().map(key).collect() }
}

/// What the secrets hold.
struct Opened {
    session_keys: SessionKeys,
    credentials: Credentials,
    /// Credentials that are neither header nor variable, and how so: whoever names one misses it.
    unusable: HashMap<String, Problem>,
}

fn index_secrets(opened: Vec<(String, Secrets)>, problems: &mut Vec<Problem>) -> Opened {
    let mut found = Opened { session_keys: SessionKeys::default(), credentials: HashMap::new(), unusable: HashMap::new() };
    for (resource, secrets) in opened {
        let current = secrets.session_keys.iter().filter(|key| key.current).count();
        if current != 1 {
            problems.push(Problem::CurrentSessionKey { resource: resource.clone(), found: current });
        }
        for key in secrets.session_keys {
            let Ok(bytes) = <[u8; 32]>::try_from(key.key.as_ref()) else {
                problems.push(Problem::InvalidSessionKey { resource: resource.clone(), key_id: key.key_id });
                continue;
            };
            if key.current {
                found.session_keys.current.clone_from(&key.key_id);
            }
            let sealed = SessionKey { key_id: key.key_id.clone(), key: Zeroizing::new(bytes) };
            found.session_keys.keys.insert(key.key_id, sealed);
        }
        for credential in secrets.credentials {
            let id = credential.id.clone();
            match usable(&credential) {
                Ok(()) => drop(found.credentials.insert(id, credential)),
                Err(expected) => {
                    let problem = Problem::InvalidCredential { resource: resource.clone(), credential: id.clone(), expected };
                    found.unusable.insert(id, problem);
                }
            }
        }
    }
    found
}

/// Whether it can be a header, or a variable of a process; which of them a server needs is for [`super::quarantine`] to ask.
fn usable(credential: &wire::UpstreamCredential) -> Result<(), &'static str> {
    match unfit_header(credential) {
        Some(expected) if stdio::unfit_variable(credential).is_some() => Err(expected),
        Some(_) | None => Ok(()),
    }
}

/// What is wrong with a credential that becomes a header.
pub(super) fn unfit_header(credential: &wire::UpstreamCredential) -> Option<&'static str> {
    match (http::HeaderName::try_from(&credential.header), http::HeaderValue::try_from(&credential.value)) {
        (Err(_), _) => Some("header: a header name is expected"),
        (_, Err(_)) => Some("value: a header value is expected"),
        (Ok(_), Ok(_)) => None,
    }
}
