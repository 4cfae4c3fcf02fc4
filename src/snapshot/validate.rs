//! What an organisation's configuration must satisfy. Pure checks; every defect is reported, not only the first.

use std::collections::BTreeSet;

use super::Problem;
use super::capture;
use super::hash::sha256;
use super::server::parse_url;
use super::{limit, server};
use crate::proto::config::v1::{
    AuditFullAction, AuditSync, Effect, Match, Mode, OrgBundle, Policy, SignatureAlgorithm, TokenIssuer,
};

/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;
/// The most stars in one pattern: more would only serve to slow a match down.
const MAX_STARS: usize = 8;

/// Checks all chunks of one organisation together, as a node would before serving them. Empty means that it compiles.
/// Credentials are not looked up here: the control plane knows its own rows, a node checks them against the secrets.
#[must_use]
pub fn check_org(bundles: &[OrgBundle]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(org) = bundles.first().map(|bundle| bundle.org_id.clone()) else {
        return problems;
    };
    check_chunks(&org, bundles, &mut problems);
    if !is_uuid(&org) {
        problems.push(Problem::InvalidId { resource: format!("org/{org}"), field: "org_id", value: org.clone() });
    }
    if let Some(settings) = bundles.iter().find_map(|bundle| bundle.organization.as_ref()) {
        let resource = format!("org/{org}");
        if !is_slug(&settings.slug) {
            problems.push(Problem::InvalidSlug { resource: resource.clone(), field: "slug", value: settings.slug.clone() });
        }
        known::<AuditFullAction>(&resource, "audit_full", settings.audit_full, &mut problems);
        known::<AuditSync>(&resource, "audit_sync", settings.audit_sync, &mut problems);
        settings.capture.iter().for_each(|given| capture::check(&resource, given, &mut problems));
        check_origins(&resource, &settings.allowed_origins, &mut problems);
        check_issuers(&resource, &settings.issuers, &mut problems);
    }
    let mut ids = BTreeSet::new();
    let mut slugs = BTreeSet::new();
    for server in bundles.iter().flat_map(|bundle| &bundle.servers) {
        server::check(server, &mut problems);
        unique(&org, "server id", &server.id, &mut ids, &mut problems);
        unique(&org, "server slug", &server.slug, &mut slugs, &mut problems);
    }
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for policy in bundles.iter().flat_map(|bundle| &bundle.policies) {
        check_policy(policy, &slugs, &mut problems);
        unique(&org, "policy id", &policy.id, &mut ids, &mut problems);
        unique(&org, "policy name", &policy.name, &mut names, &mut problems);
    }
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for limit in bundles.iter().flat_map(|bundle| &bundle.limits) {
        limit::check(limit, &slugs, &mut problems);
        unique(&org, "limit id", &limit.id, &mut ids, &mut problems);
        unique(&org, "limit name", &limit.name, &mut names, &mut problems);
    }
    problems
}

fn check_chunks(org: &str, bundles: &[OrgBundle], problems: &mut Vec<Problem>) {
    let count = bundles[0].chunk_count;
    if count == 0 {
        return problems.push(Problem::Unreadable { org: org.to_owned() });
    }
    let mut found: Vec<u32> = bundles.iter().map(|bundle| bundle.chunk).collect();
    found.sort_unstable();
    let complete = found.iter().copied().eq(0..count) && bundles.iter().all(|bundle| bundle.chunk_count == count);
    if !complete {
        problems.push(Problem::ChunksIncomplete { org: org.to_owned(), count, found });
    }
    if bundles.iter().any(|bundle| bundle.organization.is_some() != (bundle.chunk == 0)) {
        problems.push(Problem::OrganizationMisplaced { org: org.to_owned() });
    }
}

