//! LogService: what administrators did, and what MCP clients asked for. Reads only; who reads payloads is on record.
//!
//! A caller sees one organisation, its own; only platform administrators see all of them, and what belongs to none.

use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1::{
    FollowAuditLogsRequest, FollowAuditLogsResponse, FollowRequestLogsRequest, FollowRequestLogsResponse, GetRequestLogRequest,
    GetRequestPayloadRequest, ListAuditLogsRequest, ListAuditLogsResponse, ListErrorGroupsRequest, ListErrorGroupsResponse,
    ListRecordGapsRequest, ListRecordGapsResponse, ListRequestLogsRequest, ListRequestLogsResponse, RequestLog, RequestPayload,
    log_service_server::LogService,
};
use prost_types::Timestamp;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, admitted,
    aip::{self, Pages},
    caller::{Caller, Hold},
    error::Error,
    standing::Answers,
};
use crate::{
    domain::Violation,
    store::logs::{
        self, AuditFilter, OutcomeFilter, Position, RequestFilter, Window,
        errors::{self, GroupFilter},
    },
};

mod follow;
mod gaps;
mod payload;
pub mod wire;

const AUDIT: &str = "/mcpgw.admin.v1.LogService/ListAuditLogs";
const REQUESTS: &str = "/mcpgw.admin.v1.LogService/ListRequestLogs";
const ERRORS: &str = "/mcpgw.admin.v1.LogService/ListErrorGroups";

#[tonic::async_trait]
impl LogService for Api {
    async fn list_audit_logs(&self, request: Request<ListAuditLogsRequest>) -> Result<Response<ListAuditLogsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(audit_logs(self, &caller, &request).await?))
    }

    async fn list_request_logs(
        &self,
        request: Request<ListRequestLogsRequest>,
    ) -> Result<Response<ListRequestLogsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(request_logs(self, &caller, request).await?))
    }

    async fn get_request_log(&self, request: Request<GetRequestLogRequest>) -> Result<Response<RequestLog>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(request_log(self, &caller, &request.request_id).await?))
    }

    async fn get_request_payload(&self, request: Request<GetRequestPayloadRequest>) -> Result<Response<RequestPayload>, Status> {
        let (caller, request) = admitted(request)?;
        let (id, _made_at) = request_id(&request.request_id)?;
        Ok(Response::new(payload::read(self, &caller, id).await?))
    }

    type FollowRequestLogsStream = Answers<FollowRequestLogsResponse>;

    async fn follow_request_logs(
        &self,
        request: Request<FollowRequestLogsRequest>,
    ) -> Result<Response<Self::FollowRequestLogsStream>, Status> {
        Ok(Response::new(follow::requests(self, request).await?))
    }

    type FollowAuditLogsStream = Answers<FollowAuditLogsResponse>;

    async fn follow_audit_logs(
        &self,
        request: Request<FollowAuditLogsRequest>,
    ) -> Result<Response<Self::FollowAuditLogsStream>, Status> {
        Ok(Response::new(follow::audit(self, request).await?))
    }

    async fn list_error_groups(
        &self,
        request: Request<ListErrorGroupsRequest>,
    ) -> Result<Response<ListErrorGroupsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(error_groups(self, &caller, &request).await?))
    }

    async fn list_record_gaps(
        &self,
        request: Request<ListRecordGapsRequest>,
    ) -> Result<Response<ListRecordGapsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(gaps::list(self, &caller, &request).await?))
    }
}

