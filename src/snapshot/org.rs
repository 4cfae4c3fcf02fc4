//! One organisation: its bundles to an [`Org`], or what is wrong with them. Knows nothing of other organisations.
//! Called by [`super::compile`] for each organisation that changed, and for what an organisation in quarantine falls back to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::capture::Capture;
use super::client::ClientTransports;
use super::compile::{decode, issuer};
use super::limit;
use super::model::{Endpoint, Org, Server};
use super::policy::Index;
use super::server::parse_endpoint;
use super::staged::Held;
use super::stdio::Stdio;
use super::validate::check_org;
use super::{Digest, Problem, Snapshot, Staged, digest};
use crate::proto::config::v1::{self as wire, OrgBundle};
use crate::type_url;

const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_MAX_BODY_BYTES: usize = 4 << 20;

/// What an organisation's bundles come to by themselves.
pub(super) struct Read {
    pub id: Arc<str>,
    pub found: Result<Arc<Org>, Fault>,
}

/// Why an organisation cannot be served as its bundles say.
pub(super) struct Fault {
    /// At least one.
    pub problems: Vec<Problem>,
    pub stated: Stated,
}

/// What bundles say is theirs, as far as they can be read.
pub(super) enum Stated {
    /// Anything may be.
    Unreadable,
    Names {
        slug: String,
        server_ids: HashSet<String>,
    },
}

/// Everything staged, by organisation. What `previous` already compiled is used again.
pub(super) fn read_orgs(staged: &Staged, previous: Option<&Snapshot>) -> Vec<Read> {
    let mut by_org: BTreeMap<&str, Vec<(&str, &Held)>> = BTreeMap::new();
    for (name, held) in staged.of_type(type_url::ORG_BUNDLE) {
        let org = name.strip_prefix("org/").and_then(|rest| rest.split_once('/')).map_or(name, |(org, _)| org);
        by_org.entry(org).or_default().push((name, held));
    }
    by_org.into_iter().map(|(id, bundles)| read_org(id, &bundles, previous)).collect()
}

/// One organisation from its bundles, as named and held.
pub(super) fn read_org(id: &str, bundles: &[(&str, &Held)], previous: Option<&Snapshot>) -> Read {
    let effective = digest(bundles.iter().map(|(name, held)| (type_url::ORG_BUNDLE, *name, held.hash)));
    if let Some(unchanged) = previous.and_then(|snapshot| snapshot.org(id)).filter(|org| org.digest == effective) {
        return Read { id: unchanged.id.clone(), found: Ok(unchanged.clone()) };
    }
    let found = open(bundles).map(|opened| {
        let kept = bundles.iter().map(|(name, held)| ((*name).to_owned(), (*held).clone())).collect();
        Arc::new(build_org(id.into(), effective, kept, &opened))
    });
    Read { id: id.into(), found }
}

fn open(bundles: &[(&str, &Held)]) -> Result<Vec<OrgBundle>, Fault> {
    let mut problems = Vec::new();
    let mut opened: Vec<OrgBundle> = Vec::with_capacity(bundles.len());
    for (name, held) in bundles {
        let Some(bundle) = decode::<OrgBundle>(name, &held.body, &mut problems) else { continue };
        let expected = format!("org/{}/{}", bundle.org_id, bundle.chunk);
        if expected != *name {
            problems.push(Problem::NameMismatch { resource: (*name).to_owned(), expected });
        }
        opened.push(bundle);
    }
    if !problems.is_empty() {
        return Err(Fault { problems, stated: Stated::Unreadable });
    }
    problems = check_org(&opened);
    if !problems.is_empty() {
        let stated = Stated::by(&opened, &problems);
        return Err(Fault { problems, stated });
    }
    opened.sort_unstable_by_key(|bundle| bundle.chunk);
    Ok(opened)
}

impl Stated {
    fn by(bundles: &[OrgBundle], problems: &[Problem]) -> Self {
        let in_part = |problem: &Problem| matches!(problem, Problem::ChunksIncomplete { .. } | Problem::Unreadable { .. });
        let whole = !problems.iter().any(in_part);
        let settings = bundles.iter().find_map(|bundle| bundle.organization.as_ref()).filter(|_| whole);
        let Some(settings) = settings else { return Self::Unreadable };
        let servers = bundles.iter().flat_map(|bundle| &bundle.servers);
        Self::Names { slug: settings.slug.clone(), server_ids: servers.map(|server| server.id.clone()).collect() }
    }

    /// What an organisation serves that compiled, but is not taken as it is.
    pub fn of(org: &Org) -> Self {
        Self::Names { slug: org.slug.to_string(), server_ids: org.servers.values().map(|server| server.id.to_string()).collect() }
    }
}

/// From bundles that [`check_org`] found no fault with.
fn build_org(id: Arc<str>, effective: Digest, kept: Vec<(String, Held)>, bundles: &[OrgBundle]) -> Org {
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
    let limits = limit::Index::build(bundles.iter().flat_map(|bundle| &bundle.limits), &servers);
    Org {
        id,
        slug: settings.slug.as_str().into(),
        digest: effective,
        bundles: kept,
        issuers: settings.issuers.iter().map(issuer).collect(),
        audit_full: match settings.audit_full() {
            wire::AuditFullAction::Allow => wire::AuditFullAction::Allow,
            wire::AuditFullAction::Block | wire::AuditFullAction::Unspecified => wire::AuditFullAction::Block,
        },
        audit_on_disk: settings.audit_sync() == wire::AuditSync::Disk,
        capture: settings.capture.as_ref().and_then(Capture::of),
        allowed_origins: settings.allowed_origins,
        servers,
        index,
        limits,
    }
}

fn build_server(org_id: &Arc<str>, server: &wire::Server, ordinal: u32) -> Server {
    let endpoint = |endpoint: &wire::Endpoint| {
        let url = parse_endpoint(&endpoint.url, server.transport()).expect("check_org parsed this URL");
        Endpoint { url, weight: endpoint.weight.max(1) }
    };
    Server {
        id: server.id.as_str().into(),
        slug: server.slug.as_str().into(),
        org_id: org_id.clone(),
        transport: server.transport(),
        era: server.era(),
        endpoints: server.endpoints.iter().map(endpoint).collect(),
        stdio: server.stdio.as_ref().map(Stdio::of),
        client_transports: ClientTransports::of(&server.client_transports),
        session_per_call: server.legacy_sessions() == wire::LegacySessions::PerCall,
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
