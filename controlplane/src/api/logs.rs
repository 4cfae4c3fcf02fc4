//! LogService: what administrators did, and what MCP clients asked for. Reads only.
//!
//! A caller sees one organisation, its own; only platform administrators see all of them, and what belongs to none.

use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1::{
    GetRequestLogRequest, ListAuditLogsRequest, ListAuditLogsResponse, ListRequestLogsRequest, ListRequestLogsResponse,
    RequestLog, log_service_server::LogService,
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
};
use crate::{
    domain::Violation,
    store::logs::{self, Position, RequestFilter, Window},
};

mod wire;

const AUDIT: &str = "/mcpgw.admin.v1.LogService/ListAuditLogs";
const REQUESTS: &str = "/mcpgw.admin.v1.LogService/ListRequestLogs";

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
        Ok(Response::new(request_logs(self, &caller, &request).await?))
    }

    async fn get_request_log(&self, request: Request<GetRequestLogRequest>) -> Result<Response<RequestLog>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(request_log(self, &caller, &request.request_id).await?))
    }
}

async fn audit_logs(api: &Api, caller: &Caller, request: &ListAuditLogsRequest) -> Result<ListAuditLogsResponse, Error> {
    texts(&[("actor", &request.actor), ("action", &request.action)])?;
    let span = Span::of(request.since.as_ref(), request.until.as_ref())?;
    let mut connection = api.core.store.connection().await?;
    let org = scope(caller, &mut connection, &request.parent).await?;
    let (org_id, [since, until]) = (org.map(|id| id.to_string()).unwrap_or_default(), span.binding());
    let binding = [AUDIT, &org_id, &request.actor, &request.action, &since, &until];
    let pages = Pages::new(&api.core.custody, request.page_size, &binding)?;
    let window = span.window(org, pages.position(&request.page_token)?);
    let named = (request.actor.as_str(), request.action.as_str());
    let mut found = logs::audit_logs(&mut connection, &window, named, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |row| mark(row.occurred_at, row.id))?;
    Ok(ListAuditLogsResponse { audit_logs: found.into_iter().map(wire::audit_log).collect(), next_page_token })
}

async fn request_logs(api: &Api, caller: &Caller, request: &ListRequestLogsRequest) -> Result<ListRequestLogsResponse, Error> {
    texts(&[("subject", &request.subject), ("server", &request.server), ("target", &request.target)])?;
    let filter = RequestFilter {
        subject: request.subject.clone(),
        server: request.server.clone(),
        target: request.target.clone(),
        outcome: wire::outcome_filter(&request.outcome)?,
        decision: wire::decision_filter(&request.decision)?,
    };
    let span = Span::of(request.since.as_ref(), request.until.as_ref())?;
    let mut connection = api.core.store.connection().await?;
    let org = scope(caller, &mut connection, &request.parent).await?;
    let (org_id, [since, until]) = (org.map(|id| id.to_string()).unwrap_or_default(), span.binding());
    let ListRequestLogsRequest { subject, server, target, outcome, decision, .. } = request;
    let binding = [REQUESTS, &org_id, subject, server, target, outcome, decision, &since, &until];
    let pages = Pages::new(&api.core.custody, request.page_size, &binding)?;
    let window = span.window(org, pages.position(&request.page_token)?);
    let mut found = logs::request_logs(&mut connection, &window, &filter, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |row| mark(row.decided_at, row.request_id))?;
    Ok(ListRequestLogsResponse { request_logs: found.into_iter().map(wire::request_log).collect(), next_page_token })
}

async fn request_log(api: &Api, caller: &Caller, request_id: &str) -> Result<RequestLog, Error> {
    let expected = || Error::invalid("request_id", "expected a UUIDv7, as in the header Mcpgw-Request-Id");
    let id = Uuid::try_parse(request_id).ok().filter(|id| id.get_version_num() == 7).ok_or_else(expected)?;
    let (seconds, nanos) = id.get_timestamp().ok_or_else(expected)?.to_unix();
    let made_at = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, nanos));
    // The 48 bits of a UUIDv7 end in the year 10889; nothing was decided there, and Postgres could not be asked for it.
    let made_at = made_at.filter(|at| chrono::Datelike::year(at) < 9999).ok_or_else(expected)?;
    let own = caller.org.as_ref().map(|org| vec![org.id]).unwrap_or_default();
    let orgs = if caller.platform_admin { None } else { Some(own.as_slice()) };
    let mut connection = api.core.store.connection().await?;
    let found = logs::request_log(&mut connection, id, made_at, orgs).await?;
    found.map(wire::request_log).ok_or_else(|| Error::NotFound(format!("the request {id}")))
}

/// The organisation whose rows may be read; none: all of them.
async fn scope(caller: &Caller, connection: &mut PgConnection, parent: &str) -> Result<Option<Uuid>, Error> {
    if parent.is_empty() {
        let only = "expected a parent: only platform administrators read the logs of every organisation";
        return if caller.platform_admin { Ok(None) } else { Err(Error::Denied(only.into())) };
    }
    let slug = aip::organization("parent", parent)?;
    Ok(Some(caller.organization(connection, slug, Hold::Read).await?.id))
}

/// Postgres has no text with a zero byte: such a filter matches nothing and is a mistake.
fn texts(filters: &[(&str, &String)]) -> Result<(), Error> {
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
