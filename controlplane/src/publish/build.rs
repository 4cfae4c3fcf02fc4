//! Rows and keys to the encoded resources of a pool, and their manifest. Pure: the same rows and keys give the same bytes on every
//! replica, whatever order they were read in. Called by [`super::publisher`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mcp_gateway::{
    proto::config::v1::{
        ApiKey, CredentialShard, Endpoints, Global, Manifest, Peers, Revocation, Secrets, ServerEndpoints, SessionKey,
        SignatureAlgorithm, TokenIssuer, UpstreamCredential, VerificationKey,
    },
    seal::{PoolKey, seal_secrets},
    snapshot::{Digest, digest, shard_of, sign_manifest},
    type_url,
};
use prost::Message;
use uuid::Uuid;

use super::scope::{Beside, Encoded, Resources, Scope};
use crate::{
    domain::bundle::{self, OrgRows},
    keys::{Key, Keys, Ring, SigningKey},
    store::{
        holds::Rows,
        publish::{ScopeRow, Voids},
    },
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
    pub rows: Rows,
    pub bundles: Vec<(Arc<str>, Encoded)>,
    /// Sorted by server.
    pub credentials: Vec<UpstreamCredential>,
    /// By shard, each sorted by id.
    pub keys: BTreeMap<u32, Vec<ApiKey>>,
}

/// The organisations of a pool. One that did not change is the same allocation from version to version.
pub type Orgs = BTreeMap<Uuid, Arc<OrgPart>>;

/// What the content of a pool is made of.
#[derive(Clone)]
pub struct Ingredients {
    pub orgs: Orgs,
    pub keys: Arc<Keys>,
}

/// The covered resources of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub types: BTreeMap<&'static str, Arc<Resources>>,
    pub digest: Digest,
    pub count: u32,
}

impl Ingredients {
    /// Whether these are the very same: nothing was read anew.
    pub fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &other.keys)
            && self.orgs.len() == other.orgs.len()
            && self.orgs.iter().zip(&other.orgs).all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
    }
}

/// Encodes an organisation.
pub fn org_part(rows: &OrgRows, credentials: Vec<UpstreamCredential>, keys: Vec<ApiKey>) -> OrgPart {
    let encode = |bundle| (mcp_gateway::bundle::name(&bundle).into(), Encoded::new(bundle.encode_to_vec()));
    let mut shards: BTreeMap<u32, Vec<ApiKey>> = BTreeMap::new();
    for key in keys {
        shards.entry(shard_of(&key.key_id).into()).or_default().push(key);
    }
    OrgPart {
        pool: rows.organization.pool.clone(),
        rows: Rows {
            servers: u32::try_from(rows.servers.len()).unwrap_or(u32::MAX),
            policies: u32::try_from(rows.policies.len()).unwrap_or(u32::MAX),
            limits: u32::try_from(rows.limits.len()).unwrap_or(u32::MAX),
        },
        bundles: bundle::org_bundles(rows).into_iter().map(encode).collect(),
        credentials,
        keys: shards,
    }
}

/// Makes organisations whose rows cannot be read something that no node takes; their API keys are as they are.
pub fn withhold(orgs: &mut Orgs, unreadable: &BTreeMap<Uuid, Rows>) {
    for (id, part) in orgs {
        let Some(rows) = unreadable.get(id).copied() else { continue };
        let bundle = mcp_gateway::bundle::unreadable(&id.to_string());
        let bundles = vec![(mcp_gateway::bundle::name(&bundle).into(), Encoded::new(bundle.encode_to_vec()))];
        let (pool, keys) = (part.pool.clone(), part.keys.clone());
        *part = Arc::new(OrgPart { pool, rows, bundles, credentials: Vec::new(), keys });
    }
}

/// Encodes what is covered by a pool's manifest. Whatever `before` was made of alike is taken from there: what it is costs what
/// changed, and the result is the same without it. None: the pool has no keys.
pub fn content(pool: &str, now: &Ingredients, settings: &Settings, before: Option<(&Ingredients, &Content)>) -> Option<Content> {
    let ring = now.keys.pools.get(pool)?;
    let none = Orgs::new();
    let changed = differing(before.map_or(&none, |(before, _)| &before.orgs), &now.orgs);
    let held = |type_url| before.and_then(|(_, content)| content.types.get(type_url)).cloned().unwrap_or_default();
    let same_keys = before.is_some_and(|(before, _)| Arc::ptr_eq(&before.keys, &now.keys));
    let same_credentials = changed.iter().all(|(was, is)| credentials_of(*was) == credentials_of(*is));
    let secrets = if same_keys && same_credentials {
        held(type_url::SECRET_ENVELOPE)
    } else {
        secrets(pool, now.orgs.values(), &now.keys, ring)
    };
    let types = BTreeMap::from([
        (type_url::GLOBAL, one(format!("global/{pool}"), &global(pool, &now.keys, settings))),
        (type_url::SECRET_ENVELOPE, secrets),
        (type_url::ORG_BUNDLE, bundles(held(type_url::ORG_BUNDLE), &changed)),
        (type_url::CREDENTIAL_SHARD, shards(pool, held(type_url::CREDENTIAL_SHARD), &changed, &now.orgs)),
    ]);
    let hashes =
        types.iter().flat_map(|(type_url, resources)| resources.iter().map(|(name, encoded)| (*type_url, &**name, encoded.hash)));
    let digest = digest(hashes);
    let count = types.values().map(|resources| resources.len()).sum::<usize>();
    Some(Content { types, digest, count: u32::try_from(count).unwrap_or(u32::MAX) })
}