fn check_policy(policy: &Policy, servers: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    let resource = format!("policy {}", policy.name);
    let name = || policy.name.clone();
    if !is_uuid(&policy.id) {
        problems.push(Problem::InvalidId { resource: resource.clone(), field: "id", value: policy.id.clone() });
    }
    if !is_slug(&policy.name) {
        problems.push(Problem::InvalidSlug { resource: resource.clone(), field: "name", value: policy.name.clone() });
    }
    if !matches!(Effect::try_from(policy.effect), Ok(Effect::Allow | Effect::Deny)) {
        problems.push(Problem::UnknownEnum { resource: resource.clone(), field: "effect", value: policy.effect });
    }
    known::<Mode>(&resource, "mode", policy.mode, problems);
    if policy.servers.is_empty() {
        problems.push(Problem::NoServers { policy: name() });
    }
    for (index, server) in policy.servers.iter().enumerate() {
        if server != "*" && !servers.contains(server.as_str()) {
            problems.push(Problem::DanglingServer { policy: name(), index, server: server.clone() });
        }
    }
    let named = policy.subjects.as_ref().is_some_and(|subjects| {
        subjects.anonymous
            || [&subjects.roles, &subjects.groups, &subjects.users, &subjects.api_keys].iter().any(|names| !names.is_empty())
    });
    if !named {
        problems.push(Problem::NoSubjects { policy: name() });
    }
    check_match(policy, policy.r#match.as_ref(), problems);
    if !policy.when.is_empty() {
        problems.push(Problem::ConditionUnsupported { policy: name() });
    }
}

fn check_match(policy: &Policy, matching: Option<&Match>, problems: &mut Vec<Problem>) {
    let empty = Match::default();
    let matching = matching.unwrap_or(&empty);
    let fields = [
        ("match.tools", &matching.tools),
        ("match.prompts", &matching.prompts),
        ("match.resources", &matching.resources),
        ("match.methods", &matching.methods),
    ];
    if fields.iter().all(|(_, patterns)| patterns.is_empty()) {
        problems.push(Problem::EmptyMatch { policy: policy.name.clone() });
    }
    if !matching.methods.is_empty() && policy.effect() == Effect::Allow {
        problems.push(Problem::MethodsOnAllow { policy: policy.name.clone() });
    }
    for (field, patterns) in fields {
        for (index, pattern) in patterns.iter().enumerate() {
            let Some(reason) = unfit(field, pattern) else { continue };
            problems.push(Problem::InvalidPattern { policy: policy.name.clone(), field, index, reason });
        }
    }
}

/// What is wrong with a pattern of `field`.
pub(super) fn unfit(field: &str, pattern: &str) -> Option<&'static str> {
    match pattern {
        "" => Some("a pattern cannot be empty"),
        text if text.len() > MAX_PATTERN_BYTES => Some("a pattern has at most 1024 bytes"),
        text if text.bytes().filter(|byte| *byte == b'*').count() > MAX_STARS => Some("a pattern has at most 8 stars"),
        text if field == "match.methods" && text.contains('*') => Some("methods are named exactly"),
        _ => None,
    }
}

pub(super) fn check_issuers(resource: &str, issuers: &[TokenIssuer], problems: &mut Vec<Problem>) {
    for issuer in issuers {
        for key in &issuer.keys {
            let expected = match key.algorithm() {
                SignatureAlgorithm::Unspecified => "a known algorithm is expected",
                SignatureAlgorithm::Eddsa if key.public_key.len() != 32 => "an Ed25519 key has 32 bytes",
                SignatureAlgorithm::Rs256 | SignatureAlgorithm::Es256 if key.public_key.is_empty() => "a public key is expected",
                SignatureAlgorithm::Eddsa | SignatureAlgorithm::Rs256 | SignatureAlgorithm::Es256 => continue,
            };
            problems.push(Problem::InvalidVerificationKey {
                resource: resource.to_owned(),
                issuer: issuer.issuer.clone(),
                key_id: key.key_id.clone(),
                expected,
            });
        }
    }
}

pub(super) fn check_origins(resource: &str, origins: &[String], problems: &mut Vec<Problem>) {
    for (index, value) in origins.iter().enumerate() {
        if value != "*" && !is_origin(value) {
            problems.push(Problem::InvalidOrigin { resource: resource.to_owned(), index, value: value.clone() });
        }
    }
}

/// A serialised origin (RFC 6454 section 6.2): scheme, host, optional port, nothing else.
fn is_origin(value: &str) -> bool {
    parse_url(value).is_ok_and(|uri| {
        let bare =
            format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |authority| authority.as_str()));
        bare == value && value.bytes().all(|byte| !byte.is_ascii_uppercase())
    })
}

pub(super) fn known<E: TryFrom<i32>>(resource: &str, field: &'static str, value: i32, problems: &mut Vec<Problem>) {
    if E::try_from(value).is_err() {
        problems.push(Problem::UnknownEnum { resource: resource.to_owned(), field, value });
    }
}

fn unique<'a>(org: &str, field: &'static str, value: &'a str, seen: &mut BTreeSet<&'a str>, problems: &mut Vec<Problem>) {
    if !seen.insert(value) {
        problems.push(Problem::Duplicate { resource: format!("org/{org}"), field, value: value.to_owned() });
    }
}

/// 1 to 63 characters of a-z, 0-9 and hyphen, starting with a letter.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A UUID in its canonical lower-case form.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

/// The shard that holds an API key: the first byte of SHA-256 of its id.
#[must_use]
pub fn shard_of(key_id: &str) -> u8 {
    sha256(&[key_id.as_bytes()])[0]
}
