//! Every way in which a configuration can be wrong, by name.

/// One defect: which resource, which field, what was expected. The texts are shown to operators and travel in NACKs; they never hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{resource}: type {type_url} is not part of a snapshot")]
    UnknownType { resource: String, type_url: String },
    #[error("{resource}: the content is not a valid {type_url}: {reason}")]
    Undecodable { resource: String, type_url: String, reason: String },
    #[error("{resource}: the content belongs to the name {expected}")]
    NameMismatch { resource: String, expected: String },
    #[error("{scope}: exactly one Global resource is expected, found {found}")]
    GlobalCount { scope: String, found: usize },
    #[error("{resource}: pool: expected the manifest's scope {expected:?}, found {found:?}")]
    WrongPool { resource: String, expected: String, found: String },
    #[error("{org}: chunks: expected each of 0 to {count} exactly once, found {found:?}")]
    ChunksIncomplete { org: String, count: u32, found: Vec<u32> },
    #[error("{org}: the control plane cannot read this organisation's rows; its log says why")]
    Unreadable { org: String },
    #[error("{org}: organization: expected in chunk 0 and only there")]
    OrganizationMisplaced { org: String },
    // Organisations are named as in resource names, so that whoever shows a problem can say who they are, or not.
    #[error("org/{org}: slug: {slug:?} is also the slug of org/{other}")]
    OrgSlugTaken { org: String, slug: String, other: String },
    #[error("org/{org}: server id: {server:?} is also the id of a server of org/{other}")]
    ServerIdTaken { org: String, server: String, other: String },
    #[error("{resource}: {field}: {value:?} is not a lower-case UUID")]
    InvalidId { resource: String, field: &'static str, value: String },
    #[error("{resource}: {field}: {value:?} is not 1 to 63 characters of a-z, 0-9 and hyphen that start with a letter")]
    InvalidSlug { resource: String, field: &'static str, value: String },
    #[error("{resource}: {field}: {value} is not a value this version knows")]
    UnknownEnum { resource: String, field: &'static str, value: i32 },
    #[error("{resource}: {field}: {value:?} is used twice")]
    Duplicate { resource: String, field: &'static str, value: String },
    #[error("server {server}: endpoints: at least one is expected")]
    NoEndpoint { server: String },
    #[error("server {server}: endpoints[{index}].url: {reason}")]
    InvalidUrl { server: String, index: usize, reason: String },
    #[error("server {server}: {field}: {expected}")]
    InvalidServer { server: String, field: String, expected: String },
    #[error("server {server}: max_body_bytes: {found} is more than the most allowed, 67108864")]
    BodyLimit { server: String, found: u32 },
    #[error("server {server}: credential_id: {credential:?} is not in this snapshot's secrets")]
    DanglingCredential { server: String, credential: String },
    #[error("policy {policy}: servers[{index}]: server {server:?} is not in this organisation")]
    DanglingServer { policy: String, index: usize, server: String },
    #[error("policy {policy}: servers: at least one slug, or \"*\", is expected")]
    NoServers { policy: String },
    #[error("policy {policy}: subjects: at least one role, group, user, API key or anonymous is expected")]
    NoSubjects { policy: String },
    #[error("policy {policy}: match: at least one pattern is expected")]
    EmptyMatch { policy: String },
    #[error("policy {policy}: {field}[{index}]: {reason}")]
    InvalidPattern { policy: String, field: &'static str, index: usize, reason: &'static str },
    #[error("policy {policy}: match.methods: only deny rules may name methods")]
    MethodsOnAllow { policy: String },
    #[error("policy {policy}: when: conditions are not served by this version; expected an empty text")]
    ConditionUnsupported { policy: String },
    #[error("limit {limit}: servers[{index}]: server {server:?} is not in this organisation")]
    LimitedServer { limit: String, index: usize, server: String },
    #[error("limit {limit}: {field}: {expected}")]
    InvalidLimit { limit: String, field: String, expected: &'static str },
    #[error("{resource}: issuer {issuer:?}: key {key_id:?}: {expected}")]
    InvalidVerificationKey { resource: String, issuer: String, key_id: String, expected: &'static str },
    #[error("{resource}: allowed_origins[{index}]: {value:?} is not a serialised origin such as https://app.example.com")]
    InvalidOrigin { resource: String, index: usize, value: String },
    #[error("{resource}: capture.{field}: {expected}")]
    InvalidCapture { resource: String, field: String, expected: &'static str },
    #[error("{resource}: key {key_id}: {expected}")]
    InvalidApiKey { resource: String, key_id: String, expected: &'static str },
    #[error("{resource}: key {key_id}: organisation {org} is not in this snapshot")]
    DanglingOrg { resource: String, key_id: String, org: String },
    #[error("{resource}: pool key {key_id:?} is not held by this node; renewing the node's credentials fetches it")]
    PoolKeyUnknown { resource: String, key_id: String },
    #[error("{resource}: the secrets cannot be opened with pool key {key_id:?}")]
    SecretsUnreadable { resource: String, key_id: String },
    #[error("{resource}: session key {key_id:?}: expected 32 bytes")]
    InvalidSessionKey { resource: String, key_id: String },
    #[error("{resource}: session_keys: exactly one current key is expected, found {found}")]
    CurrentSessionKey { resource: String, found: usize },
    #[error("{resource}: credential {credential:?}: {expected}")]
    InvalidCredential { resource: String, credential: String, expected: &'static str },
}
