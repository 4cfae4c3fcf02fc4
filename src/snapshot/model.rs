//! The compiled configuration: immutable, indexed, shared. Only `compile` builds one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use zeroize::Zeroizing;

use super::capture::Capture;
use super::client::ClientTransports;
use super::limit;
use super::policy::Index;
use super::quarantine::{Judged, Quarantine, report};
use super::staged::Held;
use super::stdio::Stdio;
use super::{ContentHash, Digest, Problem, Version, shard_of};
use crate::proto::config::v1::{AuditFullAction, Era, SignatureAlgorithm, Transport, UpstreamCredential};

/// One configuration, whole. A request holds one `Arc` of it from its first to its last decision.
pub struct Snapshot {
    pub(super) version: Version,
    pub(super) digest: Digest,
    pub(super) created_at_ms: i64,
    pub(super) issuers: Vec<Issuer>,
    pub(super) allowed_origins: Vec<String>,
    pub(super) orgs: BTreeMap<Arc<str>, Arc<Org>>,
    pub(super) slugs: HashMap<Arc<str>, Arc<str>>,
    pub(super) servers: HashMap<Arc<str>, (Arc<Org>, Arc<Server>)>,
    pub(super) shards: BTreeMap<u8, Arc<Shard>>,
    pub(super) session_keys: SessionKeys,
    pub(super) credentials: HashMap<String, UpstreamCredential>,
    /// Of earlier versions, for organisations in quarantine.
    pub(super) kept_credentials: HashMap<String, UpstreamCredential>,
    pub(super) quarantined: BTreeMap<Arc<str>, Quarantine>,
    /// API keys that were left out, by organisation.
    pub(super) key_problems: BTreeMap<Arc<str>, Vec<Problem>>,
}

/// An organisation, compiled. Reused from snapshot to snapshot while its digest stays the same.
pub struct Org {
    pub id: Arc<str>,
    pub slug: Arc<str>,
    /// Digest over the organisation's bundles: its effective configuration.
    pub digest: Digest,
    /// The organisation's own token issuers.
    pub issuers: Vec<Issuer>,
    /// Origins allowed beside the pool's.
    pub allowed_origins: Vec<String>,
    pub audit_full: AuditFullAction,
    /// Whether records of class audit have to be on the disk before their answers go on.
    pub audit_on_disk: bool,
    /// What of calls is kept beside their records.
    pub capture: Option<Capture>,
    /// What it was compiled from; shared with what is staged.
    pub(super) bundles: Vec<(String, Held)>,
    pub(super) servers: HashMap<Arc<str>, Arc<Server>>, // by slug; disabled ones are absent
    pub(super) index: Index,
    pub(super) limits: limit::Index,
}

/// A server that can be called.
pub struct Server {
    pub id: Arc<str>,
    pub slug: Arc<str>,
    pub org_id: Arc<str>,
    /// `Unspecified`: to be found out.
    pub transport: Transport,
    /// `Unspecified`: found out by asking the server.
    pub era: Era,
    /// At least one, and none of a process.
    pub endpoints: Vec<Endpoint>,
    /// Of `Transport::Stdio`, and only then.
    pub stdio: Option<Stdio>,
    /// What clients may use to reach it.
    pub client_transports: ClientTransports,
    /// Of a server of the legacy era: whether each request of a modern client has a session of its own. Else those of a principal share some.
    pub session_per_call: bool,
    pub allow_anonymous: bool,
    /// Names an [`UpstreamCredential`] of the snapshot: a header, or a variable of a process' environment.
    pub credential_id: Option<Arc<str>>,
    /// Until an answer begins.
    pub call_timeout: Duration,
    /// Bytes.
    pub max_body_bytes: usize,
    pub(super) ordinal: u32,
}

/// Where a server listens.
pub struct Endpoint {
    pub url: http::Uri,
    /// At least 1.
    pub weight: u32,
}

/// Who may sign tokens, with which keys.
pub struct Issuer {
    pub issuer: String,
    /// Accepted values of `aud` beside the node's public URL.
    pub audiences: Vec<String>,
    /// By `kid`.
    pub keys: HashMap<String, VerificationKey>,
}

/// A public key and the one algorithm it may be used with.
pub struct VerificationKey {
    pub algorithm: SignatureAlgorithm,
    /// Ed25519: 32 raw bytes; RSA and EC: SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
}

/// An API key as a node knows it.
pub struct ApiKey {
    pub key_id: String,
    pub org_id: String,
    /// SHA-256 of the secret part's text; to be compared in constant time.
    pub secret_sha256: [u8; 32],
    pub subject: String,
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    /// Seconds since the Unix epoch; `None`: never.
    pub expires_at: Option<i64>,
}