async fn audit_logs(api: &Api, caller: &Caller, request: &ListAuditLogsRequest) -> Result<ListAuditLogsResponse, Error> {
    let ListAuditLogsRequest { actor, action, resource, outcome, .. } = request.clone();
    let filter = AuditFilter { actor, action, resource, outcome };
    audit_texts(&filter)?;
    let span = Span::of(request.since.as_ref(), request.until.as_ref())?;
    let mut connection = api.core.store.connection().await?;
    let org = scope(caller, &mut connection, &request.parent).await?;
    let (org_id, [since, until]) = (org.map(|id| id.to_string()).unwrap_or_default(), span.binding());
    let AuditFilter { actor, action, resource, outcome } = &filter;
    let binding = [AUDIT, &org_id, actor, action, resource, outcome, &since, &until];
    let pages = Pages::new(&api.core.custody, request.page_size, &binding)?;
    let window = span.window(org, pages.position(&request.page_token)?);
    let mut found = logs::audit_logs(&mut connection, &window, &filter, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |row| mark(row.occurred_at, row.id))?;
    Ok(ListAuditLogsResponse { audit_logs: found.into_iter().map(wire::audit_log).collect(), next_page_token })
}

/// What a filter of administrative records may say.
fn audit_texts(filter: &AuditFilter) -> Result<(), Error> {
    texts(&[("actor", &filter.actor), ("action", &filter.action), ("resource", &filter.resource)])?;
    let known = ["", "ok", "denied"].contains(&filter.outcome.as_str());
    if known { Ok(()) } else { Err(Error::invalid("outcome", "expected ok, denied, or nothing")) }
}

async fn request_logs(api: &Api, caller: &Caller, request: ListRequestLogsRequest) -> Result<ListRequestLogsResponse, Error> {
    let span = Span::of(request.since.as_ref(), request.until.as_ref())?;
    let ListRequestLogsRequest { parent, page_size, page_token, .. } = request.clone();
    let filters = wire::filters(request);
    let filter = request_filter(&filters)?;
    let mut connection = api.core.store.connection().await?;
    let org = scope(caller, &mut connection, &parent).await?;
    let (org_id, [since, until]) = (org.map(|id| id.to_string()).unwrap_or_default(), span.binding());
    let binding = [REQUESTS, &org_id, &format!("{filters:?}"), &since, &until];
    let pages = Pages::new(&api.core.custody, page_size, &binding)?;
    let window = span.window(org, pages.position(&page_token)?);
    let mut found = logs::request_logs(&mut connection, &window, &filter, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |row| mark(row.decided_at, row.request_id))?;
    Ok(ListRequestLogsResponse { request_logs: found.into_iter().map(wire::request_log).collect(), next_page_token })
}

/// What a list's or a follower's filters ask for; both have the same.
fn request_filter(request: &FollowRequestLogsRequest) -> Result<RequestFilter, Error> {
    let FollowRequestLogsRequest { subject, server, target, method, rule, reason, .. } = request.clone();
    let named = [("subject", &subject), ("server", &server), ("target", &target), ("method", &method), ("rule", &rule)];
    texts(&named)?;
    texts(&[("reason", &reason)])?;
    let id = |field: &str, text: &str, expected: &str| match text {
        "" => Ok(None),
        text => Uuid::try_parse(text).ok().map(Some).ok_or_else(|| Error::invalid(field, expected)),
    };
    Ok(RequestFilter {
        node: id("node", request.node.trim_start_matches("nodes/"), "expected nodes/{uid}, or a UUID")?,
        request_id: id("request_id", &request.request_id, "expected a UUID, as in the header Mcpgw-Request-Id")?,
        outcome: wire::outcome_filter(&request.outcome)?,
        decision: wire::decision_filter(&request.decision)?,
        subject,
        server,
        target,
        method,
        rule,
        reason,
    })
}

