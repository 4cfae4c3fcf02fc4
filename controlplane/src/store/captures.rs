//! Rows of `captured_payloads`: arguments and results of calls whose organisation asked for that. Kept for a time of their own.

use chrono::{DateTime, Utc};
use mcp_gateway::snapshot::capture::DEFAULT_DAYS;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use crate::ingest::record::{Capture, number};

/// A payload as it is shown.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct CapturedPayload {
    pub decided_at: DateTime<Utc>,
    /// `node.v1.PayloadKind`.
    pub kind: i16,
    pub text: String,
    pub bytes: i64,
    pub cut: bool,
    pub redactions: i64,
    pub org_id: Uuid,
    pub org_slug: String,
}

/// Inserts what a batch brought. A payload of an organisation that does not exist, or asks for none of that kind, is not kept: nodes are not
/// trusted with that. Of two under one id the first stands.
pub async fn insert(connection: &mut PgConnection, captures: &[Capture]) -> Result<(), Error> {
    if captures.is_empty() {
        return Ok(());
    }
    let insert = "INSERT INTO captured_payloads (request_id, decided_at, kind, org_id, text, bytes, cut, redactions) \
        SELECT r.request_id, r.decided_at, r.kind, r.org_id, r.text, r.bytes, r.cut, r.redactions \
        FROM unnest($1::uuid[], $2::timestamptz[], $3::smallint[], $4::uuid[], $5::text[], $6::bigint[], $7::boolean[], $8::bigint[]) \
        AS r (request_id, decided_at, kind, org_id, text, bytes, cut, redactions) \
        JOIN organizations o ON o.id = r.org_id AND (r.kind = 1 AND o.capture_arguments OR r.kind = 2 AND o.capture_results) \
        ON CONFLICT (request_id, kind) DO NOTHING";
    sqlx::query(insert)
        .bind(captures.iter().map(|it| it.key.1).collect::<Vec<_>>())
        .bind(captures.iter().map(|it| it.key.0).collect::<Vec<_>>())
        .bind(captures.iter().map(|it| i16::try_from(it.captured.kind).unwrap_or_default()).collect::<Vec<_>>())
        .bind(captures.iter().map(|it| it.org_id).collect::<Vec<_>>())
        .bind(captures.iter().map(|it| it.captured.text.as_str()).collect::<Vec<_>>())
        .bind(captures.iter().map(|it| number(it.captured.bytes)).collect::<Vec<_>>())
        .bind(captures.iter().map(|it| it.captured.cut).collect::<Vec<_>>())
        .bind(captures.iter().map(|it| i64::from(it.captured.redactions)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// What is kept of a request, of this organisation only; none: of any.
pub async fn of(connection: &mut PgConnection, request_id: Uuid, org: Option<Uuid>) -> Result<Vec<CapturedPayload>, Error> {
    let found = "SELECT p.decided_at, p.kind, p.text, p.bytes, p.cut, p.redactions, p.org_id, o.slug AS org_slug \
        FROM captured_payloads p JOIN organizations o ON o.id = p.org_id \
        WHERE p.request_id = $1 AND ($2::uuid IS NULL OR p.org_id = $2) ORDER BY p.kind";
    Ok(sqlx::query_as(found).bind(request_id).bind(org).fetch_all(connection).await?)
}

/// Deletes what is older than its organisation keeps it, and what is of an organisation that is gone. How many.
pub async fn expire(connection: &mut PgConnection) -> Result<u64, Error> {
    let expired = "DELETE FROM captured_payloads p WHERE NOT EXISTS (SELECT FROM organizations o WHERE o.id = p.org_id AND \
        p.captured_at > now() - make_interval(days => CASE o.capture_retention_days WHEN 0 THEN $1 ELSE o.capture_retention_days END))";
    let default_days = i32::try_from(DEFAULT_DAYS).unwrap_or(i32::MAX);
    Ok(sqlx::query(expired).bind(default_days).execute(connection).await?.rows_affected())
}
