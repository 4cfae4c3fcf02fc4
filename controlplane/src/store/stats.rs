//! Reads of `rollup_minutes`: sums by point of time and dimension. Written by `store::accounts`, never here.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

use super::{Error, logs::like};
use crate::domain::latency;

/// What sums are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    Organization,
    Server,
    Method,
    Target,
    Decision,
    Outcome,
}

/// Which calls, and how the time is cut.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// None: of every organisation and of none.
    pub org: Option<Uuid>,
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub step_seconds: i64,
    pub by: Vec<Dimension>,
    pub server: String,
    pub method: String,
    pub target: String,
    pub decision: Option<i16>,
    pub outcome: Option<i16>,
}

/// Sums of one point of one series, apart for each outcome.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Sums {
    /// Which point, from 0.
    pub point: i64,
    /// Empty where sums are not made by it; so are the others.
    pub organization: String,
    pub server: String,
    pub method: String,
    pub target: String,
    /// 0 where sums are not made by it.
    pub decision: i16,
    pub outcome: i16,
    pub calls: i64,
    pub request_bytes: i64,
    pub response_bytes: i64,
    pub total_us: i64,
    pub buckets: Vec<i64>,
}

/// The sums, in no order.
pub async fn sums(connection: &mut PgConnection, wanted: &Wanted) -> Result<Vec<Sums>, Error> {
    let column = |dimension, text: &'static str, none: &'static str| if wanted.by.contains(&dimension) { text } else { none };
    let mut select = format!(
        "SELECT {}, {}, {}, {}, {}, r.outcome, ",
        column(Dimension::Organization, "coalesce(o.slug, '') AS organization", "'' AS organization"),
        column(Dimension::Server, "r.server", "'' AS server"),
        column(Dimension::Method, "r.method", "'' AS method"),
        column(Dimension::Target, "r.target", "'' AS target"),
        column(Dimension::Decision, "r.decision", "0::smallint AS decision"),
    );
    for sum in ["calls", "request_bytes", "response_bytes", "total_us"] {
        let _ = write!(select, "sum(r.{sum})::bigint AS {sum}, "); // to a String
    }
    let buckets: Vec<String> = (1..=latency::COUNT).map(|n| format!("sum(r.buckets[{n}])::bigint")).collect();
    let _ = write!(select, "ARRAY[{}] AS buckets, ", buckets.join(", "));
    let mut query = QueryBuilder::new(select); // made of constants and numbers only
    query.push("(extract(epoch FROM r.minute)::bigint - ").push_bind(wanted.since.timestamp());
    query
        .push(") / ")
        .push_bind(wanted.step_seconds)
        .push(" AS point FROM rollup_minutes r LEFT JOIN organizations o ON o.id = r.org_id");
    query.push(" WHERE r.minute >= ").push_bind(wanted.since).push(" AND r.minute < ").push_bind(wanted.until);
    if let Some(org) = wanted.org {
        query.push(" AND r.org_id = ").push_bind(org);
    }
    for (column, pattern) in [("server", &wanted.server), ("method", &wanted.method), ("target", &wanted.target)] {
        if !pattern.is_empty() {
            query.push(" AND r.").push(column).push(" LIKE ").push_bind(like(pattern));
        }
    }
    for (column, number) in [("decision", wanted.decision), ("outcome", wanted.outcome)] {
        if let Some(number) = number {
            query.push(" AND r.").push(column).push(" = ").push_bind(number);
        }
    }
    query.push(" GROUP BY 1, 2, 3, 4, 5, 6, point HAVING sum(r.calls) <> 0");
    Ok(query.build_query_as().fetch_all(connection).await?)
}