/// Keys of one shard, reused while the shard's content stays the same.
pub(super) struct Shard {
    /// The resource's name.
    pub name: String,
    pub hash: ContentHash,
    pub keys: HashMap<String, ApiKey>,
    /// Keys that were left out: whose, and why.
    pub faults: Vec<(Arc<str>, Problem)>,
}

/// Keys that seal session tokens; wiped on drop.
#[derive(Default)]
pub struct SessionKeys {
    pub(super) current: String,
    pub(super) keys: HashMap<String, SessionKey>,
}

/// One key that seals session tokens.
pub struct SessionKey {
    pub key_id: String,
    pub key: Zeroizing<[u8; 32]>,
}

impl Snapshot {
    /// Organisations and nothing else.
    pub(super) fn of(judged: Judged) -> Self {
        Self {
            version: Version::default(),
            digest: Digest::default(),
            created_at_ms: 0,
            issuers: Vec::new(),
            allowed_origins: Vec::new(),
            orgs: judged.orgs,
            slugs: judged.slugs,
            servers: judged.servers,
            shards: BTreeMap::new(),
            session_keys: SessionKeys::default(),
            credentials: HashMap::new(),
            kept_credentials: judged.kept_credentials,
            quarantined: judged.quarantined,
            key_problems: BTreeMap::new(),
        }
    }

    /// The organisations that are not served as this version says, by id: they keep their last good configuration, or are denied.
    #[must_use]
    pub fn quarantined(&self) -> &BTreeMap<Arc<str>, Quarantine> {
        &self.quarantined
    }

    /// What is wrong with this version, beside what would have kept it from compiling at all: one line per problem, each beginning with
    /// `org/<id>: `. Holds no secrets. Every organisation's first line comes before any second one.
    #[must_use]
    pub fn report(&self) -> Vec<String> {
        let quarantined = self.quarantined.iter().map(|(org, quarantine)| (&**org, &quarantine.problems[..]));
        report(quarantined.chain(self.key_problems.iter().map(|(org, problems)| (&**org, &problems[..]))))
    }

    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Commit time of the version, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn created_at_ms(&self) -> i64 {
        self.created_at_ms
    }

    /// A server by its UUID, with its organisation.
    #[must_use]
    pub fn server(&self, id: &str) -> Option<(&Arc<Org>, &Arc<Server>)> {
        self.servers.get(id).map(|(org, server)| (org, server))
    }

    /// A server by its readable path, with its organisation.
    #[must_use]
    pub fn server_by_slug(&self, org_slug: &str, slug: &str) -> Option<(&Arc<Org>, &Arc<Server>)> {
        let org = self.orgs.get(self.slugs.get(org_slug)?)?;
        Some((org, org.servers.get(slug)?))
    }

    /// An organisation by its UUID.
    #[must_use]
    pub fn org(&self, id: &str) -> Option<&Arc<Org>> {
        self.orgs.get(id)
    }

    /// All organisations, in the order of their ids.
    pub fn orgs(&self) -> impl Iterator<Item = &Arc<Org>> {
        self.orgs.values()
    }

    /// An API key by its public part.
    #[must_use]
    pub fn api_key(&self, key_id: &str) -> Option<&ApiKey> {
        self.shards.get(&shard_of(key_id))?.keys.get(key_id)
    }

    /// The gateway's own issuers; their tokens name their organisation.
    #[must_use]
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Origins allowed for every organisation.
    #[must_use]
    pub fn allowed_origins(&self) -> &[String] {
        &self.allowed_origins
    }

    #[must_use]
    pub fn session_keys(&self) -> &SessionKeys {
        &self.session_keys
    }

    #[must_use]
    pub fn upstream_credential(&self, id: &str) -> Option<&UpstreamCredential> {
        // What is kept comes first: it is there only because what the version holds cannot be used.
        self.kept_credentials.get(id).or_else(|| self.credentials.get(id))
    }
}

impl Org {
    /// The organisation's servers, in no particular order.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.values()
    }
}

impl SessionKeys {
    /// The key that seals new tokens; `None` only in a configuration without secrets.
    #[must_use]
    pub fn current(&self) -> Option<&SessionKey> {
        self.keys.get(&self.current)
    }

    /// A key by id, to open an older token.
    #[must_use]
    pub fn get(&self, key_id: &str) -> Option<&SessionKey> {
        self.keys.get(key_id)
    }
}
