//! An organisation's rows as the bundles that nodes receive. Pure: the same rows give the same bytes on every replica.
//!
//! `store::change` checks with it what a write would publish, `publish` encodes with it what is published.

use mcp_gateway::snapshot::{Problem, check_org, check_server};

use super::{Organization, Policy, RateLimit, Server, Violation, config};

/// Everything of one organisation that goes into its bundles.
#[derive(Debug, Clone, PartialEq)]
pub struct OrgRows {
    pub organization: Organization,
    pub servers: Vec<Server>,
    pub policies: Vec<Policy>,
    pub limits: Vec<RateLimit>,
}

impl OrgRows {
    /// An organisation that has nothing yet.
    pub fn bare(organization: Organization) -> Self {
        Self { organization, servers: Vec::new(), policies: Vec::new(), limits: Vec::new() }
    }
}

/// The bundles of an organisation, chunk 0 first.
pub fn org_bundles(rows: &OrgRows) -> Vec<config::OrgBundle> {
    mcp_gateway::bundle::cut(config::OrgBundle {
        org_id: rows.organization.id.to_string(),
        organization: Some(organization(&rows.organization)),
        servers: rows.servers.iter().map(server).collect(),
        policies: rows.policies.iter().map(policy).collect(),
        limits: rows.limits.iter().map(RateLimit::compiled).collect(),
        ..config::OrgBundle::default()
    })
}

/// What a server's credential is sealed for.
pub fn credential_context(server_id: &str) -> [&str; 2] {
    ["server", server_id]
}

fn organization(row: &Organization) -> config::Organization {
    config::Organization {
        slug: row.slug.clone(),
        display_name: row.display_name.clone(),
        issuers: Vec::new(),
        allowed_origins: row.allowed_origins.clone(),
        audit_full: row.audit_full,
        audit_sync: row.audit_sync,
        capture: Option::from(row.capture.clone()),
    }
}

/// Nothing that is kept is nothing that is said.
impl From<super::Capture> for Option<config::Capture> {
    fn from(capture: super::Capture) -> Self {
        let super::Capture { arguments, results, max_bytes, redact, retention_days } = capture;
        let (max_bytes, retention_days) = (max_bytes.unsigned_abs(), retention_days.unsigned_abs());
        let said = config::Capture { arguments, results, max_bytes, redact, retention_days };
        (said != config::Capture::default()).then_some(said)
    }
}

impl From<config::Capture> for super::Capture {
    fn from(given: config::Capture) -> Self {
        let config::Capture { arguments, results, max_bytes, redact, retention_days } = given;
        let number = |given: u32| i32::try_from(given).unwrap_or(i32::MAX); // the check refuses it
        Self { arguments, results, max_bytes: number(max_bytes), redact, retention_days: number(retention_days) }
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
        stdio: row.stdio.clone().map(config::Stdio::from),
        client_transports: row.client_transports.iter().cloned().map(config::ClientTransportSettings::from).collect(),
        legacy_sessions: row.legacy_sessions,
    }
}

impl From<super::Stdio> for config::Stdio {
    fn from(row: super::Stdio) -> Self {
        let super::Stdio { command, environment, directory, scope } = row;
        let variable = |it: super::EnvironmentVariable| config::EnvironmentVariable { name: it.name, value: it.value };
        Self { command, environment: environment.into_iter().map(variable).collect(), directory, scope }
    }
}

impl From<config::Stdio> for super::Stdio {
    fn from(given: config::Stdio) -> Self {
        let config::Stdio { command, environment, directory, scope } = given;
        let variable = |it: config::EnvironmentVariable| super::EnvironmentVariable { name: it.name, value: it.value };
        Self { command, environment: environment.into_iter().map(variable).collect(), directory, scope }
    }
}

impl From<super::ClientTransportSettings> for config::ClientTransportSettings {
    fn from(row: super::ClientTransportSettings) -> Self {
        let super::ClientTransportSettings { transport, disabled, session_idle_seconds, max_connections, keep_alive_seconds } =
            row;
        Self { transport, disabled, session_idle_seconds, max_connections, keep_alive_seconds }
    }
}

