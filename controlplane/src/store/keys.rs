//! Rows of the table `keys`: wrapped key material. Never unwraps anything; called by `keys`, and by `api` for lists.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{Error, Store};

/// One key as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    pub id: String,
    pub purpose: String,
    /// `next`, `current` or `retiring`.
    pub state: String,
    pub wrapped: Vec<u8>,
    pub public: Vec<u8>,
    pub created_at: DateTime<Utc>,
    /// Since when it is retiring.
    pub retired_at: Option<DateTime<Utc>>,
}

/// Any fixed number: the lock that replicas take to create and to move keys, one after the other.
const LOCK: i64 = 0x6d63_7067_775f_6b65;

impl Store {
    /// A transaction that holds the lock for creating keys.
    pub async fn lock_keys(&self) -> Result<Transaction<'static, Postgres>, Error> {
        let mut tx = self.pool().begin().await?;
        hold(&mut tx).await?;
        Ok(tx)
    }

    /// Keys after `after`, by id; of one purpose, or all.
    pub async fn custody_keys(&self, purpose: Option<&str>, after: &str, limit: i64) -> Result<Vec<Row>, Error> {
        let query = sqlx::query_as(
            "SELECT id, purpose, state, wrapped, public, created_at, retired_at FROM keys \
             WHERE ($1::text IS NULL OR purpose = $1) AND id COLLATE \"C\" > $2 ORDER BY id COLLATE \"C\" LIMIT $3",
        );
        Ok(query.bind(purpose).bind(after).bind(limit).fetch_all(&mut *self.connection().await?).await?)
    }
}

/// Takes the lock for creating and moving keys, to the end of the transaction.
pub async fn hold(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(connection).await?;
    Ok(())
}

/// Every key, oldest first.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<Row>, Error> {
    let query = "SELECT id, purpose, state, wrapped, public, created_at, retired_at FROM keys ORDER BY created_at, id";
    Ok(sqlx::query_as(query).fetch_all(connection).await?)
}

/// Adds a key in its state.
pub async fn insert(connection: &mut PgConnection, row: &Row) -> Result<(), Error> {
    sqlx::query("INSERT INTO keys (id, purpose, state, wrapped, public, created_at) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(&row.id)
        .bind(&row.purpose)
        .bind(&row.state)
        .bind(&row.wrapped)
        .bind(&row.public)
        .bind(row.created_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Retires the current key of a purpose and makes the next one current. The lock is held.
pub async fn promote(connection: &mut PgConnection, purpose: &str) -> Result<(), Error> {
    let retire = "UPDATE keys SET state = 'retiring', retired_at = now() WHERE purpose = $1 AND state = 'current'";
    sqlx::query(retire).bind(purpose).execute(&mut *connection).await?;
    let promote = "UPDATE keys SET state = 'current' WHERE purpose = $1 AND state = 'next'";
    sqlx::query(promote).bind(purpose).execute(connection).await?;
    Ok(())
}

/// Removes the keys of a purpose that have been retiring for longer than `kept`.
pub async fn remove_retired(connection: &mut PgConnection, purpose: &str, kept: Duration) -> Result<(), Error> {
    sqlx::query("DELETE FROM keys WHERE purpose = $1 AND state = 'retiring' AND retired_at < now() - make_interval(secs => $2)")
        .bind(purpose)
        .bind(kept.as_secs_f64())
        .execute(connection)
        .await?;
    Ok(())
}

/// Servers that send a credential, each with the credential as sealed; held to the end of the transaction.
pub async fn sealed_credentials(connection: &mut PgConnection) -> Result<Vec<(Uuid, Vec<u8>)>, Error> {
    let query = "SELECT id, credential_wrapped FROM mcp_servers WHERE credential_wrapped IS NOT NULL ORDER BY id FOR UPDATE";
    Ok(sqlx::query_as(query).fetch_all(connection).await?)
}

/// Replaces a server's sealed credential by the same one under another key: no change that anybody could see.
pub async fn reseal_credential(connection: &mut PgConnection, server: Uuid, wrapped: &[u8]) -> Result<(), Error> {
    let query = sqlx::query("UPDATE mcp_servers SET credential_wrapped = $1 WHERE id = $2").bind(wrapped).bind(server);
    query.execute(connection).await?;
    Ok(())
}
