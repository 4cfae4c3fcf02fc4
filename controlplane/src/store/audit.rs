//! Rows of `audit_logs`: what administrators did and who signed in. Only ever added to.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Store, change::Actor};

/// One entry to write.
#[derive(Debug)]
pub struct Entry<'a> {
    pub org_id: Option<Uuid>,
    pub org_slug: String,
    pub actor: &'a Actor,
    /// Such as `server.create` or `auth.login`.
    pub action: &'a str,
    pub resource: &'a str,
    /// `ok` or `denied`.
    pub outcome: &'a str,
    /// 0: none.
    pub config_version: i64,
    /// Never a secret.
    pub detail: &'a serde_json::Value,
}

impl Store {
    /// Records what no transaction belongs to, such as a refused sign-in.
    pub async fn record(&self, entry: &Entry<'_>) -> Result<(), Error> {
        insert(&mut *self.connection().await?, entry).await
    }
}

/// Writes an entry in the caller's transaction.
pub async fn insert(connection: &mut PgConnection, entry: &Entry<'_>) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO audit_logs (id, org_id, org_slug, actor, action, resource, outcome, config_version, detail, client_address) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(Uuid::now_v7())
    .bind(entry.org_id)
    .bind(&entry.org_slug)
    .bind(&entry.actor.name)
    .bind(entry.action)
    .bind(entry.resource)
    .bind(entry.outcome)
    .bind(entry.config_version)
    .bind(entry.detail)
    .bind(&entry.actor.address)
    .execute(connection)
    .await?;
    Ok(())
}
