//! Rows of `rate_limits`. Changes happen inside a [`super::change::Change`], after its organisation's row is locked.

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Error, OnConstraint};
use crate::domain::RateLimit;

/// A limit by its name.
pub async fn get(connection: &mut PgConnection, org: Uuid, name: &str) -> Result<Option<RateLimit>, Error> {
    let query = sqlx::query_as("SELECT * FROM rate_limits WHERE org_id = $1 AND name = $2");
    Ok(query.bind(org).bind(name).fetch_optional(connection).await?)
}

/// A limit by its name, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, org: Uuid, name: &str) -> Result<Option<RateLimit>, Error> {
    let query = sqlx::query_as("SELECT * FROM rate_limits WHERE org_id = $1 AND name = $2 FOR UPDATE");
    Ok(query.bind(org).bind(name).fetch_optional(connection).await?)
}

/// At most `most` limits in the order of their names, from the one after `after`.
pub async fn page(connection: &mut PgConnection, org: Uuid, after: &str, most: i64) -> Result<Vec<RateLimit>, Error> {
    let query = sqlx::query_as(
        "SELECT * FROM rate_limits WHERE org_id = $1 AND name COLLATE \"C\" > $2 ORDER BY name COLLATE \"C\" LIMIT $3",
    );
    Ok(query.bind(org).bind(after).bind(most).fetch_all(connection).await?)
}

/// Adds a limit; its times and revision are the row's own.
pub async fn insert(connection: &mut PgConnection, limit: &RateLimit) -> Result<RateLimit, Error> {
    sqlx::query_as("INSERT INTO rate_limits (id, org_id, name, spec) VALUES ($1, $2, $3, $4) RETURNING *")
        .bind(limit.id)
        .bind(limit.org_id)
        .bind(&limit.name)
        .bind(Json(&limit.spec))
        .fetch_one(connection)
        .await
        .on_constraint("rate_limits_name_key", || Error::Taken(format!("the limit {:?}", limit.name)))
}

/// Writes what may change of a limit that the caller has locked.
pub async fn update(connection: &mut PgConnection, limit: &RateLimit) -> Result<RateLimit, Error> {
    let query =
        sqlx::query_as("UPDATE rate_limits SET spec = $2, revision = revision + 1, updated_at = now() WHERE id = $1 RETURNING *");
    Ok(query.bind(limit.id).bind(Json(&limit.spec)).fetch_one(connection).await?)
}

/// Removes a limit.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query("DELETE FROM rate_limits WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// The names of the limits that name the server by its slug, sorted.
pub async fn naming(connection: &mut PgConnection, org: Uuid, server: &str) -> Result<Vec<String>, Error> {
    let query = sqlx::query_scalar(
        "SELECT name FROM rate_limits WHERE org_id = $1 AND spec -> 'servers' ? $2 ORDER BY name COLLATE \"C\"",
    );
    Ok(query.bind(org).bind(server).fetch_all(connection).await?)
}
