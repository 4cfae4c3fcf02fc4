//! One-time rights to join a pool, as rows. A secret is only ever here as its hash.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::Labels;

/// A one-time right to join.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct JoinToken {
    pub id: String,
    pub pool: String,
    /// What the node that uses it begins with.
    #[sqlx(json)]
    pub labels: Labels,
    pub expires_at: DateTime<Utc>,
    pub used_at: Option<DateTime<Utc>>,
    pub node_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
}

impl Store {
    /// One join token.
    pub async fn join_token(&self, id: &str) -> Result<Option<JoinToken>, Error> {
        let query =
            sqlx::query_as("SELECT id, pool, labels, expires_at, used_at, node_id, created_at FROM join_tokens WHERE id = $1");
        Ok(query.bind(id).fetch_optional(&mut *self.connection().await?).await?)
    }

    /// Join tokens after `after`, by id.
    pub async fn join_tokens(&self, after: &str, limit: i64) -> Result<Vec<JoinToken>, Error> {
        let query = sqlx::query_as(
            "SELECT id, pool, labels, expires_at, used_at, node_id, created_at FROM join_tokens WHERE id COLLATE \"C\" > $1 \
             ORDER BY id COLLATE \"C\" LIMIT $2",
        );
        Ok(query.bind(after).bind(limit).fetch_all(&mut *self.connection().await?).await?)
    }
}

/// Adds a join token.
pub async fn insert(connection: &mut PgConnection, token: &JoinToken, secret_sha256: &[u8; 32]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO join_tokens (id, secret_sha256, pool, labels, expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&token.id)
    .bind(secret_sha256.as_slice())
    .bind(&token.pool)
    .bind(Json(&token.labels))
    .bind(token.expires_at)
    .bind(token.created_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes a join token. False: there is none.
pub async fn delete(connection: &mut PgConnection, id: &str) -> Result<bool, Error> {
    Ok(sqlx::query("DELETE FROM join_tokens WHERE id = $1").bind(id).execute(connection).await?.rows_affected() == 1)
}

/// Uses a join token up for `node`: exactly one caller ever gets its pool and labels.
pub async fn consume(
    connection: &mut PgConnection,
    id: &str,
    secret_sha256: &[u8; 32],
    node: Uuid,
) -> Result<Option<(String, Labels)>, Error> {
    let query = sqlx::query_as(
        "UPDATE join_tokens SET used_at = now(), node_id = $3 \
         WHERE id = $1 AND secret_sha256 = $2 AND used_at IS NULL AND expires_at > now() RETURNING pool, labels",
    );
    let used: Option<(String, Json<Labels>)> =
        query.bind(id).bind(secret_sha256.as_slice()).bind(node).fetch_optional(connection).await?;
    Ok(used.map(|(pool, Json(labels))| (pool, labels)))
}
