//! Reads of `audit_logs` and `request_logs`, newest first. Written by `store::audit` and `store::ingest`, never here.
//!
//! Every read is bounded by time where it can be, so that it touches few of the daily partitions.

use chrono::{DateTime, Duration, Utc};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::Error;

pub mod errors;
pub mod follow;

/// A row of `audit_logs`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct AuditLog {
    pub id: Uuid,
    pub occurred_at: DateTime<Utc>,
    pub org_slug: String,
    pub actor: String,
    pub action: String,
    pub resource: String,
    pub outcome: String,
    pub config_version: i64,
    pub detail: serde_json::Value,
    pub client_address: String,
}

/// A row of `request_logs` with its organisation's slug.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct RequestLog {
    pub request_id: Uuid,
    pub decided_at: DateTime<Utc>,
    pub node_id: Uuid,
    pub boot_id: Uuid,
    pub lane: i32,
    pub seq: i64,
    /// `node.v1.AuditClass`.
    pub class: i16,
    /// None: no target was found, or the organisation is gone.
    pub org_slug: Option<String>,
    pub server_id: Option<Uuid>,
    pub server: String,
    pub subject: String,
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    /// `node.v1.Via`.
    pub via: i16,
    pub credential_id: String,
    pub client_address: String,
    pub method: String,
    pub target: String,
    pub client_protocol_version: String,
    pub client_transport: String,
    pub client_era: String,
    pub server_transport: String,
    pub server_era: String,
    /// `node.v1.Decision`.
    pub decision: i16,
    pub rule_id: String,
    pub rule: String,
    pub mode: String,
    pub reason: String,
    pub config_epoch: i64,
    pub config_version: i64,
    pub org_digest: Vec<u8>,
    pub request_bytes: i64,
    pub arguments_digest: Vec<u8>,
    pub session: String,
    /// `node.v1.Outcome`; none: no end is known.
    pub outcome: Option<i16>,
    /// Whether an end may still come: see [`ALIVE`].
    pub alive: bool,
    pub status: i32,
    pub error_code: i32,
    pub response_bytes: i64,
    pub upstream: String,
    pub decide_us: i64,
    pub upstream_us: i64,
    pub total_us: i64,
    pub stage_us: Vec<i64>,
    pub events: i64,
}

/// Where a page ended: the next one begins with what is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub at: DateTime<Utc>,
    pub id: Uuid,
}

/// Which rows, and from where.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// None: of every organisation and of none.
    pub org: Option<Uuid>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    pub after: Option<Position>,
}

/// How an outcome is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeFilter {
    Ended(i16),
    Pending,
    Interrupted,
}

/// Which requests, beside the window. Empty texts do not filter; `*` in others is any text.
#[derive(Debug, Clone, Default)]
pub struct RequestFilter {
    pub subject: String,
    pub server: String,
    pub target: String,
    pub method: String,
    /// Name or id.
    pub rule: String,
    pub reason: String,
    pub node: Option<Uuid>,
    pub request_id: Option<Uuid>,
    pub outcome: Option<OutcomeFilter>,
    pub decision: Option<i16>,
}

/// Which administrative records, beside the window. Empty texts do not filter; `*` in others is any text.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub actor: String,
    pub action: String,
    pub resource: String,
    pub outcome: String,
}

/// An end may still come while the row's process run is the newest of its node (boot ids are UUIDv7: the greatest is the newest) and
/// the node was seen within a minute. Else the call is `interrupted`: its node, or that run of it, is gone.
const ALIVE: &str = "(EXISTS (SELECT 1 FROM node_status s WHERE s.node_id = r.node_id AND s.last_seen_at > now() - interval '60 s') \
    AND NOT EXISTS (SELECT 1 FROM ship_cursor c WHERE c.node_id = r.node_id AND c.boot_id > r.boot_id))";

/// A request id carries the time of its making; the decision falls within this of it, also where a clock was set meanwhile.
const DECIDED_WITHIN: Duration = Duration::days(1);

