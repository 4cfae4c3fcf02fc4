//! Staged resources to a [`Snapshot`]: decode, validate, index. Reuses what the previous snapshot already compiled.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use prost::{Message, Name};
use zeroize::Zeroizing;

use super::model::{ApiKey, Endpoint, Issuer, Org, Server, SessionKey, SessionKeys, Shard, Snapshot, VerificationKey};
use super::policy::Index;
use super::validate::{check_issuers, check_org, check_origins, parse_url, shard_of};
use super::{ContentHash, Digest, Problem, Staged, Version, digest};
use crate::proto::config::v1::{self as wire, CredentialShard, Global, Manifest, OrgBundle, SecretEnvelope, Secrets};
use crate::seal::{PoolKey, open_secrets};
use crate::type_url;

const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_MAX_BODY_BYTES: usize = 4 << 20;

/// Compiles what was staged under a manifest whose digest and signature the caller has checked.
/// All problems are returned, not only the first; nothing of `previous` is changed.
pub fn compile(
    manifest: &Manifest,
    staged: &Staged,
    pool_keys: &BTreeMap<String, PoolKey>,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, Vec<Problem>> {
    let mut problems = Vec::new();
    let global = read_global(&manifest.scope, staged, &mut problems);
    let secrets = read_secrets(staged, pool_keys, &mut problems);
    let orgs = read_orgs(staged, previous, &mut problems);
    let shards = read_shards(staged, previous, &orgs, &mut problems);
    let slugs = index_slugs(&orgs, &mut problems);
    let (session_keys, credentials) = index_secrets(secrets, &mut problems);
    let servers = index_servers(&orgs, &credentials, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Snapshot {
        version: Version { epoch: manifest.epoch, version: manifest.version },
        digest: staged.digest(),
        created_at_ms: manifest.created_at_ms,
        issuers: global.issuers.iter().map(issuer).collect(),
        allowed_origins: global.allowed_origins,
        orgs,
        slugs,
        servers,
        shards,
        session_keys,
        credentials,
    })
}

fn decode<M: Message + Name + Default>(resource: &str, body: &[u8], problems: &mut Vec<Problem>) -> Option<M> {
    M::decode(body)
        .map_err(|error| {
            problems.push(Problem::Undecodable {
                resource: resource.to_owned(),
                type_url: M::full_name(),
                reason: error.to_string(),
            });
        })
        .ok()
}

fn read_global(scope: &str, staged: &Staged, problems: &mut Vec<Problem>) -> Global {
    let found: Vec<_> = staged.of_type(type_url::GLOBAL).collect();
    let [(name, held)] = found.as_slice() else {
        problems.push(Problem::GlobalCount { scope: scope.to_owned(), found: found.len() });
        return Global::default();
    };
    let global: Global = decode(name, &held.body, problems).unwrap_or_default();
    if global.pool != scope {
        let (expected, found) = (scope.to_owned(), global.pool.clone());
        problems.push(Problem::WrongPool { resource: (*name).to_owned(), expected, found });
    }
    check_origins(name, &global.allowed_origins, problems);
    check_issuers(name, &global.issuers, problems);
    global
}

fn read_secrets(staged: &Staged, pool_keys: &BTreeMap<String, PoolKey>, problems: &mut Vec<Problem>) -> Vec<(String, Secrets)> {
    let mut opened = Vec::new();
    for (name, held) in staged.of_type(type_url::SECRET_ENVELOPE) {
        let Some(envelope) = decode::<SecretEnvelope>(name, &held.body, problems) else {
            continue;
        };
        let (resource, key_id) = (name.to_owned(), envelope.pool_key_id.clone());
        match pool_keys.get(&key_id).map(|key| open_secrets(key, name, &envelope)) {
            None => problems.push(Problem::PoolKeyUnknown { resource, key_id }),
            Some(Err(_)) => problems.push(Problem::SecretsUnreadable { resource, key_id }),
            Some(Ok(secrets)) => opened.push((resource, secrets)),
        }
    }
    opened
}

/// Bundles of one organisation, still encoded.
struct Chunks<'s> {
    bundles: Vec<(&'s str, ContentHash, &'s [u8])>,
}

fn read_orgs(staged: &Staged, previous: Option<&Snapshot>, problems: &mut Vec<Problem>) -> BTreeMap<Arc<str>, Arc<Org>> {
    let mut by_org: BTreeMap<&str, Chunks<'_>> = BTreeMap::new();
    for (name, held) in staged.of_type(type_url::ORG_BUNDLE) {
        let org = name.strip_prefix("org/").and_then(|rest| rest.split_once('/')).map_or(name, |(org, _)| org);
        by_org.entry(org).or_insert_with(|| Chunks { bundles: Vec::new() }).bundles.push((name, held.hash, &held.body));
    }
    let mut orgs = BTreeMap::new();
    for (id, chunks) in by_org {
        let effective = digest(chunks.bundles.iter().map(|(name, hash, _)| (type_url::ORG_BUNDLE, *name, *hash)));
        let unchanged = previous.and_then(|snapshot| snapshot.org(id)).filter(|org| org.digest == effective);
        let org = unchanged.cloned().or_else(|| read_org(effective, &chunks, problems));
        orgs.extend(org.map(|org| (org.id.clone(), org)));
    }
    orgs
}

