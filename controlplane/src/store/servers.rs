//! Rows of `mcp_servers`. Changes happen inside a [`super::change::Change`], after its organisation's row is locked.

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Error, OnConstraint, endpoints, rows::small_of};
use crate::domain::Server;

/// A server by its slug.
pub async fn get(connection: &mut PgConnection, org: Uuid, slug: &str) -> Result<Option<Server>, Error> {
    let query = sqlx::query_as("SELECT * FROM mcp_servers WHERE org_id = $1 AND slug = $2");
    Ok(query.bind(org).bind(slug).fetch_optional(connection).await?)
}

/// A server by its slug, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, org: Uuid, slug: &str) -> Result<Option<Server>, Error> {
    let query = sqlx::query_as("SELECT * FROM mcp_servers WHERE org_id = $1 AND slug = $2 FOR UPDATE");
    Ok(query.bind(org).bind(slug).fetch_optional(connection).await?)
}

/// At most `limit` servers in the order of their slugs, from the one after `after`.
pub async fn page(connection: &mut PgConnection, org: Uuid, after: &str, limit: i64) -> Result<Vec<Server>, Error> {
    let query = sqlx::query_as(
        "SELECT * FROM mcp_servers WHERE org_id = $1 AND slug COLLATE \"C\" > $2 ORDER BY slug COLLATE \"C\" LIMIT $3",
    );
    Ok(query.bind(org).bind(after).bind(limit).fetch_all(connection).await?)
}

/// Adds a server; its times and revision are the row's own.
pub async fn insert(connection: &mut PgConnection, server: &Server) -> Result<Server, Error> {
    sqlx::query_as(
        "INSERT INTO mcp_servers (id, org_id, slug, display_name, transport, era, endpoints, allow_anonymous, disabled, \
         credential_header, credential_wrapped, call_timeout_ms, max_body_bytes, credential_set_at, stdio, client_transports, \
         legacy_sessions) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
         CASE WHEN $11::bytea IS NOT NULL THEN coalesce($14, now()) END, $15, $16, $17) \
         RETURNING *",
    )
    .bind(server.id)
    .bind(server.org_id)
    .bind(&server.slug)
    .bind(&server.display_name)
    .bind(small_of(server.transport))
    .bind(small_of(server.era))
    .bind(Json(&server.endpoints))
    .bind(server.allow_anonymous)
    .bind(server.disabled)
    .bind(server.credential.as_ref().map(|credential| &credential.header))
    .bind(server.credential.as_ref().map(|credential| &credential.wrapped))
    .bind(server.call_timeout_ms)
    .bind(server.max_body_bytes)
    .bind(server.credential.as_ref().and_then(|credential| credential.set_at))
    .bind(server.stdio.as_ref().map(Json))
    .bind(Json(&server.client_transports))
    .bind(small_of(server.legacy_sessions))
    .fetch_one(connection)
    .await
    .on_constraint("mcp_servers_slug_key", || Error::Taken(format!("the server {:?}", server.slug)))
}

/// Writes what may change of a server that the caller has locked.
pub async fn update(connection: &mut PgConnection, server: &Server) -> Result<Server, Error> {
    let query = sqlx::query_as(
        "UPDATE mcp_servers SET display_name = $2, transport = $3, era = $4, endpoints = $5, allow_anonymous = $6, disabled = $7, \
         credential_header = $8, credential_wrapped = $9, \
         credential_set_at = CASE WHEN $9::bytea IS NULL THEN NULL WHEN $9 IS DISTINCT FROM credential_wrapped THEN now() \
         ELSE credential_set_at END, call_timeout_ms = $10, max_body_bytes = $11, \
         stdio = $12, client_transports = $13, legacy_sessions = $14, \
         revision = revision + 1, updated_at = now() WHERE id = $1 RETURNING *",
    )
    .bind(server.id)
    .bind(&server.display_name)
    .bind(small_of(server.transport))
    .bind(small_of(server.era))
    .bind(Json(&server.endpoints))
    .bind(server.allow_anonymous)
    .bind(server.disabled)
    .bind(server.credential.as_ref().map(|credential| &credential.header))
    .bind(server.credential.as_ref().map(|credential| &credential.wrapped))
    .bind(server.call_timeout_ms)
    .bind(server.max_body_bytes)
    .bind(server.stdio.as_ref().map(Json))
    .bind(Json(&server.client_transports))
    .bind(small_of(server.legacy_sessions));
    let updated = query.fetch_one(&mut *connection).await?;
    let urls: Vec<String> = server.endpoints.iter().map(|endpoint| endpoint.url.clone()).collect();
    endpoints::prune(connection, server.id, &urls).await?;
    Ok(updated)
}

/// Removes a server.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query("DELETE FROM mcp_servers WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// The names of the policies that name the server by its slug, sorted.
pub async fn named_by(connection: &mut PgConnection, org: Uuid, slug: &str) -> Result<Vec<String>, Error> {
    let query =
        sqlx::query_scalar("SELECT name FROM policies WHERE org_id = $1 AND $2 = ANY (servers) ORDER BY name COLLATE \"C\"");
    Ok(query.bind(org).bind(slug).fetch_all(connection).await?)
}
