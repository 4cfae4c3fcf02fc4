//! `GET …/mcp/status`: what this caller is to the gateway, and which servers it can use. Never tells of anybody else.

use http::{Method, Request, StatusCode};
use mcp_gateway::proto::node::v1::{Outcome, Via};
use mcp_gateway::snapshot::{Ask, Org, Server, Snapshot};
use serde::Serialize;

use super::Pipeline;
use super::authenticate::Principal;
use super::denial::{AuthenticateDenial, Denial, TargetDenial};
use super::reply::Reply;
use super::trail::{Asked, Ending, Trail};
use crate::operate::{self, Connection};
use crate::relay::outcome::Answered;
use crate::target::{self, Endpoint, Target};

#[derive(Serialize)]
struct Status<'a> {
    principal: Caller<'a>,
    organization: Organization<'a>,
    configuration: Configuration,
    servers: Vec<Visible<'a>>,
    /// The caller's own, on this node.
    sessions: Vec<Connection>,
}

#[derive(Serialize)]
struct Caller<'a> {
    subject: &'a str,
    via: &'static str,
    roles: &'a [String],
    groups: &'a [String],
    expires_at: Option<i64>,
}

#[derive(Serialize)]
struct Organization<'a> {
    id: &'a str,
    slug: &'a str,
}

#[derive(Serialize)]
struct Configuration {
    epoch: u64,
    version: u64,
}

#[derive(Serialize)]
struct Visible<'a> {
    id: &'a str,
    slug: &'a str,
    path: String,
    transport: &'static str,
    era: &'static str,
}

/// Answers `request` if it asks for a status.
pub(super) async fn answer<B: Sync>(
    pipeline: &Pipeline,
    request: &Request<B>,
    trail: &mut Trail,
) -> Option<Result<Reply, Denial>> {
    let (_, Endpoint::McpStatus) = target::parse(request.uri().path()).ok()? else { return None };
    Some(status(pipeline, request, trail).await)
}

async fn status<B: Sync>(pipeline: &Pipeline, request: &Request<B>, trail: &mut Trail) -> Result<Reply, Denial> {
    let config = pipeline.live.snapshot().ok_or(TargetDenial::NotReady)?;
    trail.configuration(&config);
    trail.asked(Asked { method: "GET", name: request.uri().path(), ..Asked::default() });
    let target = pipeline.doors.admit(request.uri(), request.headers(), &config)?;
    if request.method() != Method::GET {
        return Err(TargetDenial::Method { allow: "GET" }.into());
    }
    pipeline.admit_credential(request.headers(), trail)?;
    let own = match &target {
        Target::Server { org, server, .. } => Some((org, server)),
        Target::Unknown { .. } | Target::Federated { .. } => None,
    };
    let revocations = pipeline.live.revocations();
    let org = own.map(|(org, _)| &**org);
    let principal = match (pipeline.verifier.recognise(request.headers(), org, &config, &revocations)?, own) {
        (Some(principal), _) => principal,
        (None, Some((org, server))) if server.allow_anonymous => Principal::anonymous(org.id.clone()).into(),
        (None, _) => return Err(AuthenticateDenial::Missing.into()),
    };
    trail.principal(&principal);
    let visible_org = config.org(&principal.org_id).ok_or(AuthenticateDenial::UnknownServer)?;
    let only = match &target {
        Target::Federated { .. } => None,
        Target::Server { server, .. } if server.org_id == visible_org.id => Some(&*server.id),
        Target::Server { .. } | Target::Unknown { .. } => return Err(AuthenticateDenial::UnknownServer.into()),
    };
    trail.allowed().await?;
    // Callers without a credential are all one, and none of each other's business.
    let somebody = principal.via != Via::Anonymous;
    let sessions = if somebody { operate::own(pipeline, &visible_org.id, &principal.subject) } else { Vec::new() };
    let described = Status { sessions, ..describe(&principal, visible_org, only, &config) };
    let body = serde_json::to_vec(&described).expect("plain data serialises");
    Ok(Reply::json(StatusCode::OK, body, Ending::of(Answered::new(Outcome::Ok, 0))))
}

fn describe<'a>(principal: &'a Principal, org: &'a Org, only: Option<&str>, config: &Snapshot) -> Status<'a> {
    let subject = principal.subject();
    let mut servers: Vec<_> = org
        .servers()
        .filter(|server| only.is_none_or(|id| *server.id == *id))
        .filter(|server| org.judge(server, &subject, Ask::Something).allowed)
        .map(|server| visible(server))
        .collect();
    servers.sort_unstable_by_key(|server| server.slug);
    Status {
        principal: Caller {
            subject: &principal.subject,
            via: via(principal.via),
            roles: &principal.roles,
            groups: &principal.groups,
            expires_at: principal.expires_at,
        },
        organization: Organization { id: &org.id, slug: &org.slug },
        configuration: Configuration { epoch: config.version().epoch, version: config.version().version },
        servers,
        sessions: Vec::new(),
    }
}

fn visible(server: &Server) -> Visible<'_> {
    use mcp_gateway::proto::config::v1::{Era, Transport};
    let transport = match server.transport {
        Transport::Unspecified => "unspecified",
        Transport::StreamableHttp => "streamable-http",
        Transport::HttpSse => "http-sse",
        Transport::Websocket => "websocket",
        Transport::Stdio => "stdio",
        Transport::JsonRpc => "json-rpc",
    };
    let era = match server.era {
        Era::Unspecified => "any",
        Era::Legacy => "legacy",
        Era::Modern => "modern",
        Era::Both => "both",
    };
    Visible { id: &server.id, slug: &server.slug, path: format!("/servers/{}/mcp", server.id), transport, era }
}

fn via(via: Via) -> &'static str {
    match via {
        Via::Unspecified => "unspecified",
        Via::Anonymous => "anonymous",
        Via::Jwt => "jwt",
        Via::ApiKey => "api_key",
        Via::Certificate => "certificate",
    }
}
