//! The nouns of the control plane and what is true of them. No I/O: no database, no network, no clock.
//!
//! [`bundle`] turns an organisation's rows into what nodes receive. Called by `store` (rows in and out), `api` and `publish`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub mod bundle;
pub mod diff;
pub mod document;
pub mod found;
pub mod ids;
pub mod labels;
pub mod latency;
pub mod limit;
pub mod rollout;
pub mod rules;
pub mod usage;

pub use labels::Labels;
pub use limit::RateLimit;
pub use mcp_gateway::document::{principal_roles, role_name};
pub use mcp_gateway::proto::{admin::v1::Role, config::v1 as config};

/// One thing wrong with a request: which field, what is expected of it. The texts are shown to callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field in the request, such as `server.endpoints[0].url`.
    pub field: String,
    /// What is expected, and what was found where that helps.
    pub expected: String,
}

impl Violation {
    pub fn new(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into() }
    }
}

/// What every stored noun carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Grows with every change of the row; what etags are made of.
    pub revision: i64,
    /// The configuration version of the last change; 0: none.
    pub config_version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Organization {
    pub id: Uuid,
    pub slug: String,
    pub display_name: String,
    pub allowed_origins: Vec<String>,
    /// `config::AuditFullAction`.
    pub audit_full: i32,
    pub pool: String,
    pub request_log_retention_days: i32,
    /// `config::AuditSync`.
    pub audit_sync: i32,
    pub capture: Capture,
    pub audit_log_retention_days: i32,
    pub meta: Meta,
}

/// What of calls an organisation keeps beside their records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capture {
    pub arguments: bool,
    pub results: bool,
    /// 0: as many as nodes keep by default.
    pub max_bytes: i32,
    pub redact: Vec<String>,
    /// 0: as long as payloads are kept by default.
    pub retention_days: i32,
}

/// A person or service account.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub id: Uuid,
    pub email: String,
    pub display_name: String,
    pub disabled: bool,
    pub platform_admin: bool,
    pub meta: Meta,
}

/// A user's place in an organisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    pub org_id: Uuid,
    pub user_id: Uuid,
    pub email: String,
    pub role: Role,
    pub policy_roles: Vec<String>,
    pub groups: Vec<String>,
    pub meta: Meta,
}

/// A credential of a program. The secret is not here: only its hash is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// The public part.
    pub id: String,
    pub uid: Uuid,
    pub org_id: Uuid,
    pub user_id: Option<Uuid>,
    pub display_name: String,
    /// SHA-256 of the secret part's text.
    pub secret_sha256: Vec<u8>,
    pub policy_roles: Vec<String>,
    pub groups: Vec<String>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub meta: Meta,
}

/// A registered MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub id: Uuid,
    pub org_id: Uuid,
    pub slug: String,
    pub display_name: String,
    /// `config::Transport`.
    pub transport: i32,
    /// `config::Era`.
    pub era: i32,
    pub endpoints: Vec<Endpoint>,
    pub allow_anonymous: bool,
    pub disabled: bool,
    pub credential: Option<Credential>,
    /// 0: 60,000.
    pub call_timeout_ms: i32,
    /// 0: 4 MiB.
    pub max_body_bytes: i32,
    /// Of a process, which has no endpoints.
    pub stdio: Option<Stdio>,
    /// Sorted by transport, each at most once.
    pub client_transports: Vec<ClientTransportSettings>,
    /// `config::LegacySessions`.
    pub legacy_sessions: i32,
    pub meta: Meta,
}

/// What runs on the nodes. The form of `mcp_servers.stdio`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stdio {
    pub command: Vec<String>,
    /// Sorted by name, each once.
    pub environment: Vec<EnvironmentVariable>,
    pub directory: String,
    /// `config::StdioScope`.
    pub scope: i32,
}

/// A variable of a process. In clear text: what is secret is a [`Credential`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentVariable {
    pub name: String,
    pub value: String,
}

/// What applies to clients of a server that come over one transport. The form of an element of `mcp_servers.client_transports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientTransportSettings {
    /// `config::ClientTransport`.
    pub transport: i32,
    pub disabled: bool,
    /// 0: the node's default, as in the rest.
    pub session_idle_seconds: u32,
    pub max_connections: u32,
    pub keep_alive_seconds: u32,
}

/// A header that the gateway presents to a server, or a variable of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub header: String,
    /// The value, sealed by `keys::Custody::seal` for [`bundle::credential_context`] of the server's id.
    pub wrapped: Vec<u8>,
    /// Since when the value is this one; the database says so. Sealing it again under another key is no change.
    pub set_at: Option<DateTime<Utc>>,
}

/// Where a server listens. The form of `mcp_servers.endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub url: String,
    #[serde(default)]
    pub weight: u32,
}

/// A rule of who may use what.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub id: Uuid,
    pub org_id: Uuid,
    pub name: String,
    pub display_name: String,
    /// `config::Effect`.
    pub effect: i32,
    /// `config::Mode`.
    pub mode: i32,
    pub subjects: Subjects,
    pub servers: Vec<String>,
    pub matches: Match,
    pub when: String,
    pub meta: Meta,
}

/// Whom a rule is about. The form of `policies.subjects`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subjects {
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    pub users: Vec<String>,
    pub api_keys: Vec<String>,
    pub anonymous: bool,
}

/// What a rule is about. The form of `policies.match`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Match {
    pub tools: Vec<String>,
    pub prompts: Vec<String>,
    pub resources: Vec<String>,
    pub methods: Vec<String>,
}

/// The rule of slugs, for messages.
pub const SLUG_RULE: &str = "expected 1 to 63 characters of a-z, 0-9 and hyphen, starting with a letter";

/// Whether `text` may be part of a resource name and a path.
pub fn is_slug(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.as_bytes()[0].is_ascii_lowercase() && text.bytes().all(allowed)
}

/// Whether `text` is a DNS name in lower case (RFC 1123).
pub fn is_dns_name(text: &str) -> bool {
    let label = |l: &str| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&l.len()) && l.bytes().all(allowed) && !l.starts_with('-') && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