async fn error_groups(api: &Api, caller: &Caller, request: &ListErrorGroupsRequest) -> Result<ListErrorGroupsResponse, Error> {
    texts(&[("server", &request.server), ("target", &request.target)])?;
    let outcome = match wire::outcome_filter(&request.outcome)? {
        None => None,
        Some(OutcomeFilter::Ended(outcome)) => Some(outcome),
        Some(OutcomeFilter::Pending | OutcomeFilter::Interrupted) => {
            return Err(Error::invalid("outcome", "expected denied, error, upstream_failed, gateway_failed, or nothing"));
        }
    };
    let filter = GroupFilter { server: request.server.clone(), target: request.target.clone(), outcome };
    let span = Span::of(request.since.as_ref(), None)?;
    let mut connection = api.core.store.connection().await?;
    let org = scope(caller, &mut connection, &request.parent).await?;
    let (org_id, [since, _]) = (org.map(|id| id.to_string()).unwrap_or_default(), span.binding());
    let binding = [ERRORS, &org_id, &request.server, &request.target, &request.outcome, &since];
    let pages = Pages::new(&api.core.custody, request.page_size, &binding)?;
    let window = span.window(org, pages.position(&request.page_token)?);
    let mut found = errors::error_groups(&mut connection, &window, &filter, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |row| mark(row.last_seen_at, row.id))?;
    Ok(ListErrorGroupsResponse { error_groups: found.into_iter().map(wire::error_group).collect(), next_page_token })
}

/// A request's id, and the time that it carries.
fn request_id(request_id: &str) -> Result<(Uuid, DateTime<Utc>), Error> {
    let expected = || Error::invalid("request_id", "expected a UUIDv7, as in the header Mcpgw-Request-Id");
    let id = Uuid::try_parse(request_id).ok().filter(|id| id.get_version_num() == 7).ok_or_else(expected)?;
    let (seconds, nanos) = id.get_timestamp().ok_or_else(expected)?.to_unix();
    let made_at = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, nanos));
    // The 48 bits of a UUIDv7 end in the year 10889; nothing was decided there, and Postgres could not be asked for it.
    let made_at = made_at.filter(|at| chrono::Datelike::year(at) < 9999).ok_or_else(expected)?;
    Ok((id, made_at))
}

async fn request_log(api: &Api, caller: &Caller, text: &str) -> Result<RequestLog, Error> {
    let (id, made_at) = request_id(text)?;
    let own = caller.org.as_ref().map(|org| vec![org.id]).unwrap_or_default();
    let orgs = if caller.platform_admin { None } else { Some(own.as_slice()) };
    let mut connection = api.core.store.connection().await?;
    let found = logs::request_log(&mut connection, id, made_at, orgs).await?;
    found.map(wire::request_log).ok_or_else(|| Error::NotFound(format!("the request {id}")))
}

/// The organisation whose rows may be read; none: all of them.
pub async fn scope(caller: &Caller, connection: &mut PgConnection, parent: &str) -> Result<Option<Uuid>, Error> {
    if parent.is_empty() {
        let only = "expected a parent: only platform administrators read the logs of every organisation";
        return if caller.platform_admin { Ok(None) } else { Err(Error::Denied(only.into())) };
    }
    let slug = aip::organization("parent", parent)?;
    Ok(Some(caller.organization(connection, slug, Hold::Read).await?.id))
}

/// Postgres has no text with a zero byte: such a filter matches nothing and is a mistake.
pub fn texts(filters: &[(&str, &String)]) -> Result<(), Error> {
    let wrong = filters.iter().filter(|(_, text)| text.contains('\0'));
    let violations: Vec<_> = wrong.map(|(field, _)| Violation::new(*field, "expected no zero byte")).collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

/// The time that a list is about.
struct Span {
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl Span {
    fn of(since: Option<&Timestamp>, until: Option<&Timestamp>) -> Result<Self, Error> {
        let since = since.map(|at| aip::moment("since", at)).transpose()?;
        let until = until.map(|at| aip::moment("until", at)).transpose()?;
        Ok(Self { since, until })
    }

    fn binding(&self) -> [String; 2] {
        [self.since, self.until].map(|at| at.map(|at| at.to_rfc3339()).unwrap_or_default())
    }

    fn window(&self, org: Option<Uuid>, after: Option<(i64, Uuid)>) -> Window {
        let after = after.and_then(|(micros, id)| Some(Position { at: DateTime::from_timestamp_micros(micros)?, id }));
        Window { org, since: self.since, until: self.until, after }
    }
}

/// Where a page ends; Postgres keeps microseconds.
fn mark(at: DateTime<Utc>, id: Uuid) -> (i64, Uuid) {
    (at.timestamp_micros(), id)
}
