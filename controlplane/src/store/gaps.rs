//! Rows of `record_gaps`: which records nodes left out, and how many.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    Error,
    logs::{Position, Window},
};
use crate::ingest::record::Missing;

/// A gap as it is shown.
#[derive(Debug, Clone, FromRow)]
pub struct Gap {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    /// Of the organisation, if it is still there.
    pub org_slug: Option<String>,
    pub node_id: Uuid,
    pub from_at: DateTime<Utc>,
    pub until_at: DateTime<Utc>,
    pub access: i64,
    pub audit: i64,
}

/// Adds what a batch tells; what is known already stays as it is.
pub async fn insert(connection: &mut PgConnection, node: Uuid, missing: &[Missing]) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO record_gaps (id, org_id, node_id, from_at, until_at, access, audit) \
         SELECT g.id, g.org_id, $1, g.from_at, g.until_at, g.access, g.audit \
         FROM unnest($2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::bigint[], $7::bigint[]) \
         AS g (id, org_id, from_at, until_at, access, audit) ON CONFLICT DO NOTHING",
    )
    .bind(node)
    .bind(missing.iter().map(|it| it.id).collect::<Vec<_>>())
    .bind(missing.iter().map(|it| it.org).collect::<Vec<_>>())
    .bind(missing.iter().map(|it| it.from).collect::<Vec<_>>())
    .bind(missing.iter().map(|it| it.until).collect::<Vec<_>>())
    .bind(missing.iter().map(|it| it.access).collect::<Vec<_>>())
    .bind(missing.iter().map(|it| it.audit).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of gaps, the newest first.
pub async fn page(connection: &mut PgConnection, window: &Window, most: i64) -> Result<Vec<Gap>, Error> {
    let (after_at, after_id) = window.after.map(|Position { at, id }| (at, id)).unzip();
    let query = sqlx::query_as(
        "SELECT g.*, o.slug AS org_slug FROM record_gaps g LEFT JOIN organizations o ON o.id = g.org_id \
         WHERE ($1::uuid IS NULL OR g.org_id = $1) AND ($2::timestamptz IS NULL OR g.until_at >= $2) \
         AND ($3::timestamptz IS NULL OR g.from_at < $3) \
         AND ($4::timestamptz IS NULL OR (g.until_at, g.id) < ($4, $5)) ORDER BY g.until_at DESC, g.id DESC LIMIT $6",
    );
    let query = query.bind(window.org).bind(window.since).bind(window.until).bind(after_at).bind(after_id);
    Ok(query.bind(most).fetch_all(connection).await?)
}
