//! Rows of `policies`. Changes happen inside a [`super::change::Change`], after its organisation's row is locked.

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Error, OnConstraint, rows::small_of};
use crate::domain::Policy;

/// A policy by its name.
pub async fn get(connection: &mut PgConnection, org: Uuid, name: &str) -> Result<Option<Policy>, Error> {
    let query = sqlx::query_as("SELECT * FROM policies WHERE org_id = $1 AND name = $2");
    Ok(query.bind(org).bind(name).fetch_optional(connection).await?)
}

/// A policy by its name, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, org: Uuid, name: &str) -> Result<Option<Policy>, Error> {
    let query = sqlx::query_as("SELECT * FROM policies WHERE org_id = $1 AND name = $2 FOR UPDATE");
    Ok(query.bind(org).bind(name).fetch_optional(connection).await?)
}

/// At most `limit` policies in the order of their names, from the one after `after`.
pub async fn page(connection: &mut PgConnection, org: Uuid, after: &str, limit: i64) -> Result<Vec<Policy>, Error> {
    let query = sqlx::query_as(
        "SELECT * FROM policies WHERE org_id = $1 AND name COLLATE \"C\" > $2 ORDER BY name COLLATE \"C\" LIMIT $3",
    );
    Ok(query.bind(org).bind(after).bind(limit).fetch_all(connection).await?)
}

/// Adds a policy; its times and revision are the row's own.
pub async fn insert(connection: &mut PgConnection, policy: &Policy) -> Result<Policy, Error> {
    sqlx::query_as(
        "INSERT INTO policies (id, org_id, name, display_name, effect, mode, subjects, servers, match, \"when\") \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING *",
    )
    .bind(policy.id)
    .bind(policy.org_id)
    .bind(&policy.name)
    .bind(&policy.display_name)
    .bind(small_of(policy.effect))
    .bind(small_of(policy.mode))
    .bind(Json(&policy.subjects))
    .bind(&policy.servers)
    .bind(Json(&policy.matches))
    .bind(&policy.when)
    .fetch_one(connection)
    .await
    .on_constraint("policies_name_key", || Error::Taken(format!("the policy {:?}", policy.name)))
}

/// Writes what may change of a policy that the caller has locked.
pub async fn update(connection: &mut PgConnection, policy: &Policy) -> Result<Policy, Error> {
    let query = sqlx::query_as(
        "UPDATE policies SET display_name = $2, effect = $3, mode = $4, subjects = $5, servers = $6, match = $7, \"when\" = $8, \
         revision = revision + 1, updated_at = now() WHERE id = $1 RETURNING *",
    )
    .bind(policy.id)
    .bind(&policy.display_name)
    .bind(small_of(policy.effect))
    .bind(small_of(policy.mode))
    .bind(Json(&policy.subjects))
    .bind(&policy.servers)
    .bind(Json(&policy.matches))
    .bind(&policy.when);
    Ok(query.fetch_one(connection).await?)
}

/// Removes a policy.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query("DELETE FROM policies WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}