/// At most `limit` administrative records.
pub async fn audit_logs(
    connection: &mut PgConnection,
    window: &Window,
    filter: &AuditFilter,
    limit: i64,
) -> Result<Vec<AuditLog>, Error> {
    let mut query = QueryBuilder::new(AUDIT_LOGS);
    filter.push(&mut query);
    bound(&mut query, window, "occurred_at", "id", limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// At most `limit` requests.
pub async fn request_logs(
    connection: &mut PgConnection,
    window: &Window,
    filter: &RequestFilter,
    limit: i64,
) -> Result<Vec<RequestLog>, Error> {
    let mut query = requests();
    filter.push(&mut query);
    bound(&mut query, window, "decided_at", "request_id", limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// One request, of `orgs` only; none: of any organisation or none. `made_at` is the time that the id carries.
pub async fn request_log(
    connection: &mut PgConnection,
    request_id: Uuid,
    made_at: DateTime<Utc>,
    orgs: Option<&[Uuid]>,
) -> Result<Option<RequestLog>, Error> {
    let mut query = requests();
    query.push(" AND r.request_id = ").push_bind(request_id);
    query.push(" AND r.decided_at >= ").push_bind(made_at - DECIDED_WITHIN);
    query.push(" AND r.decided_at <= ").push_bind(made_at + DECIDED_WITHIN);
    if let Some(orgs) = orgs {
        query.push(" AND r.org_id = ANY (").push_bind(orgs.to_vec()).push(")");
    }
    query.push(" ORDER BY r.decided_at LIMIT 1"); // a node that reports an id twice cannot hide the first report
    Ok(query.build_query_as().fetch_optional(connection).await?)
}

const AUDIT_LOGS: &str = "SELECT r.id, r.occurred_at, r.org_slug, r.actor, r.action, r.resource, r.outcome, r.config_version, r.detail, \
    r.client_address FROM audit_logs r WHERE true";

impl AuditFilter {
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        let Self { actor, action, resource, outcome } = self;
        for (column, wanted) in [("actor", actor), ("action", action), ("resource", resource), ("outcome", outcome)] {
            text(query, column, wanted);
        }
    }
}

impl RequestFilter {
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        let Self { subject, server, target, method, reason, .. } = self;
        let texts = [("subject", subject), ("server", server), ("target", target), ("method", method), ("reason", reason)];
        for (column, wanted) in texts {
            text(query, column, wanted);
        }
        if !self.rule.is_empty() {
            query
                .push(" AND (r.rule_id = ")
                .push_bind(self.rule.clone())
                .push(" OR r.rule LIKE ")
                .push_bind(like(&self.rule))
                .push(")");
        }
        if let Some(node) = self.node {
            query.push(" AND r.node_id = ").push_bind(node);
        }
        if let Some(request_id) = self.request_id {
            query.push(" AND r.request_id = ").push_bind(request_id);
        }
        if let Some(decision) = self.decision {
            query.push(" AND r.decision = ").push_bind(decision);
        }
        match self.outcome {
            None => {}
            Some(OutcomeFilter::Ended(outcome)) => {
                query.push(" AND r.outcome = ").push_bind(outcome);
            }
            Some(OutcomeFilter::Pending) => {
                query.push(" AND r.outcome IS NULL AND ").push(ALIVE);
            }
            Some(OutcomeFilter::Interrupted) => {
                query.push(" AND r.outcome IS NULL AND NOT ").push(ALIVE);
            }
        }
    }
}

fn requests() -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT r.*, o.slug AS org_slug, ");
    query.push(ALIVE).push(" AS alive FROM request_logs r LEFT JOIN organizations o ON o.id = r.org_id WHERE true");
    query
}

fn text(query: &mut QueryBuilder<Postgres>, column: &'static str, wanted: &str) {
    match wanted {
        "" => {}
        _ if wanted.contains('*') => drop(query.push(" AND r.").push(column).push(" LIKE ").push_bind(like(wanted))),
        _ => drop(query.push(" AND r.").push(column).push(" = ").push_bind(wanted.to_owned())),
    }
}

/// A pattern as LIKE has it: `*` is any text, everything else itself.
pub(super) fn like(pattern: &str) -> String {
    pattern.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_").replace('*', "%")
}

/// Scope, time and place, then the order and the limit. The time is also compared alone: that is what picks partitions.
fn bound(query: &mut QueryBuilder<Postgres>, window: &Window, time: &'static str, id: &'static str, limit: i64) {
    if let Some(org) = window.org {
        query.push(" AND r.org_id = ").push_bind(org);
    }
    if let Some(since) = window.since {
        query.push(" AND r.").push(time).push(" >= ").push_bind(since);
    }
    if let Some(until) = window.until {
        query.push(" AND r.").push(time).push(" < ").push_bind(until);
    }
    if let Some(Position { at, id: last }) = window.after {
        query.push(" AND r.").push(time).push(" <= ").push_bind(at);
        query.push(" AND (r.").push(time).push(", r.").push(id).push(") < (").push_bind(at).push(", ").push_bind(last).push(")");
    }
    query.push(" ORDER BY r.").push(time).push(" DESC, r.").push(id).push(" DESC LIMIT ").push_bind(limit);
}