/// An organisation as it was and as it is.
type Changed<'a> = (Option<&'a OrgPart>, Option<&'a OrgPart>);

fn differing<'a>(before: &'a Orgs, now: &'a Orgs) -> Vec<Changed<'a>> {
    let gone = before.iter().filter(|(id, _)| !now.contains_key(id)).map(|(_, was)| (Some(&**was), None));
    let come = now.iter().filter_map(|(id, is)| match before.get(id) {
        Some(was) if Arc::ptr_eq(was, is) => None,
        was => Some((was.map(|was| &**was), Some(&**is))),
    });
    gone.chain(come).collect()
}

fn credentials_of(part: Option<&OrgPart>) -> &[UpstreamCredential] {
    part.map_or(&[], |part| &part.credentials)
}

fn bundles(held: Arc<Resources>, changed: &[Changed<'_>]) -> Arc<Resources> {
    let of = |part: Option<&'_ OrgPart>| part.map_or(&[][..], |part| &part.bundles).to_vec();
    let (was, is): (Vec<_>, Vec<_>) = changed.iter().map(|(was, is)| (of(*was), of(*is))).unzip();
    if was == is {
        return held;
    }
    let mut resources = Arc::unwrap_or_clone(held);
    for (name, _) in was.iter().flatten() {
        resources.remove(name);
    }
    resources.extend(is.into_iter().flatten());
    Arc::new(resources)
}

/// Only shards with a key in them exist.
fn shards(pool: &str, held: Arc<Resources>, changed: &[Changed<'_>], orgs: &Orgs) -> Arc<Resources> {
    let none = BTreeMap::new();
    let mut touched = BTreeSet::new();
    for (was, is) in changed {
        let (was, is) = (was.map_or(&none, |part| &part.keys), is.map_or(&none, |part| &part.keys));
        touched.extend(was.keys().chain(is.keys()).copied().filter(|shard| was.get(shard) != is.get(shard)));
    }
    if touched.is_empty() {
        return held;
    }
    let mut resources = Arc::unwrap_or_clone(held);
    for shard in touched {
        let name = format!("credentials/{pool}/{shard}");
        let mut keys: Vec<ApiKey> = orgs.values().filter_map(|org| org.keys.get(&shard)).flatten().cloned().collect();
        if keys.is_empty() {
            resources.remove(&*name);
            continue;
        }
        keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        resources.insert(name.into(), Encoded::new(CredentialShard { shard, keys }.encode_to_vec()));
    }
    Arc::new(resources)
}

/// Adds the signed manifest: `row` says since when the pool has this content.
pub fn scope(pool: &str, content: &Content, row: &ScopeRow, signer: &Key<SigningKey>) -> Scope {
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
    let mut types = content.types.clone();
    types.insert(type_url::MANIFEST, one(format!("manifest/{pool}"), &manifest));
    Scope { version: row.version, digest: content.digest, types }
}

/// Encodes what travels beside the manifest. No addresses of nodes are known in this version.
pub fn beside(pool: &str, voids: &Voids) -> Beside {
    let revocation = Revocation {
        api_keys: voids.api_keys.clone(),
        login_sessions: voids.login_sessions.clone(),
        subjects: voids.subjects.clone(),
        newest_us: voids.newest_us,
    };
    let peers = Peers { peers: voids.peers.get(pool).cloned().unwrap_or_default() };
    Beside {
        types: BTreeMap::from([
            (type_url::REVOCATION, one(format!("revocation/{pool}"), &revocation)),
            (type_url::ENDPOINTS, one(format!("endpoints/{pool}"), &endpoints(pool, voids))),
            (type_url::PEERS, one(format!("peers/{pool}"), &peers)),
        ]),
    }
}

/// The rows are sorted by server and URL.
fn endpoints(pool: &str, voids: &Voids) -> Endpoints {
    let mut servers: Vec<ServerEndpoints> = Vec::new();
    for row in voids.endpoints.iter().filter(|row| row.pool == pool) {
        let server_id = row.server.to_string();
        match servers.last_mut().filter(|last| last.server_id == server_id) {
            Some(last) => last.endpoints.push(row.status.clone()),
            None => servers.push(ServerEndpoints { server_id, endpoints: vec![row.status.clone()] }),
        }
    }
    Endpoints { servers }
}

fn one(name: String, message: &impl Message) -> Arc<Resources> {
    Arc::new(Resources::from([(name.into(), Encoded::new(message.encode_to_vec()))]))
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

fn secrets<'a>(pool: &str, orgs: impl Iterator<Item = &'a Arc<OrgPart>>, keys: &Keys, ring: &Ring<PoolKey>) -> Arc<Resources> {
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
