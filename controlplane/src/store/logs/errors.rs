//! Reads of `error_groups`, last seen first. Written by `store::accounts`, never here.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

use super::{Error, Window, bound, text};

/// A row of `error_groups` with its organisation's slug.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ErrorGroup {
    pub id: Uuid,
    /// None: no target was found, or the organisation is gone.
    pub org_slug: Option<String>,
    /// Nil: none.
    pub server_id: Uuid,
    pub server: String,
    pub method: String,
    pub target: String,
    pub outcome: i16,
    pub code: i32,
    pub reason: String,
    pub upstream: String,
    pub shape: i64,
    pub calls: i64,
    pub first_seen_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    pub sample_id: Uuid,
}

/// Which groups, beside the window. Empty texts do not filter; `*` in others is any text.
#[derive(Debug, Clone, Default)]
pub struct GroupFilter {
    pub server: String,
    pub target: String,
    pub outcome: Option<i16>,
}

/// At most `limit` groups; the window is about when they were last seen.
pub async fn error_groups(
    connection: &mut PgConnection,
    window: &Window,
    filter: &GroupFilter,
    limit: i64,
) -> Result<Vec<ErrorGroup>, Error> {
    let mut query = QueryBuilder::new(
        "SELECT r.*, o.slug AS org_slug FROM error_groups r LEFT JOIN organizations o ON o.id = r.org_id WHERE true",
    );
    text(&mut query, "server", &filter.server);
    text(&mut query, "target", &filter.target);
    if let Some(outcome) = filter.outcome {
        query.push(" AND r.outcome = ").push_bind(outcome);
    }
    bound(&mut query, window, "last_seen_at", "id", limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}
