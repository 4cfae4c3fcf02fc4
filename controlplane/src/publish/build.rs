//! Rows and keys to the encoded resources of a pool, and their manifest. Pure: the same rows and keys give the same bytes on every
//! replica, whatever order they were read in. Called by [`super::publisher`].

use std::{collections::BTreeMap, sync::Arc};

use mcp_gateway::{
    proto::config::v1::{
        ApiKey, CredentialShard, Global, Manifest, Peers, Revocation, Secrets, SessionKey, SignatureAlgorithm, TokenIssuer,
        UpstreamCredential, VerificationKey,
    },
    seal::{PoolKey, seal_secrets},
    snapshot::{ContentHash, Digest, digest, shard_of, sign_manifest},
    type_url,
};
use prost::Message;

use super::scope::{Beside, Encoded, Resources, Scope};
use crate::{
    domain::bundle::{self, OrgRows},
    keys::{Key, Keys, Ring, SigningKey},
    store::publish::{ScopeRow, Voids},
};

/// What the settings of the process say to every node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The claim `iss` of the gateway's own tokens.
    pub issuer: String,
    /// Their audience.
    pub gateway_public_url: String,
    pub allowed_origins: Vec<String>,
}

/// One organisation as nodes get it. Its secrets are in the clear here, and only here.
pub struct OrgPart {
    pub pool: String,
    pub bundles: Vec<(Arc<str>, Encoded)>,
    /// Sorted by server.
    pub credentials: Vec<UpstreamCredential>,
    /// Sorted by id.
    pub keys: Vec<ApiKey>,
}

/// The covered resources of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub types: BTreeMap<&'static str, Resources>,
    pub digest: Digest,
    pub count: u32,
}

/// Encodes an organisation.
pub fn org_part(rows: &OrgRows, credentials: Vec<UpstreamCredential>, keys: Vec<ApiKey>) -> OrgPart {
    let encode = |bundle| (mcp_gateway::bundle::name(&bundle).into(), Encoded::new(bundle.encode_to_vec()));
    OrgPart {
        pool: rows.organization.pool.clone(),
        bundles: bundle::org_bundles(rows).into_iter().map(encode).collect(),
        credentials,
        keys,
    }
}

/// Encodes what is covered by a pool's manifest. `ring` are the pool's own keys.
pub fn content<'a>(
    pool: &str,
    orgs: impl Iterator<Item = &'a OrgPart> + Clone,
    keys: &Keys,
    ring: &Ring<PoolKey>,
    settings: &Settings,
) -> Content {
    let mut types = BTreeMap::from([
        (type_url::GLOBAL, one(format!("global/{pool}"), &global(pool, keys, settings))),
        (type_url::SECRET_ENVELOPE, secrets(pool, orgs.clone(), keys, ring)),
    ]);
    types.insert(type_url::ORG_BUNDLE, orgs.clone().flat_map(|org| org.bundles.iter().cloned()).collect());
    types.insert(type_url::CREDENTIAL_SHARD, shards(pool, orgs));
    let hashes = types.iter().flat_map(|(type_url, resources)| {
        resources.iter().map(|(name, encoded)| (*type_url, &**name, ContentHash::of(&encoded.body)))
    });
    let digest = digest(hashes);
    let count = types.values().map(BTreeMap::len).sum::<usize>();
    Content { types, digest, count: u32::try_from(count).unwrap_or(u32::MAX) }
}

/// Adds the signed manifest: `row` says since when the pool has this content.
pub fn scope(pool: &str, content: Content, row: &ScopeRow, signer: &Key<SigningKey>) -> Scope {
    let mut manifest = Manifest {
        epoch: row.version.epoch,
        version: row.version.version,
        scope: pool.to_owned(),
        digest: content.digest.as_bytes().to_vec().into(),
        created_at_ms: row.committed_at.timestamp_millis(),
        resource_count: content.count,
        ..Manifest::default()
    };
    sign_manifest(&mut manifest, &signer.id, signer.material.pair());
    let Content { mut types, digest, .. } = content;
    types.insert(type_url::MANIFEST, one(format!("manifest/{pool}"), &manifest));
    Scope { version: row.version, digest, types }
}

/// Encodes what travels beside the manifest. No addresses of nodes are known in this version.
pub fn beside(pool: &str, voids: &Voids) -> Beside {
    let revocation = Revocation {
        api_keys: voids.api_keys.clone(),
        login_sessions: voids.login_sessions.clone(),
        subjects: voids.subjects.clone(),
    };
    Beside {
        types: BTreeMap::from([
            (type_url::REVOCATION, one(format!("revocation/{pool}"), &revocation)),
            (type_url::PEERS, one(format!("peers/{pool}"), &Peers::default())),
        ]),
    }
}

fn one(name: String, message: &impl Message) -> Resources {
    Resources::from([(name.into(), Encoded::new(message.encode_to_vec()))])
}

fn global(pool: &str, keys: &Keys, settings: &Settings) -> Global {
    let key = |key: &Key<SigningKey>| VerificationKey {
        key_id: key.id.clone(),
        algorithm: SignatureAlgorithm::Eddsa.into(),
        public_key: key.material.public().to_vec().into(),
    };
    let mut verification: Vec<_> = keys.jwt.iter().map(key).collect();
    verification.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    let issuer =
        TokenIssuer { issuer: settings.issuer.clone(), keys: verification, audiences: vec![settings.gateway_public_url.clone()] };
    Global { pool: pool.to_owned(), issuers: vec![issuer], allowed_origins: settings.allowed_origins.clone() }
}

fn secrets<'a>(pool: &str, orgs: impl Iterator<Item = &'a OrgPart>, keys: &Keys, ring: &Ring<PoolKey>) -> Resources {
    let current = &keys.session.current().id;
    let session_key = |key: &Key<crate::keys::Key32>| SessionKey {
        key_id: key.id.clone(),
        key: key.material.as_bytes().to_vec().into(),
        current: key.id == *current,
    };
    let mut session_keys: Vec<_> = keys.session.iter().map(session_key).collect();
    session_keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    let mut credentials: Vec<_> = orgs.flat_map(|org| org.credentials.iter().cloned()).collect();
    credentials.sort_by(|a, b| a.id.cmp(&b.id));
    let name = format!("secrets/{pool}");
    let sealing = ring.current();
    let envelope = seal_secrets(&sealing.id, &sealing.material, &name, &Secrets { session_keys, credentials });
    one(name, &envelope)
}

/// Only shards with a key in them exist.
fn shards<'a>(pool: &str, orgs: impl Iterator<Item = &'a OrgPart>) -> Resources {
    let mut shards: BTreeMap<u32, Vec<ApiKey>> = BTreeMap::new();
    for key in orgs.flat_map(|org| &org.keys) {
        shards.entry(shard_of(&key.key_id).into()).or_default().push(key.clone());
    }
    let encode = |(shard, mut keys): (u32, Vec<ApiKey>)| {
        keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        let body = CredentialShard { shard, keys }.encode_to_vec();
        (format!("credentials/{pool}/{shard}").into(), Encoded::new(body))
    };
    shards.into_iter().map(encode).collect()
}
