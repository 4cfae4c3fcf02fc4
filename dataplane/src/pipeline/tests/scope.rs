//! Configurations of the tests: two organisations, callers with and without rights. Tests change what they are about.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use mcp_gateway::proto::config::v1::{
    ApiKey, AuditFullAction, CredentialShard, Effect, Endpoint, Era, Global, Manifest, Match, OrgBundle, Organization, Policy,
    Secrets, Server, SessionKey, SignatureAlgorithm, Subjects, TokenIssuer, Transport, UpstreamCredential, VerificationKey,
};
use mcp_gateway::seal::{PoolKey, seal_secrets};
use mcp_gateway::snapshot::{Snapshot, Staged, compile, shard_of};
use mcp_gateway::type_url;
use prost::Message;
use sha2::{Digest as _, Sha256};

pub const ACME: &str = "0190a000-0000-7000-8000-0000000000a1";
pub const RIVAL: &str = "0190a000-0000-7000-8000-0000000000a2";
/// Acme's server, for callers with a credential.
pub const GITHUB: &str = "0190a000-0000-7000-8000-0000000000b1";
/// Acme's server that lets anonymous callers in.
pub const OPEN: &str = "0190a000-0000-7000-8000-0000000000b2";
/// The server of the other organisation.
pub const FOREIGN: &str = "0190a000-0000-7000-8000-0000000000b3";
/// A server that nobody has.
pub const NOBODYS: &str = "0190a000-0000-7000-8000-0000000000bf";

/// Keys by id; the secret of each is `s3cret-<id>`.
pub const ENGINEER: &str = "engineerkeyaaaaa";
pub const COLLEAGUE: &str = "colleaguekeyaaaa";
pub const STRANGER: &str = "strangerkeyaaaaa";
pub const USELESS: &str = "uselesskeyaaaaaa";
pub const EXPIRED: &str = "expiredkeyaaaaaa";

pub const ISSUER: &str = "https://gateway.test";
pub const ACME_ISSUER: &str = "https://login.acme.test";
pub const PUBLIC_URL: &str = "http://127.0.0.1:8080";
/// What the gateway presents to the server GITHUB.
pub const UPSTREAM_SECRET: &str = "Bearer upstream-s3cret";

pub fn bearer(key_id: &str) -> String {
    format!("Bearer mcpgw_{key_id}_s3cret-{key_id}")
}

pub struct Scope {
    pub version: u64,
    pub global: Global,
    pub orgs: Vec<OrgBundle>,
    pub keys: Vec<ApiKey>,
    pub secrets: Secrets,
}

/// The key pairs of the issuers; the same in every test.
pub fn signing_key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

impl Scope {
    /// Every server is at `upstream`.
    pub fn at(upstream: SocketAddr) -> Self {
        let engineers = Subjects { roles: vec!["engineer".into()], ..Subjects::default() };
        let everything = Match {
            tools: vec!["search_*".into(), "echo".into()],
            prompts: vec!["review".into()],
            resources: vec!["repo://acme/*".into()],
            methods: vec![],
        };
        let anonymous = Subjects { anonymous: true, ..Subjects::default() };
        let colleagues = Subjects { roles: vec!["colleague".into()], ..Subjects::default() };
        let some = Match { tools: vec!["search_code".into()], ..Match::default() };
        let acme = OrgBundle {
            org_id: ACME.into(),
            chunk_count: 1,
            organization: Some(Organization {
                slug: "acme".into(),
                issuers: vec![issuer(ACME_ISSUER, "acme-1", 2)],
                allowed_origins: vec!["https://app.acme.test".into()],
                audit_full: AuditFullAction::Block.into(),
                ..Organization::default()
            }),
            servers: vec![
                Server { credential_id: "c1".into(), ..server(GITHUB, "github", upstream) },
                Server { allow_anonymous: true, ..server(OPEN, "open", upstream) },
            ],
            policies: vec![
                allow("c1", "engineers", engineers, everything.clone()),
                allow("c2", "guests", anonymous, everything),
                allow("c3", "colleagues", colleagues, some),
            ],
            ..OrgBundle::default()
        };
        let rival = OrgBundle {
            org_id: RIVAL.into(),
            chunk_count: 1,
            organization: Some(Organization { slug: "rival".into(), ..Organization::default() }),
            servers: vec![server(FOREIGN, "theirs", upstream)],
            ..OrgBundle::default()
        };
        Self {
            version: 7,
            global: Global {
                pool: "default".into(),
                issuers: vec![issuer(ISSUER, "gateway-1", 1)],
                allowed_origins: vec!["https://console.test".into()],
            },
            orgs: vec![acme, rival],
            keys: vec![
                key(ENGINEER, ACME, &["engineer"]),
                key(COLLEAGUE, ACME, &["colleague"]),
                key(USELESS, ACME, &[]),
                key(STRANGER, RIVAL, &["engineer"]),
                ApiKey { expires_at: 1, ..key(EXPIRED, ACME, &["engineer"]) },
            ],
            secrets: Secrets {
                session_keys: vec![SessionKey { key_id: "s1".into(), key: vec![1; 32].into(), current: true }],
                credentials: vec![UpstreamCredential {
                    id: "c1".into(),
                    header: "authorization".into(),
                    value: UPSTREAM_SECRET.into(),
                }],
            },
        }
    }