fn read_org(effective: Digest, chunks: &Chunks<'_>, problems: &mut Vec<Problem>) -> Option<Arc<Org>> {
    let before = problems.len();
    let mut bundles: Vec<OrgBundle> = Vec::with_capacity(chunks.bundles.len());
    for (name, _, body) in &chunks.bundles {
        let bundle: OrgBundle = decode(name, body, problems)?;
        let expected = format!("org/{}/{}", bundle.org_id, bundle.chunk);
        if expected != *name {
            problems.push(Problem::NameMismatch { resource: (*name).to_owned(), expected });
        }
        bundles.push(bundle);
    }
    problems.extend(check_org(&bundles));
    if problems.len() > before {
        return None;
    }
    bundles.sort_unstable_by_key(|bundle| bundle.chunk);
    Some(Arc::new(build_org(effective, bundles)))
}

/// From bundles that [`check_org`] found no fault with.
fn build_org(effective: Digest, bundles: Vec<OrgBundle>) -> Org {
    let id: Arc<str> = bundles.first().map_or("", |bundle| bundle.org_id.as_str()).into();
    let settings = bundles.iter().find_map(|bundle| bundle.organization.clone()).unwrap_or_default();
    let servers: HashMap<Arc<str>, Arc<Server>> = bundles
        .iter()
        .flat_map(|bundle| &bundle.servers)
        .filter(|server| !server.disabled)
        .zip(0..)
        .map(|(server, ordinal)| build_server(&id, server, ordinal))
        .map(|server| (server.slug.clone(), Arc::new(server)))
        .collect();
    let index = Index::build(bundles.iter().flat_map(|bundle| &bundle.policies), &servers);
    Org {
        id,
        slug: settings.slug.as_str().into(),
        digest: effective,
        issuers: settings.issuers.iter().map(issuer).collect(),
        audit_full: match settings.audit_full() {
            wire::AuditFullAction::Allow => wire::AuditFullAction::Allow,
            wire::AuditFullAction::Block | wire::AuditFullAction::Unspecified => wire::AuditFullAction::Block,
        },
        allowed_origins: settings.allowed_origins,
        servers,
        index,
    }
}

fn build_server(org_id: &Arc<str>, server: &wire::Server, ordinal: u32) -> Server {
    let endpoint = |endpoint: &wire::Endpoint| {
        let url = parse_url(&endpoint.url).expect("check_org parsed this URL");
        Endpoint { url, weight: endpoint.weight.max(1) }
    };
    Server {
        id: server.id.as_str().into(),
        slug: server.slug.as_str().into(),
        org_id: org_id.clone(),
        transport: server.transport(),
        era: server.era(),
        endpoints: server.endpoints.iter().map(endpoint).collect(),
        allow_anonymous: server.allow_anonymous,
        credential_id: (!server.credential_id.is_empty()).then(|| server.credential_id.as_str().into()),
        call_timeout: match server.call_timeout_ms {
            0 => DEFAULT_CALL_TIMEOUT,
            millis => Duration::from_millis(millis.into()),
        },
        max_body_bytes: match server.max_body_bytes {
            0 => DEFAULT_MAX_BODY_BYTES,
            bytes => bytes as usize,
        },
        ordinal,
    }
}

fn issuer(wire: &wire::TokenIssuer) -> Issuer {
    let key = |key: &wire::VerificationKey| {
        let (algorithm, public_key) = (key.algorithm(), key.public_key.to_vec());
        (key.key_id.clone(), VerificationKey { algorithm, public_key })
    };
    Issuer { issuer: wire.issuer.clone(), audiences: wire.audiences.clone(), keys: wire.keys.iter().map(key).collect() }
}

