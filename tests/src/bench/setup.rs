//! What each measured node is told: its organisation, server and policies, put into the control plane's tables as `mcpgw-scale` does it.

use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateRateLimitRequest, CreateServerRequest, RateLimit, Server};
use mcp_gateway::proto::config::v1::{Endpoint, Era, LimitPer, LimitWindow, Match};
use sqlx::Connection as _;
use uuid::Uuid;

use super::control::Desk;

/// Users of a node with authentication.
pub const USERS: usize = 64;
/// What every user is.
pub const ROLES: [&str; 2] = ["engineer", "role-3"];

/// The mock speaks both eras; under the other names it is spoken to in one of them, whoever asks.
const SERVERS: [(&str, Era); 3] = [("mock", Era::Unspecified), ("mock-legacy", Era::Legacy), ("mock-modern", Era::Modern)];

/// How much a measured node has to do for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Anybody may call, one rule says so, nothing is limited.
    Bare,
    /// A token to check, this many policies to obey, three limits to count in, records shipped.
    Full { policies: u32 },
}

/// An organisation as a node serves it.
pub struct Place {
    /// The path of the server `mock`.
    pub path: String,
    pub tokens: Vec<String>,
    /// The token of an operator.
    pub operator: Option<String>,
}

/// Registers the server at `server` (host, port and path) under its names and lets callers in.
pub async fn fill(desk: &Desk, duty: Duty, server: &str) -> anyhow::Result<Place> {
    let org = desk.admin.create_org("bench").await?;
    let uid = Uuid::parse_str(&org.uid)?;
    let anonymous = duty == Duty::Bare;
    let mut version = 0;
    for (name, era) in SERVERS {
        register(desk, name, server, era, anonymous).await?;
        let rule = crate::fleet::Rule {
            name: &format!("calls-{name}"),
            server: name,
            roles: if anonymous { &[] } else { &ROLES[..1] },
            anonymous,
            tools: &["echo", "progress"],
            ..crate::fleet::Rule::default()
        };
        version = desk.admin.create_policy("bench", rule).await?.config_version;
    }
    let path = "/o/bench/servers/mock/mcp".to_owned();
    let operator = desk.tokens(uid, 1, &["operator"])?.pop();
    let Duty::Full { policies } = duty else {
        desk.admin.wait(version).await?;
        return Ok(Place { path, tokens: Vec::new(), operator });
    };
    limits(desk).await?;
    let version = more_policies(desk, uid, policies.saturating_sub(1)).await?;
    desk.admin.wait(version).await?;
    Ok(Place { path, tokens: desk.tokens(uid, USERS, &ROLES)?, operator })
}

async fn register(desk: &Desk, name: &str, server: &str, era: Era, allow_anonymous: bool) -> anyhow::Result<()> {
    let endpoints = vec![Endpoint { url: format!("http://{server}"), weight: 1 }];
    let request = CreateServerRequest {
        parent: "organizations/bench".to_owned(),
        server_id: name.to_owned(),
        server: Some(Server { endpoints, allow_anonymous, era: era.into(), ..Server::default() }),
        ..CreateServerRequest::default()
    };
    ServerServiceClient::new(desk.admin.channel.clone()).create_server(desk.admin.request(request)).await?;
    Ok(())
}

/// One for each user, one for the organisation, one for each tool; so wide that the benchmark never meets them, and counted all the same.
async fn limits(desk: &Desk) -> anyhow::Result<()> {
    let tools = Match { tools: vec!["echo".to_owned(), "progress".to_owned()], ..Match::default() };
    let limits = [
        ("each-user", vec![LimitPer::User], None),
        ("everybody", Vec::new(), None),
        ("each-tool", vec![LimitPer::Endpoint], Some(tools)),
    ];
    for (name, per, matching) in limits {
        let window = LimitWindow { limit: 1_000_000_000, seconds: 60 };
        let limit = RateLimit {
            per: per.into_iter().map(i32::from).collect(),
            r#match: matching,
            windows: vec![window],
            ..RateLimit::default()
        };
        let request = CreateRateLimitRequest {
            parent: "organizations/bench".to_owned(),
            rate_limit_id: name.to_owned(),
            rate_limit: Some(limit),
            ..CreateRateLimitRequest::default()
        };
        RateLimitServiceClient::new(desk.admin.channel.clone()).create_rate_limit(desk.admin.request(request)).await?;
    }
    Ok(())
}

/// Rules as an organisation of this size would have them: by roles and groups, half for the mock under all its names and half for every server, some of them
/// denials, with names and patterns that the benchmark's call does not match.
async fn more_policies(desk: &Desk, organization: Uuid, count: u32) -> anyhow::Result<u64> {
    let mut sql = desk.control.running.sql().await;
    let statement = "INSERT INTO policies (id, org_id, name, effect, mode, subjects, servers, match) \
         SELECT md5('policy' || n)::uuid, $1, 'policy-' || n, CASE WHEN n % 10 = 9 THEN 2 ELSE 1 END, 1, \
         jsonb_build_object('roles', jsonb_build_array('role-' || n % 7), 'groups', jsonb_build_array('group-' || n % 11)), \
         CASE WHEN n % 2 = 0 THEN ARRAY['mock', 'mock-legacy', 'mock-modern'] ELSE ARRAY['*'] END, \
         jsonb_build_object('tools', jsonb_build_array('tool_' || n, 'search_' || n % 13 || '_*')) \
         FROM generate_series(0, $2 - 1) n";
    sqlx::query(statement).bind(organization).bind(i64::from(count)).execute(&mut sql).await?;
    let made = "UPDATE config_head SET version = version + 1, committed_at = clock_timestamp() RETURNING version";
    let version: i64 = sqlx::query_scalar(made).fetch_one(&mut sql).await?;
    sqlx::query("SELECT pg_notify('mcpgw_config', '')").execute(&mut sql).await?;
    sql.close().await?;
    Ok(version.unsigned_abs())
}