    /// The server with this id.
    pub fn server(&mut self, id: &str) -> &mut Server {
        self.orgs.iter_mut().flat_map(|org| &mut org.servers).find(|server| server.id == id).unwrap()
    }

    pub fn compile(&self) -> Snapshot {
        self.compile_after(None, |_, body| body.into())
    }

    /// `hold` says how an organisation's bundle lies in memory; it lives as long as what was compiled from it.
    pub fn compile_after(&self, previous: Option<&Snapshot>, hold: impl Fn(&str, Vec<u8>) -> Bytes) -> Snapshot {
        let pool_key = PoolKey::from_bytes(&[9; 32]).unwrap();
        let sealed = seal_secrets("p1", &pool_key, "secrets/default", &self.secrets);
        let mut staged = Staged::new();
        for org in &self.orgs {
            let (name, body) = (format!("org/{}/0", org.org_id), hold(&org.org_id, org.encode_to_vec()));
            staged.put(type_url::ORG_BUNDLE, &name, body).unwrap();
        }
        let mut put = |type_url: &str, name: String, body: Vec<u8>| {
            staged.put(type_url, &name, body.into()).unwrap();
        };
        put(type_url::GLOBAL, "global/default".into(), self.global.encode_to_vec());
        put(type_url::SECRET_ENVELOPE, "secrets/default".into(), sealed.encode_to_vec());
        let mut shards: BTreeMap<u32, Vec<ApiKey>> = BTreeMap::new();
        for key in &self.keys {
            shards.entry(shard_of(&key.key_id).into()).or_default().push(key.clone());
        }
        for (shard, mut keys) in shards {
            keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
            put(
                type_url::CREDENTIAL_SHARD,
                format!("credentials/default/{shard}"),
                CredentialShard { shard, keys }.encode_to_vec(),
            );
        }
        let manifest = Manifest { epoch: 1, version: self.version, scope: "default".into(), ..Manifest::default() };
        let snapshot = compile(&manifest, &staged, &BTreeMap::from([("p1".to_owned(), pool_key)]), previous).unwrap();
        assert_eq!(snapshot.report(), [""; 0], "nothing is left out");
        snapshot
    }
}

fn server(id: &str, slug: &str, upstream: SocketAddr) -> Server {
    Server {
        id: id.into(),
        slug: slug.into(),
        transport: Transport::StreamableHttp.into(),
        era: Era::Both.into(),
        endpoints: vec![Endpoint { url: format!("http://{upstream}/mcp"), weight: 0 }],
        call_timeout_ms: 5_000,
        ..Server::default()
    }
}

pub fn allow(id: &str, name: &str, subjects: Subjects, matching: Match) -> Policy {
    Policy {
        id: format!("0190a000-0000-7000-8000-0000000000{id}"),
        name: name.into(),
        effect: Effect::Allow.into(),
        subjects: Some(subjects),
        servers: vec!["*".into()],
        r#match: Some(matching),
        ..Policy::default()
    }
}

fn key(id: &str, org: &str, roles: &[&str]) -> ApiKey {
    ApiKey {
        key_id: id.into(),
        org_id: org.into(),
        secret_sha256: Sha256::digest(format!("s3cret-{id}")).to_vec().into(),
        subject: format!("key:{id}"),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..ApiKey::default()
    }
}

fn issuer(name: &str, kid: &str, seed: u8) -> TokenIssuer {
    let public_key = signing_key(seed).public_key().as_ref().to_vec().into();
    let algorithm = SignatureAlgorithm::Eddsa.into();
    TokenIssuer {
        issuer: name.into(),
        keys: vec![VerificationKey { key_id: kid.into(), algorithm, public_key }],
        audiences: vec!["mcp".into()],
    }
}
