//! A small valid scope for tests: one pool, an organisation and room for others. Tests change the one thing they are about.

use std::collections::BTreeMap;

use prost::Message;

use super::{Problem, Snapshot, Staged, compile, shard_of};
use crate::proto::config::v1::{
    ApiKey, CredentialShard, Effect, Endpoint, Global, Manifest, Match, OrgBundle, Organization, Policy, Secrets, Server,
    SessionKey, Subjects, Transport,
};
use crate::seal::{PoolKey, seal_secrets};
use crate::type_url;

pub const ACME: &str = "0190a000-0000-7000-8000-0000000000a1";
pub const GITHUB: &str = "0190a000-0000-7000-8000-0000000000b1";
pub const POLICY: &str = "0190a000-0000-7000-8000-0000000000c1";
pub const KEY: &str = "abcdefghijklmnop";

pub struct Scope {
    pub manifest: Manifest,
    pub global: Global,
    pub org: OrgBundle,
    /// Beside it.
    pub others: Vec<OrgBundle>,
    pub shard: CredentialShard,
    pub secrets: Secrets,
    pub pool_key: PoolKey,
}

impl Scope {
    pub fn new() -> Self {
        let key = ApiKey {
            key_id: KEY.into(),
            org_id: ACME.into(),
            secret_sha256: vec![7; 32].into(),
            subject: format!("key:{KEY}"),
            ..ApiKey::default()
        };
        Self {
            manifest: Manifest { epoch: 1, version: 7, scope: "default".into(), ..Manifest::default() },
            global: Global { pool: "default".into(), ..Global::default() },
            org: org(ACME, "acme", GITHUB),
            others: Vec::new(),
            shard: CredentialShard { shard: shard_of(KEY).into(), keys: vec![key] },
            secrets: Secrets {
                session_keys: vec![SessionKey { key_id: "s1".into(), key: vec![1; 32].into(), current: true }],
                credentials: vec![],
            },
            pool_key: PoolKey::from_bytes(&[9; 32]).unwrap(),
        }
    }

    pub fn staged(&self) -> Staged {
        let mut staged = Staged::new();
        let sealed = seal_secrets("p1", &self.pool_key, "secrets/default", &self.secrets);
        let mut put = |type_url: &str, name: String, body: Vec<u8>| {
            staged.put(type_url, &name, body.into()).unwrap();
        };
        put(type_url::GLOBAL, "global/default".into(), self.global.encode_to_vec());
        for org in [&self.org].into_iter().chain(&self.others) {
            put(type_url::ORG_BUNDLE, format!("org/{}/{}", org.org_id, org.chunk), org.encode_to_vec());
        }
        put(type_url::CREDENTIAL_SHARD, format!("credentials/default/{}", self.shard.shard), self.shard.encode_to_vec());
        put(type_url::SECRET_ENVELOPE, "secrets/default".into(), sealed.encode_to_vec());
        staged
    }

    pub fn compile(&self) -> Result<Snapshot, Vec<Problem>> {
        self.compile_after(None)
    }

    pub fn compile_after(&self, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
        compile(&self.manifest, &self.staged(), &self.pool_keys(), previous)
    }

    /// Compiles without anything wrong.
    pub fn good(&self, previous: Option<&Snapshot>) -> Snapshot {
        let snapshot = self.compile_after(previous).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(snapshot.report(), [""; 0]);
        snapshot
    }

    pub fn pool_keys(&self) -> BTreeMap<String, PoolKey> {
        BTreeMap::from([("p1".to_owned(), self.pool_key.clone())])
    }
}

/// An organisation with one server and one policy, like the scope's first.
pub fn org(id: &str, slug: &str, server_id: &str) -> OrgBundle {
    OrgBundle {
        org_id: id.into(),
        chunk_count: 1,
        organization: Some(Organization { slug: slug.into(), ..Organization::default() }),
        servers: vec![server(server_id, "github")],
        policies: vec![allow(POLICY, "engineers", &["engineer"], &["search_*", "get_issue"])],
        ..OrgBundle::default()
    }
}

pub fn server(id: &str, slug: &str) -> Server {
    Server {
        id: id.into(),
        slug: slug.into(),
        transport: Transport::StreamableHttp.into(),
        endpoints: vec![Endpoint { url: "http://127.0.0.1:9/mcp".into(), weight: 0 }],
        ..Server::default()
    }
}

pub fn allow(id: &str, name: &str, roles: &[&str], tools: &[&str]) -> Policy {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Policy {
        id: id.into(),
        name: name.into(),
        effect: Effect::Allow.into(),
        subjects: Some(Subjects { roles: owned(roles), ..Subjects::default() }),
        servers: vec!["github".into()],
        r#match: Some(Match { tools: owned(tools), ..Match::default() }),
        ..Policy::default()
    }
}
