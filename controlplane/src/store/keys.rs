//! Rows of the table `keys`: wrapped key material. Never unwraps anything; called by `keys` alone.

use sqlx::{Postgres, Transaction};

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
}

/// Any fixed number: the lock that replicas take to create missing keys once.
const CREATE_LOCK: i64 = 0x6d63_7067_775f_6b65;

impl Store {
    /// A transaction that holds the lock for creating keys.
    pub async fn lock_keys(&self) -> Result<Transaction<'static, Postgres>, Error> {
        let mut tx = self.pool().begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CREATE_LOCK).execute(&mut *tx).await?;
        Ok(tx)
    }
}

/// Every key, oldest first.
pub async fn all(connection: &mut sqlx::PgConnection) -> Result<Vec<Row>, Error> {
    Ok(sqlx::query_as("SELECT id, purpose, state, wrapped, public FROM keys ORDER BY created_at, id")
        .fetch_all(connection)
        .await?)
}

/// Adds a key in its state.
pub async fn insert(connection: &mut sqlx::PgConnection, row: &Row) -> Result<(), Error> {
    sqlx::query("INSERT INTO keys (id, purpose, state, wrapped, public) VALUES ($1, $2, $3, $4, $5)")
        .bind(&row.id)
        .bind(&row.purpose)
        .bind(&row.state)
        .bind(&row.wrapped)
        .bind(&row.public)
        .execute(connection)
        .await?;
    Ok(())
}
