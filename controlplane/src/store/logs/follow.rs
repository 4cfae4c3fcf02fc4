//! The logs in order of arrival: what a batch brought, and what was there before.
//!
//! Numbers are drawn before their transaction commits, so that a later one may be visible first; which of them are settled is for
//! [`crate::follow`] to find out, and nothing here is asked for a number that is not.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{ALIVE, AUDIT_LOGS, AuditFilter, AuditLog, Error, RequestFilter, RequestLog, requests};
use crate::store::Store;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    Requests,
    Audit,
}

/// Numbers of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Visible, in order.
    pub numbers: Vec<i64>,
    /// Every transaction with a smaller id is over.
    pub oldest_running: i64,
}

impl Store {
    /// At most `limit` numbers behind `after` that are visible.
    pub async fn arrived(&self, log: Log, after: i64, limit: i64) -> Result<Seen, Error> {
        // One statement sees one moment.
        let query = match log {
            Log::Requests => {
                "SELECT ARRAY(SELECT number FROM log_arrivals WHERE number > $1 ORDER BY number LIMIT $2), \
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            }
            Log::Audit => {
                "SELECT ARRAY(SELECT arrival FROM audit_logs WHERE arrival > $1 ORDER BY arrival LIMIT $2), \
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            }
        };
        let seen = sqlx::query_as(query).bind(after).bind(limit).fetch_one(&mut *self.connection().await?).await?;
        let (numbers, oldest_running): (Vec<i64>, i64) = seen;
        Ok(Seen { numbers, oldest_running })
    }

    /// The last number that was drawn.
    pub async fn last_drawn(&self, log: Log) -> Result<i64, Error> {
        let query = match log {
            Log::Requests => "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM log_arrival_numbers",
            Log::Audit => "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM audit_arrival_numbers",
        };
        Ok(sqlx::query_scalar(query).fetch_one(&mut *self.connection().await?).await?)
    }

    /// A transaction id that is greater than any given so far.
    pub async fn transaction_mark(&self) -> Result<i64, Error> {
        let query = sqlx::query_scalar("SELECT pg_current_xact_id()::text::bigint");
        Ok(query.fetch_one(&mut *self.connection().await?).await?)
    }
}

/// What one batch brought.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Arrival {
    pub number: i64,
    done_at: Vec<DateTime<Utc>>,
    done_ids: Vec<Uuid>,
    open_at: Vec<DateTime<Utc>>,
    open_ids: Vec<Uuid>,
}

impl Arrival {
    /// The rows' keys: those that are complete, and, if wanted, those that are open.
    pub fn keys(&self, include_open: bool) -> impl Iterator<Item = (DateTime<Utc>, Uuid)> + '_ {
        let done = self.done_at.iter().copied().zip(self.done_ids.iter().copied());
        let open = self.open_at.iter().copied().zip(self.open_ids.iter().copied());
        done.chain(open.take(if include_open { usize::MAX } else { 0 }))
    }
}

/// At most `limit` batches behind `after` and up to `upto`.
pub async fn arrivals(connection: &mut PgConnection, after: i64, upto: i64, limit: i64) -> Result<Vec<Arrival>, Error> {
    let query = "SELECT number, done_at, done_ids, open_at, open_ids FROM log_arrivals WHERE number > $1 AND number <= $2 \
                 ORDER BY number LIMIT $3";
    Ok(sqlx::query_as(query).bind(after).bind(upto).bind(limit).fetch_all(connection).await?)
}

/// Whether what arrived behind `after` is still known, all of it.
pub async fn is_kept(connection: &mut PgConnection, after: i64) -> Result<bool, Error> {
    // The first number does not tell: one before it may have been drawn and never come. What was forgotten leaves an empty batch behind.
    let query = "SELECT coalesce((SELECT number <= $1 OR done_ids <> '{}' OR open_ids <> '{}' FROM log_arrivals \
                 ORDER BY number LIMIT 1), true)";
    Ok(sqlx::query_scalar(query).bind(after).fetch_one(connection).await?)
}

/// Forgets what arrived more than an hour ago: who falls behind further than this begins again. How many batches.
pub async fn forget(connection: &mut PgConnection) -> Result<u64, Error> {
    let query = "WITH old AS (SELECT max(number) AS upto FROM log_arrivals WHERE arrived_at < now() - interval '1 hour'), \
                 emptied AS (UPDATE log_arrivals a SET done_at = '{}', done_ids = '{}', open_at = '{}', open_ids = '{}' \
                   FROM old WHERE a.number = old.upto AND (a.done_ids <> '{}' OR a.open_ids <> '{}')) \
                 DELETE FROM log_arrivals a USING old WHERE a.number < old.upto";
    Ok(sqlx::query(query).execute(connection).await?.rows_affected())
}

