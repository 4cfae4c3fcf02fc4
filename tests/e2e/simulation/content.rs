//! Configurations of the simulation: real resources in real bundles under signed manifests, small enough to make by the thousand.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use mcp_gateway::proto::config::v1::{
    ApiKey, CredentialShard, Endpoint, Endpoints, Global, Manifest, OrgBundle, Organization, Peers, Revocation, Secrets, Server,
    SessionKey, Transport,
};
use mcp_gateway::seal::{PoolKey, seal_secrets};
use mcp_gateway::snapshot::{Digest, Snapshot, Version, digest, shard_of, sign_manifest};
use mcp_gateway::type_url::{
    COVERED, CREDENTIAL_SHARD, ENDPOINTS, GLOBAL, MANIFEST, ORG_BUNDLE, PEERS, REVOCATION, SECRET_ENVELOPE,
};
use mcpgw_controlplane::publish::scope::{Beside, Encoded, Resources, Scope};
use prost::Message as _;
use uuid::Uuid;

pub const POOL: &str = "default";
/// The manifest key that every node knows from its enrolment, and one that it has to ask for.
pub const KEYS: [&str; 2] = ["m1", "m2"];

/// An organisation at one version: each of its servers carries the revision, so that a mixture would show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    pub revision: u32,
    /// Bundles, with one server each.
    pub chunks: u32,
    /// No node can compile it.
    pub poisoned: bool,
}

/// By a number of the simulation's.
pub type Orgs = BTreeMap<u8, Org>;

/// What an encoder with a defect does to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The manifest covers something else than what is sent.
    Digest,
    /// The common part does not compile: no organisation's fault.
    Global,
    /// The version of the first bundle is not its hash: the node refuses that resource.
    Version,
}

/// A version as control planes publish it.
pub struct Release {
    pub orgs: Orgs,
    pub damage: Option<Damage>,
    pub scope: Arc<Scope>,
    /// The same version as another build of the control plane encodes it.
    pub odd: Arc<Scope>,
}

struct Secret {
    signer: Ed25519KeyPair,
    pool_key: PoolKey,
    envelope: Encoded,
}

static SECRET: LazyLock<Secret> = LazyLock::new(|| {
    let pool_key = PoolKey::from_bytes(&[9; 32]).unwrap();
    let session_key = SessionKey { key_id: "s1".into(), key: vec![1; 32].into(), current: true };
    let secrets = Secrets { session_keys: vec![session_key], credentials: vec![] };
    let envelope = Encoded::new(seal_secrets("p1", &pool_key, &format!("secrets/{POOL}"), &secrets).encode_to_vec());
    Secret { signer: Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap(), pool_key, envelope }
});

/// What opens the secrets.
pub fn pool_keys() -> BTreeMap<String, PoolKey> {
    BTreeMap::from([("p1".to_owned(), SECRET.pool_key.clone())])
}

/// What manifests are checked with by a node that was told of so many keys.
pub fn manifest_keys(known: usize) -> BTreeMap<String, Vec<u8>> {
    let public = SECRET.signer.public_key().as_ref().to_vec();
    KEYS[..known].iter().map(|key| ((*key).to_owned(), public.clone())).collect()
}

impl Release {
    /// `odd`: whether the other encoding is ever asked for.
    pub fn new(version: Version, orgs: Orgs, damage: Option<Damage>, key: &str, odd: bool) -> Self {
        let scope = Arc::new(scope(version, &orgs, damage, key, ""));
        let odd = if odd { Arc::new(self::scope(version, &orgs, damage, key, "http://odd.example")) } else { scope.clone() };
        Self { orgs, damage, scope, odd }
    }

    pub fn version(&self) -> Version {
        self.scope.version
    }
}

/// More sets of revocations than any life brings.
const SETS: u32 = 64;

static BESIDE: LazyLock<Vec<Arc<Beside>>> = LazyLock::new(|| (0..SETS).map(|number| Arc::new(beside_of(number))).collect());

/// What travels beside: the set of revocations has a number, and holds every number up to it.
pub fn beside(number: u32) -> Arc<Beside> {
    Arc::clone(&BESIDE[number as usize])
}

/// The number of the set with this version; none that was ever published: `None`.
pub fn number_of(version: &str) -> Option<u32> {
    (0..SETS).find(|number| BESIDE[*number as usize].types[REVOCATION].values().any(|encoded| *encoded.version == *version))
}

fn beside_of(number: u32) -> Beside {
    let one = |name: &str, body: Vec<u8>| Arc::new(BTreeMap::from([(format!("{name}/{POOL}").into(), Encoded::new(body))]));
    let revocation = revocation(number);
    let types = [
        (REVOCATION, one("revocation", revocation.encode_to_vec())),
        (ENDPOINTS, one("endpoints", Endpoints::default().encode_to_vec())),
        (PEERS, one("peers", Peers::default().encode_to_vec())),
    ];
    Beside { types: BTreeMap::from(types) }
}

/// The set with a number.
pub fn revocation(number: u32) -> Revocation {
    let api_keys = (1..=number).map(|number| format!("{number:0>16}")).collect();
    Revocation { api_keys, newest_us: number.into(), ..Revocation::default() }
}

