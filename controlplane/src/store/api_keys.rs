//! Rows of `api_keys`. Holds hashes of secrets, never a secret. What nodes get of a key is read by `store::publish`.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use crate::domain::ApiKey;

/// A key by its id.
pub async fn get(connection: &mut PgConnection, org: Uuid, id: &str) -> Result<Option<ApiKey>, Error> {
    let query = sqlx::query_as("SELECT * FROM api_keys WHERE org_id = $1 AND id = $2");
    Ok(query.bind(org).bind(id).fetch_optional(connection).await?)
}

/// A key by its id, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, org: Uuid, id: &str) -> Result<Option<ApiKey>, Error> {
    let query = sqlx::query_as("SELECT * FROM api_keys WHERE org_id = $1 AND id = $2 FOR UPDATE");
    Ok(query.bind(org).bind(id).fetch_optional(connection).await?)
}

/// At most `limit` keys in the order of their ids, from the one after `after`.
pub async fn page(connection: &mut PgConnection, org: Uuid, after: &str, limit: i64) -> Result<Vec<ApiKey>, Error> {
    let query =
        sqlx::query_as("SELECT * FROM api_keys WHERE org_id = $1 AND id COLLATE \"C\" > $2 ORDER BY id COLLATE \"C\" LIMIT $3");
    Ok(query.bind(org).bind(after).bind(limit).fetch_all(connection).await?)
}

/// Whether any organisation has a key of this id.
pub async fn exists(connection: &mut PgConnection, id: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM api_keys WHERE id = $1)").bind(id).fetch_one(connection).await?)
}

/// Adds a key; its times and revision are the row's own.
pub async fn insert(connection: &mut PgConnection, key: &ApiKey) -> Result<ApiKey, Error> {
    let query = sqlx::query_as(
        "INSERT INTO api_keys (id, uid, org_id, user_id, display_name, secret_sha256, policy_roles, groups, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *",
    )
    .bind(&key.id)
    .bind(key.uid)
    .bind(key.org_id)
    .bind(key.user_id)
    .bind(&key.display_name)
    .bind(&key.secret_sha256)
    .bind(&key.policy_roles)
    .bind(&key.groups)
    .bind(key.expires_at);
    Ok(query.fetch_one(connection).await?)
}

/// Writes what may change of a key that the caller has locked.
pub async fn update(connection: &mut PgConnection, key: &ApiKey) -> Result<ApiKey, Error> {
    let query = sqlx::query_as(
        "UPDATE api_keys SET display_name = $2, policy_roles = $3, groups = $4, revision = revision + 1, updated_at = now() \
         WHERE id = $1 RETURNING *",
    )
    .bind(&key.id)
    .bind(&key.display_name)
    .bind(&key.policy_roles)
    .bind(&key.groups);
    Ok(query.fetch_one(connection).await?)
}

/// Makes a key void for good; the time of the first revocation stays.
pub async fn revoke(connection: &mut PgConnection, id: &str) -> Result<ApiKey, Error> {
    let query = sqlx::query_as(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()), revision = revision + 1, updated_at = now() \
         WHERE id = $1 RETURNING *",
    );
    Ok(query.bind(id).fetch_one(connection).await?)
}

/// Removes a key.
pub async fn delete(connection: &mut PgConnection, id: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM api_keys WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// The `admin.v1.Role` of a member of the organisation, who stays one until the transaction ends; none: no member.
pub async fn role_of(connection: &mut PgConnection, org: Uuid, user: Uuid) -> Result<Option<i32>, Error> {
    let query = sqlx::query_scalar::<_, i16>("SELECT role FROM memberships WHERE org_id = $1 AND user_id = $2 FOR SHARE");
    Ok(query.bind(org).bind(user).fetch_optional(connection).await?.map(i32::from))
}