/// Whose requests, and which.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// None: of every organisation and of none.
    pub org: Option<Uuid>,
    pub since: Option<DateTime<Utc>>,
    pub include_open: bool,
    pub filter: RequestFilter,
}

/// The requests with these keys, in this order.
pub async fn requests_of(
    connection: &mut PgConnection,
    keys: &[(DateTime<Utc>, Uuid)],
    wanted: &Wanted,
) -> Result<Vec<RequestLog>, Error> {
    let (Some(first), Some(last)) = (keys.iter().map(|key| key.0).min(), keys.iter().map(|key| key.0).max()) else {
        return Ok(Vec::new());
    };
    let (at, ids): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let mut query = QueryBuilder::new("SELECT r.*, o.slug AS org_slug, ");
    query.push(ALIVE).push(" AS alive FROM unnest(").push_bind(at).push("::timestamptz[], ").push_bind(ids);
    query.push(
        "::uuid[]) WITH ORDINALITY AS k (at, id, place) JOIN request_logs r ON r.decided_at = k.at AND r.request_id = k.id ",
    );
    query.push("LEFT JOIN organizations o ON o.id = r.org_id WHERE r.decided_at >= ").push_bind(first);
    query.push(" AND r.decided_at <= ").push_bind(last);
    wanted.push(&mut query);
    query.push(" ORDER BY k.place");
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// At most `limit` requests that arrived in batches up to `line`, behind `after`, oldest first. What came later is for the batches to tell.
pub async fn requests_before(
    connection: &mut PgConnection,
    line: i64,
    after: (DateTime<Utc>, Uuid),
    wanted: &Wanted,
    limit: i64,
) -> Result<Vec<RequestLog>, Error> {
    let mut query = requests();
    query.push(" AND r.decision <> 0 AND r.decided_at >= ").push_bind(after.0);
    query.push(" AND (r.decided_at, r.request_id) > (").push_bind(after.0).push(", ").push_bind(after.1).push(")");
    if !wanted.include_open {
        query.push(" AND (r.outcome IS NOT NULL OR r.interrupted_at IS NOT NULL)");
    }
    query.push(" AND NOT EXISTS (SELECT 1 FROM log_arrivals a, unnest(a.done_ids || a.open_ids) AS later (id) WHERE a.number > ");
    query.push_bind(line).push(" AND later.id = r.request_id)");
    wanted.push(&mut query);
    query.push(" ORDER BY r.decided_at, r.request_id LIMIT ").push_bind(limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

impl Wanted {
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(org) = self.org {
            query.push(" AND r.org_id = ").push_bind(org);
        }
        if let Some(since) = self.since {
            query.push(" AND r.decided_at >= ").push_bind(since);
        }
        self.filter.push(query);
    }
}

/// An administrative record and its number.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Numbered {
    pub arrival: i64,
    #[sqlx(flatten)]
    pub log: AuditLog,
}

/// Whose administrative records, and which.
#[derive(Debug, Clone)]
pub struct WantedAudit {
    /// None: of every organisation and of none.
    pub org: Option<Uuid>,
    pub since: Option<DateTime<Utc>>,
    pub filter: AuditFilter,
}

/// At most `limit` administrative records behind `after` and up to `upto`, in order of arrival.
pub async fn audit_logs(
    connection: &mut PgConnection,
    (after, upto): (i64, i64),
    wanted: &WantedAudit,
    limit: i64,
) -> Result<Vec<Numbered>, Error> {
    let mut query = QueryBuilder::new(AUDIT_LOGS.replacen("SELECT ", "SELECT r.arrival, ", 1));
    query.push(" AND r.arrival > ").push_bind(after).push(" AND r.arrival <= ").push_bind(upto);
    if let Some(org) = wanted.org {
        query.push(" AND r.org_id = ").push_bind(org);
    }
    if let Some(since) = wanted.since {
        query.push(" AND r.occurred_at >= ").push_bind(since);
    }
    wanted.filter.push(&mut query);
    query.push(" ORDER BY r.arrival LIMIT ").push_bind(limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}