/// The number of such a set.
pub fn number(revocation: &Revocation) -> u32 {
    u32::try_from(revocation.api_keys.len()).expect("few")
}

/// The revision of each organisation that a snapshot serves. Panics if one is served in parts.
pub fn served(snapshot: &Snapshot) -> BTreeMap<u8, (u32, u32)> {
    let of = |org: &Arc<mcp_gateway::snapshot::Org>| {
        let number = u8::try_from(org.id.parse::<Uuid>().unwrap().as_u128()).unwrap();
        let revisions: Vec<u32> = org.servers().map(|server| server.endpoints[0].url.path()[1..].parse().unwrap()).collect();
        let first = revisions[0];
        assert!(revisions.iter().all(|revision| *revision == first), "organisation {number} in parts: {revisions:?}");
        (number, (first, u32::try_from(revisions.len()).unwrap()))
    };
    // One in quarantine without anything to fall back to has no server.
    snapshot.orgs().filter(|org| org.servers().next().is_some()).map(of).collect()
}

fn scope(version: Version, orgs: &Orgs, damage: Option<Damage>, key: &str, origin: &str) -> Scope {
    let mut types: BTreeMap<&'static str, Resources> = COVERED.iter().map(|covered| (*covered, Resources::new())).collect();
    let mut put = |type_url: &'static str, name: String, encoded: Encoded| {
        types.entry(type_url).or_default().insert(name.into(), encoded);
    };
    let global = Global {
        pool: if damage == Some(Damage::Global) { "another" } else { POOL }.to_owned(),
        allowed_origins: (!origin.is_empty()).then(|| origin.to_owned()).into_iter().collect(),
        ..Global::default()
    };
    put(GLOBAL, format!("global/{POOL}"), Encoded::new(global.encode_to_vec()));
    put(SECRET_ENVELOPE, format!("secrets/{POOL}"), SECRET.envelope.clone());
    let mut shards: BTreeMap<u8, CredentialShard> = BTreeMap::new();
    let mut defect = damage == Some(Damage::Version);
    for (number, org) in orgs {
        let id = Uuid::from_u128(u128::from(*number)).to_string();
        for chunk in 0..org.chunks {
            let mut encoded = Encoded::new(bundle(*number, &id, org, chunk).encode_to_vec());
            if std::mem::take(&mut defect) {
                encoded.version = "rubbish".into();
            }
            put(ORG_BUNDLE, format!("org/{id}/{chunk}"), encoded);
        }
        let key_id = format!("{number:0>16}");
        let shard = shard_of(&key_id);
        let keys = &mut shards.entry(shard).or_insert_with(|| CredentialShard { shard: shard.into(), keys: vec![] }).keys;
        let subject = format!("key:{key_id}");
        keys.push(ApiKey { key_id, org_id: id, secret_sha256: vec![7; 32].into(), subject, ..ApiKey::default() });
    }
    for (number, shard) in shards {
        put(CREDENTIAL_SHARD, format!("credentials/{POOL}/{number}"), Encoded::new(shard.encode_to_vec()));
    }
    let hashes = types.iter().flat_map(|(of, resources)| resources.iter().map(|(name, encoded)| (*of, &**name, encoded.hash)));
    let digest = if damage == Some(Damage::Digest) { wrong(version) } else { digest(hashes) };
    let manifest = Encoded::new(manifest(version, digest, key).encode_to_vec());
    types.insert(MANIFEST, BTreeMap::from([(format!("manifest/{POOL}").into(), manifest)]));
    let types = types.into_iter().map(|(type_url, resources)| (type_url, Arc::new(resources))).collect();
    Scope { version, digest, types }
}

fn bundle(number: u8, id: &str, org: &Org, chunk: u32) -> OrgBundle {
    let poisoned = org.poisoned && chunk + 1 == org.chunks;
    let server = Server {
        id: Uuid::from_u128(u128::from(number) * 1000 + u128::from(chunk)).to_string(),
        slug: format!("s{chunk}"),
        transport: if poisoned { 99 } else { Transport::StreamableHttp.into() },
        endpoints: vec![Endpoint { url: format!("http://127.0.0.1:9/{}", org.revision), weight: 1 }],
        ..Server::default()
    };
    OrgBundle {
        org_id: id.to_owned(),
        chunk,
        chunk_count: org.chunks,
        organization: (chunk == 0).then(|| Organization { slug: format!("org{number}"), ..Organization::default() }),
        servers: vec![server],
        ..OrgBundle::default()
    }
}

fn manifest(version: Version, digest: Digest, key: &str) -> Manifest {
    let mut manifest = Manifest {
        epoch: version.epoch,
        version: version.version,
        scope: POOL.to_owned(),
        digest: digest.as_bytes().to_vec().into(),
        ..Manifest::default()
    };
    sign_manifest(&mut manifest, key, &SECRET.signer);
    manifest
}

fn wrong(version: Version) -> Digest {
    let mut bytes = [0xdd; 32];
    bytes[..8].copy_from_slice(&version.version.to_be_bytes());
    Digest::from_bytes(&bytes).expect("32 bytes")
}
