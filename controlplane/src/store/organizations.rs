//! Rows of `organizations`.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, OnConstraint};
use crate::domain::Organization;

/// The organisation of that slug.
pub async fn by_slug(connection: &mut PgConnection, slug: &str) -> Result<Option<Organization>, Error> {
    Ok(sqlx::query_as("SELECT * FROM organizations WHERE slug = $1").bind(slug).fetch_optional(connection).await?)
}

/// The organisation of that slug, held until the end of the transaction: changes within one organisation wait for each other, so
/// that what one of them checked is still true when it commits.
pub async fn hold(connection: &mut PgConnection, slug: &str) -> Result<Option<Organization>, Error> {
    let held = "SELECT * FROM organizations WHERE slug = $1 FOR NO KEY UPDATE";
    Ok(sqlx::query_as(held).bind(slug).fetch_optional(connection).await?)
}

/// The organisations after a slug, in the order of slugs; only `own`, if given.
pub async fn list(
    connection: &mut PgConnection,
    after: Option<String>,
    own: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Organization>, Error> {
    let found = sqlx::query_as(
        "SELECT * FROM organizations WHERE ($1::text IS NULL OR slug COLLATE \"C\" > $1) AND ($2::uuid IS NULL OR id = $2) \
         ORDER BY slug COLLATE \"C\" LIMIT $3",
    );
    Ok(found.bind(after).bind(own).bind(limit).fetch_all(connection).await?)
}

/// Adds one.
pub async fn insert(connection: &mut PgConnection, new: &Organization) -> Result<Organization, Error> {
    let inserted = sqlx::query_as(
        "INSERT INTO organizations (id, slug, display_name, allowed_origins, audit_full, pool, request_log_retention_days, audit_sync, \
         capture_arguments, capture_results, capture_max_bytes, capture_redact, capture_retention_days, audit_log_retention_days) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING *",
    );
    inserted
        .bind(new.id)
        .bind(&new.slug)
        .bind(&new.display_name)
        .bind(&new.allowed_origins)
        .bind(new.audit_full)
        .bind(&new.pool)
        .bind(new.request_log_retention_days)
        .bind(new.audit_sync)
        .bind(new.capture.arguments)
        .bind(new.capture.results)
        .bind(new.capture.max_bytes)
        .bind(&new.capture.redact)
        .bind(new.capture.retention_days)
        .bind(new.audit_log_retention_days)
        .fetch_one(connection)
        .await
        .on_constraint("organizations_slug_key", || Error::Taken(format!("organizations/{}", new.slug)))
}

/// Writes every column that can change; the caller holds the row.
pub async fn update(connection: &mut PgConnection, row: &Organization) -> Result<Organization, Error> {
    let updated = sqlx::query_as(
        "UPDATE organizations SET display_name = $2, allowed_origins = $3, audit_full = $4, pool = $5, \
         request_log_retention_days = $6, audit_sync = $7, capture_arguments = $8, capture_results = $9, capture_max_bytes = $10, \
         capture_redact = $11, capture_retention_days = $12, audit_log_retention_days = $13, revision = revision + 1, updated_at = now() \
         WHERE id = $1 RETURNING *",
    );
    let updated = updated
        .bind(row.id)
        .bind(&row.display_name)
        .bind(&row.allowed_origins)
        .bind(row.audit_full)
        .bind(&row.pool)
        .bind(row.request_log_retention_days)
        .bind(row.audit_sync)
        .bind(row.capture.arguments)
        .bind(row.capture.results)
        .bind(row.capture.max_bytes)
        .bind(&row.capture.redact)
        .bind(row.capture.retention_days)
        .bind(row.audit_log_retention_days);
    Ok(updated.fetch_one(connection).await?)
}

/// Deletes one with everything in it.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query("UPDATE sessions SET revoked_at = now() WHERE org_id = $1 AND revoked_at IS NULL")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM captured_payloads WHERE org_id = $1").bind(id).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM organizations WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// Whether there are servers in it: then it is not deleted by accident.
pub async fn has_servers(connection: &mut PgConnection, id: Uuid) -> Result<bool, Error> {
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM mcp_servers WHERE org_id = $1)");
    Ok(found.bind(id).fetch_one(connection).await?)
}
