//! Documents to a [`Snapshot`], for a node without a control plane: encoded as a control plane would, then compiled as on any node.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::check::{call_timeout_ms, credential_value};
use super::{Fault, Faults, check, credential_name, fault, principal_roles, secret_sha256, transport_of};
use crate::proto::admin::v1::{self as admin, OrganizationDocument, Role};
use crate::proto::config::v1::{
    self as config, ApiKey, CredentialShard, Global, Manifest, OrgBundle, Secrets, SessionKey, UpstreamCredential,
};
use crate::seal::{PoolKey, seal_secrets};
use crate::snapshot::{self, Problem, Snapshot, Staged, Version, check_org, sha256, shard_of};
use crate::type_url;

/// The scope of what a lone node compiles.
const SCOPE: &str = "static";
const POOL_KEY: &str = "static";

/// What a lone node adds to its documents.
#[derive(Clone)]
pub struct Lone {
    /// Seals the tokens of sessions; kept by the node, so that sessions outlive a restart.
    pub session_key: SessionKey,
    /// Which configuration this is; grows.
    pub version: Version,
    /// When it was written, in milliseconds since the Unix epoch.
    pub written_at_ms: i64,
}

/// Compiles the documents, each with the name of its file, of which no two may be of one organisation. The value of every credential must
/// be in them. Ids are made of the names, so that the same documents give the same ids everywhere: UUIDs of version 8 (RFC 9562) from
/// SHA-256. A key of a user has the user's email address, in lower case, as its subject.
pub fn compile(
    documents: &[(String, OrganizationDocument)],
    with: &Lone,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, Faults> {
    let mut faults = Vec::new();
    let mut staged = Parts::default();
    let mut files: BTreeMap<&str, &str> = BTreeMap::new();
    for (file, document) in documents {
        if let Some(other) = files.insert(&document.organization, file) {
            let expected = format!("{:?} is also the organisation of {other}", document.organization);
            faults.push(Fault::new(format!("{file}: organization"), expected));
        }
        let found = staged.add(document).into_iter().map(|fault| Fault { path: joined(file, &fault.path), ..fault });
        faults.extend(found);
    }
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    let whole = |problems: Vec<Problem>| Faults(problems.iter().map(fault).collect());
    let pool_key = PoolKey::from_bytes(&sha256(&[b"mcpgw static pool\0", &with.session_key.key]))
        .map_err(|error| Faults(vec![Fault::new("", error.to_string())]))?;
    let staged = staged.stage(with, &pool_key).map_err(|problem| whole(vec![problem]))?;
    let manifest = Manifest {
        epoch: with.version.epoch,
        version: with.version.version,
        scope: SCOPE.to_owned(),
        digest: staged.digest().as_bytes().to_vec().into(),
        created_at_ms: with.written_at_ms,
        resource_count: u32::try_from(staged.len()).unwrap_or(u32::MAX),
        ..Manifest::default()
    };
    let pool_keys = BTreeMap::from([(POOL_KEY.to_owned(), pool_key)]);
    let snapshot = snapshot::compile(&manifest, &staged, &pool_keys, previous).map_err(whole)?;
    // Nothing is half good here: whoever reads files knows what was good before.
    let told: Vec<Fault> = snapshot.report().into_iter().map(|line| Fault::new("", line)).collect();
    if told.is_empty() { Ok(snapshot) } else { Err(Faults(told)) }
}

fn joined(file: &str, path: &str) -> String {
    if path.is_empty() { file.to_owned() } else { format!("{file}: {path}") }
}

/// What the documents say, as resources say it.
#[derive(Default)]
struct Parts {
    orgs: Vec<OrgBundle>,
    keys: Vec<ApiKey>,
    credentials: Vec<UpstreamCredential>,
}

impl Parts {
    /// Adds a document; what is wrong with it.
    fn add(&mut self, document: &OrganizationDocument) -> Vec<Fault> {
        let mut faults = check(document);
        let slug = document.organization.as_str();
        let org_id = id(&["organization", slug]);
        let mut servers: Vec<_> = document.servers.iter().map(|(name, given)| server(slug, name, given)).collect();
        servers.sort_by(|a, b| a.id.cmp(&b.id));
        let mut policies: Vec<_> = document.policies.iter().map(|(name, given)| policy(slug, name, given)).collect();
        policies.sort_by(|a, b| a.id.cmp(&b.id));
        let mut limits: Vec<_> = document.limits.iter().map(|(name, given)| limit(slug, name, given)).collect();
        limits.sort_by(|a, b| a.id.cmp(&b.id));
        let organization = config::Organization {
            slug: slug.to_owned(),
            display_name: document.display_name.clone(),
            issuers: Vec::new(),
            allowed_origins: document.allowed_origins.clone(),
            audit_full: document.audit_full,
            audit_sync: document.audit_sync,
            capture: document.capture.clone(),
        };
        let bundle = OrgBundle {
            org_id: org_id.clone(),
            chunk_count: 1,
            chunk: 0,
            organization: Some(organization),
            servers,
            policies,
            limits,
        };
        faults.extend(check_org(std::slice::from_ref(&bundle)).iter().map(fault));
        self.orgs.push(bundle);
        for (name, given) in &document.servers {
            if let Some(credential) = &given.upstream_credential {
                faults.extend(self.credential(&id(&["server", slug, name]), (name, given), credential));
            }
        }
        for (key_id, given) in &document.api_keys {
            match key(&org_id, key_id, given, document) {
                Ok(key) => self.keys.push(key),
                Err((field, expected)) => {
                    let path = format!("api_keys.{key_id}.{field}");
                    if faults.iter().all(|told| told.path != path) {
                        faults.push(Fault::new(path, expected));
                    }
                }
            }
        }
        faults
    }

    fn credential(
        &mut self,
        server_id: &str,
        (name, server): (&str, &admin::Server),
        given: &admin::UpstreamCredential,
    ) -> Option<Fault> {
        let at = format!("servers.{name}.upstream_credential.value");
        if given.value.is_empty() {
            return Some(Fault::new(at, "expected a value, or valueEnv or valueFile: nothing is stored on a lone node"));
        }
        if let Err(expected) = credential_value(server, &given.header, &given.value) {
            return Some(Fault::new(at, expected));
        }
        let header = credential_name(server, &given.header).ok()?; // told by `check`
        self.credentials.push(UpstreamCredential { id: server_id.to_owned(), header, value: given.value.clone() });
        None
    }

    fn stage(mut self, with: &Lone, pool_key: &PoolKey) -> Result<Staged, Problem> {
        let mut staged = Staged::new();
        let global = Global { pool: SCOPE.to_owned(), ..Global::default() };
        staged.put(type_url::GLOBAL, &format!("global/{SCOPE}"), global.encode_to_vec().into())?;
        for bundle in &self.orgs {
            staged.put(type_url::ORG_BUNDLE, &format!("org/{}/0", bundle.org_id), bundle.encode_to_vec().into())?;
        }
        self.keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        let mut shards: BTreeMap<u32, Vec<ApiKey>> = BTreeMap::new();
        for key in self.keys {
            shards.entry(shard_of(&key.key_id).into()).or_default().push(key);
        }
        for (shard, keys) in shards {
            let body = CredentialShard { shard, keys }.encode_to_vec();
            staged.put(type_url::CREDENTIAL_SHARD, &format!("credentials/{SCOPE}/{shard}"), body.into())?;
        }
        self.credentials.sort_by(|a, b| a.id.cmp(&b.id));
        let secrets = Secrets { session_keys: vec![with.session_key.clone()], credentials: self.credentials };
        let name = format!("secrets/{SCOPE}");
        let envelope = seal_secrets(POOL_KEY, pool_key, &name, &secrets);
        staged.put(type_url::SECRET_ENVELOPE, &name, envelope.encode_to_vec().into())?;
        Ok(staged)
    }
}

fn server(org: &str, slug: &str, given: &admin::Server) -> config::Server {
    let id = id(&["server", org, slug]);
    config::Server {
        slug: slug.to_owned(),
        display_name: given.display_name.clone(),
        transport: if given.transport == 0 { transport_of(given).into() } else { given.transport },
        era: given.era,
        endpoints: given.endpoints.clone(),
        allow_anonymous: given.allow_anonymous,
        disabled: given.disabled,
        credential_id: given.upstream_credential.as_ref().map(|_| id.clone()).unwrap_or_default(),
        call_timeout_ms: call_timeout_ms(given).unwrap_or_default(), // told by `check`
        max_body_bytes: given.max_body_bytes,
        stdio: given.stdio.clone().map(sorted_variables),
        client_transports: sorted_transports(&given.client_transports),
        legacy_sessions: given.legacy_sessions,
        id,
    }
}

/// In the order of a bundle; whoever writes a document may choose another.
fn sorted_variables(mut given: config::Stdio) -> config::Stdio {
    given.environment.sort_by(|a, b| a.name.cmp(&b.name));
    given
}

fn sorted_transports(given: &[config::ClientTransportSettings]) -> Vec<config::ClientTransportSettings> {
    let mut sorted = given.to_vec();
    sorted.sort_by_key(|settings| settings.transport);
    sorted
}

fn policy(org: &str, name: &str, given: &admin::Policy) -> config::Policy {
    config::Policy {
        id: id(&["policy", org, name]),
        name: name.to_owned(),
        effect: given.effect,
        mode: given.mode,
        subjects: Some(subjects(given.subjects.as_ref())),
        servers: given.servers.clone(),
        r#match: given.r#match.clone(),
        when: given.when.clone(),
    }
}

fn limit(org: &str, name: &str, given: &admin::RateLimit) -> config::RateLimit {
    config::RateLimit {
        id: id(&["limit", org, name]),
        name: name.to_owned(),
        per: given.per.clone(),
        subjects: Some(subjects(given.subjects.as_ref())),
        servers: given.servers.clone(),
        r#match: given.r#match.clone(),
        windows: given.windows.clone(),
        max_concurrent: given.max_concurrent,
        costs: given.costs.clone(),
        when_away: given.when_away,
    }
}

/// Users as a lone node knows them: by email address, in lower case.
fn subjects(given: Option<&config::Subjects>) -> config::Subjects {
    let mut subjects = given.cloned().unwrap_or_default();
    for user in subjects.users.iter_mut().filter(|user| user.contains('@')) {
        *user = user.to_lowercase();
    }
    subjects
}

/// The key as nodes know it, or which field is wrong and what is expected there.
fn key(
    org_id: &str,
    key_id: &str,
    given: &admin::DocumentKey,
    document: &OrganizationDocument,
) -> Result<ApiKey, (&'static str, &'static str)> {
    let Some(sha256) = secret_sha256(&given.secret_sha256) else {
        return Err(("secret_sha256", "expected the SHA-256 of the key's secret part: nothing is stored on a lone node"));
    };
    let (subject, roles, groups) = if given.user.is_empty() {
        (format!("key:{key_id}"), sorted(&given.policy_roles), sorted(&given.groups))
    } else {
        let member = document.members.iter().find(|(email, _)| email.eq_ignore_ascii_case(&given.user));
        let Some((email, member)) = member else {
            return Err(("user", "expected one of the document's members: nobody else is known to a lone node"));
        };
        let role = Role::try_from(member.role).unwrap_or_default(); // told by `check`
        (email.to_lowercase(), principal_roles(role, &member.policy_roles), sorted(&member.groups))
    };
    Ok(ApiKey {
        key_id: key_id.to_owned(),
        org_id: org_id.to_owned(),
        secret_sha256: sha256.to_vec().into(),
        subject,
        roles,
        groups,
        expires_at: given.expire_time.as_ref().map_or(0, |at| at.seconds.max(1)),
    })
}

fn sorted(names: &[String]) -> Vec<String> {
    names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// A UUID of version 8 (RFC 9562) made of names.
fn id(names: &[&str]) -> String {
    let hash = sha256(&[b"mcpgw static\0", names.join("\0").as_bytes()]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