fn read_shards(
    staged: &Staged,
    previous: Option<&Snapshot>,
    orgs: &BTreeMap<Arc<str>, Arc<Org>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<u8, Arc<Shard>> {
    let mut shards = BTreeMap::new();
    for (name, held) in staged.of_type(type_url::CREDENTIAL_SHARD) {
        let known = previous.and_then(|snapshot| snapshot.shards.values().find(|shard| shard.hash == held.hash));
        let shard = match known {
            Some(shard) => shard.clone(),
            None => match decode::<CredentialShard>(name, &held.body, problems) {
                Some(shard) => Arc::new(build_shard(name, held.hash, shard, problems)),
                None => continue,
            },
        };
        for key in shard.keys.values().filter(|key| !orgs.contains_key(key.org_id.as_str())) {
            let (key_id, org) = (key.key_id.clone(), key.org_id.clone());
            problems.push(Problem::DanglingOrg { resource: name.to_owned(), key_id, org });
        }
        let number = name.rsplit('/').next().and_then(|number| number.parse().ok());
        match number {
            Some(number) => drop(shards.insert(number, shard)),
            None => problems
                .push(Problem::NameMismatch { resource: name.to_owned(), expected: "credentials/<pool>/<0 to 255>".to_owned() }),
        }
    }
    shards
}

fn build_shard(name: &str, hash: ContentHash, shard: CredentialShard, problems: &mut Vec<Problem>) -> Shard {
    let mut keys = HashMap::with_capacity(shard.keys.len());
    if !name.ends_with(&format!("/{}", shard.shard)) {
        let expected = format!("credentials/<pool>/{}", shard.shard);
        problems.push(Problem::NameMismatch { resource: name.to_owned(), expected });
    }
    for key in shard.keys {
        let secret_sha256 = <[u8; 32]>::try_from(key.secret_sha256.as_ref());
        let expected = match &secret_sha256 {
            Err(_) => Some("secret_sha256: 32 bytes are expected"),
            Ok(_) if u32::from(shard_of(&key.key_id)) != shard.shard => Some("key_id: it belongs to another shard"),
            Ok(_) if key.subject.is_empty() => Some("subject: a subject is expected"),
            Ok(_) => None,
        };
        if let Some(expected) = expected {
            problems.push(Problem::InvalidApiKey { resource: name.to_owned(), key_id: key.key_id, expected });
            continue;
        }
        let compiled = ApiKey {
            key_id: key.key_id.clone(),
            org_id: key.org_id,
            secret_sha256: secret_sha256.unwrap_or_default(),
            subject: key.subject,
            roles: key.roles,
            groups: key.groups,
            expires_at: (key.expires_at != 0).then_some(key.expires_at),
        };
        if keys.insert(key.key_id.clone(), compiled).is_some() {
            problems.push(Problem::Duplicate { resource: name.to_owned(), field: "key_id", value: key.key_id });
        }
    }
    Shard { hash, keys }
}

fn index_slugs(orgs: &BTreeMap<Arc<str>, Arc<Org>>, problems: &mut Vec<Problem>) -> HashMap<Arc<str>, Arc<str>> {
    let mut slugs: HashMap<Arc<str>, Arc<str>> = HashMap::with_capacity(orgs.len());
    for org in orgs.values() {
        if let Some(other) = slugs.insert(org.slug.clone(), org.id.clone()) {
            problems.push(Problem::OrgSlugTaken {
                org: org.id.to_string(),
                slug: org.slug.to_string(),
                other: other.to_string(),
            });
        }
    }
    slugs
}

type Credentials = HashMap<String, wire::UpstreamCredential>;

fn index_secrets(opened: Vec<(String, Secrets)>, problems: &mut Vec<Problem>) -> (SessionKeys, Credentials) {
    let mut session_keys = SessionKeys::default();
    let mut credentials = HashMap::new();
    for (resource, secrets) in opened {
        let current = secrets.session_keys.iter().filter(|key| key.current).count();
        if current != 1 {
            problems.push(Problem::CurrentSessionKey { resource: resource.clone(), found: current });
        }
        for key in secrets.session_keys {
            let Ok(bytes) = <[u8; 32]>::try_from(key.key.as_ref()) else {
                problems.push(Problem::InvalidSessionKey { resource: resource.clone(), key_id: key.key_id });
                continue;
            };
            if key.current {
                session_keys.current.clone_from(&key.key_id);
            }
            let sealed = SessionKey { key_id: key.key_id.clone(), key: Zeroizing::new(bytes) };
            session_keys.keys.insert(key.key_id, sealed);
        }
        for credential in secrets.credentials {
            let expected = match (http::HeaderName::try_from(&credential.header), http::HeaderValue::try_from(&credential.value))
            {
                (Err(_), _) => "header: a header name is expected",
                (_, Err(_)) => "value: a header value is expected",
                (Ok(_), Ok(_)) => {
                    credentials.insert(credential.id.clone(), credential);
                    continue;
                }
            };
            problems.push(Problem::InvalidCredential { resource: resource.clone(), credential: credential.id, expected });
        }
    }
    (session_keys, credentials)
}

type Servers = HashMap<Arc<str>, (Arc<Org>, Arc<Server>)>;

fn index_servers(orgs: &BTreeMap<Arc<str>, Arc<Org>>, credentials: &Credentials, problems: &mut Vec<Problem>) -> Servers {
    let mut servers = Servers::with_capacity(orgs.values().map(|org| org.servers.len()).sum());
    for org in orgs.values() {
        for server in org.servers.values() {
            if let Some(missing) = server.credential_id.as_deref().filter(|id| !credentials.contains_key(*id)) {
                let (server, credential) = (server.slug.to_string(), missing.to_owned());
                problems.push(Problem::DanglingCredential { server, credential });
            }
            if servers.insert(server.id.clone(), (org.clone(), server.clone())).is_some() {
                let resource = format!("org/{}", org.id);
                problems.push(Problem::Duplicate { resource, field: "server id", value: server.id.to_string() });
            }
        }
    }
    servers
}