impl From<config::ClientTransportSettings> for super::ClientTransportSettings {
    fn from(given: config::ClientTransportSettings) -> Self {
        let config::ClientTransportSettings { transport, disabled, session_idle_seconds, max_connections, keep_alive_seconds } =
            given;
        Self { transport, disabled, session_idle_seconds, max_connections, keep_alive_seconds }
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

/// What a node would refuse in these rows, as violations of the request that would make them so.
pub fn problems(rows: &OrgRows) -> Vec<Violation> {
    check_org(&org_bundles(rows)).into_iter().map(violation).collect()
}

/// What a node would refuse of how a server is reached, whatever else there is: no such row may be written, not even to be rolled back.
pub fn unreachable(row: &Server) -> impl Iterator<Item = Violation> {
    let of_its_own = |problem: &Problem| matches!(problem, Problem::InvalidServer { .. });
    check_server(&server(row)).into_iter().filter(of_its_own).map(violation)
}

/// The field of the admin API that a problem is about, with what is expected of it.
fn violation(problem: Problem) -> Violation {
    let field = match &problem {
        Problem::DanglingServer { index, .. } => format!("policy.servers[{index}]"),
        Problem::NoServers { .. } => "policy.servers".into(),
        Problem::NoSubjects { .. } => "policy.subjects".into(),
        Problem::EmptyMatch { .. } => "policy.match".into(),
        Problem::MethodsOnAllow { .. } => "policy.match.methods".into(),
        Problem::ConditionUnsupported { .. } => "policy.when".into(),
        Problem::InvalidPattern { field, index, .. } => format!("policy.{field}[{index}]"),
        Problem::InvalidServer { field, .. } => format!("server.{field}"),
        Problem::NoEndpoint { .. } => "server.endpoints".into(),
        Problem::InvalidUrl { index, .. } => format!("server.endpoints[{index}].url"),
        Problem::BodyLimit { .. } => "server.max_body_bytes".into(),
        Problem::InvalidOrigin { index, .. } => format!("organization.allowed_origins[{index}]"),
        Problem::LimitedServer { index, .. } => format!("rate_limit.servers[{index}]"),
        Problem::InvalidLimit { field, .. } => format!("rate_limit.{field}"),
        Problem::InvalidCapture { field, .. } => format!("organization.capture.{field}"),
        Problem::UnknownEnum { resource, field, .. } | Problem::InvalidSlug { resource, field, .. } => {
            let noun = match resource.split([' ', '/']).next().unwrap_or_default() {
                "org" => "organization",
                "limit" => "rate_limit",
                noun => noun,
            };
            format!("{noun}.{field}")
        }
        other => other.to_string().split(':').next().unwrap_or_default().to_owned(), // of the rows, not of a request
    };
    Violation::new(field, problem.to_string())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use prost::Message as _;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Endpoint, Match, Meta, Subjects, limit::Spec};

    fn meta() -> Meta {
        Meta { revision: 1, config_version: 0, created_at: DateTime::UNIX_EPOCH, updated_at: DateTime::UNIX_EPOCH }
    }

    fn org(servers: Vec<Server>, policies: Vec<Policy>) -> OrgRows {
        let organization = Organization {
            id: Uuid::from_u128(1),
            slug: "acme".into(),
            display_name: String::new(),
            allowed_origins: Vec::new(),
            audit_full: 1,
            pool: "default".into(),
            request_log_retention_days: 90,
            audit_sync: 1,
            capture: crate::domain::Capture::default(),
            audit_log_retention_days: 400,
            meta: meta(),
        };
        OrgRows { servers, policies, ..OrgRows::bare(organization) }
    }

    fn a_server(n: u128, url: &str) -> Server {
        Server {
            id: Uuid::from_u128(n),
            org_id: Uuid::from_u128(1),
            slug: format!("s{n}"),
            display_name: String::new(),
            transport: config::Transport::StreamableHttp.into(),
            era: 0,
            endpoints: vec![Endpoint { url: url.into(), weight: 0 }],
            allow_anonymous: false,
            disabled: false,
            credential: None,
            call_timeout_ms: 0,
            max_body_bytes: 0,
            stdio: None,
            client_transports: Vec::new(),
            legacy_sessions: 0,
            meta: meta(),
        }
    }

    fn a_policy(n: u128, servers: &[&str], tools: Vec<String>) -> Policy {
        Policy {
            id: Uuid::from_u128(n),
            org_id: Uuid::from_u128(1),
            name: format!("p{n}"),
            display_name: String::new(),
            effect: config::Effect::Allow.into(),
            mode: config::Mode::Enforce.into(),
            subjects: Subjects { anonymous: true, ..Default::default() },
            servers: servers.iter().map(|s| (*s).into()).collect(),
            matches: Match { tools, ..Default::default() },
            when: String::new(),
            meta: meta(),
        }
    }

    #[test]
    fn the_order_of_the_rows_does_not_show() {
        let (a, b) = (a_server(2, "http://a.example/mcp"), a_server(3, "http://b.example/mcp"));
        assert_eq!(org_bundles(&org(vec![a.clone(), b.clone()], vec![])), org_bundles(&org(vec![b, a], vec![])));
    }

    #[test]
    fn a_large_organisation_is_cut_into_chunks_that_a_node_takes() {
        let tools = || vec!["x".repeat(1000); 100];
        let rows = org(vec![a_server(2, "http://a.example/mcp")], (10..20).map(|n| a_policy(n, &["s2"], tools())).collect());
        let bundles = org_bundles(&rows);
        assert!(bundles.len() > 4, "{}", bundles.len());
        assert!(bundles.iter().all(|bundle| bundle.encoded_len() <= 256_000));
        assert_eq!(bundles.iter().map(|b| b.policies.len()).sum::<usize>(), 10);
        assert_eq!(problems(&rows), []);
    }

    #[test]
    fn what_a_node_would_refuse_of_a_limit_is_named_by_field() {
        let spec = Spec { servers: vec!["gone".into()], per: vec![config::LimitPer::Endpoint.into()], ..Spec::default() };
        let limit = RateLimit { id: Uuid::from_u128(4), org_id: Uuid::from_u128(1), name: "l".into(), spec, meta: meta() };
        let unknown = RateLimit {
            id: Uuid::from_u128(5),
            name: "m".into(),
            spec: Spec { when_away: 77, max_concurrent: 1, ..Spec::default() },
            ..limit.clone()
        };
        let rows = OrgRows { limits: vec![limit, unknown], ..org(vec![], vec![]) };
        let fields: Vec<String> = problems(&rows).into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["rate_limit.servers[0]", "rate_limit.match", "rate_limit.windows", "rate_limit.when_away"]);
    }

    #[test]
    fn what_a_node_would_refuse_is_named_by_field() {
        let rows = org(vec![a_server(2, "ftp://a.example")], vec![a_policy(3, &["*", "gone"], vec![])]);
        let fields: Vec<String> = problems(&rows).into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["server.endpoints[0].url", "policy.servers[1]", "policy.match"]);
    }
}
