//! Rows of `memberships`, each with its user's email address.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, OnConstraint};
use crate::domain::{Membership, Role};

/// Where a user belongs to.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Place {
    pub org_id: Uuid,
    pub org_slug: String,
}

/// The organisations that a user belongs to, in the order of slugs.
pub async fn places(connection: &mut PgConnection, user: Uuid) -> Result<Vec<Place>, Error> {
    let found = sqlx::query_as(
        "SELECT m.org_id, o.slug AS org_slug FROM memberships m JOIN organizations o ON o.id = m.org_id \
         WHERE m.user_id = $1 ORDER BY o.slug",
    );
    Ok(found.bind(user).fetch_all(connection).await?)
}

/// A user's place in an organisation.
pub async fn get(connection: &mut PgConnection, org: Uuid, user: Uuid) -> Result<Option<Membership>, Error> {
    let found = sqlx::query_as(
        "SELECT m.*, u.email FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.org_id = $1 AND m.user_id = $2",
    );
    Ok(found.bind(org).bind(user).fetch_optional(connection).await?)
}

/// The memberships of an organisation after a user's, in the order of the users' ids.
pub async fn list(connection: &mut PgConnection, org: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Membership>, Error> {
    let found = sqlx::query_as(
        "SELECT m.*, u.email FROM memberships m JOIN users u ON u.id = m.user_id \
         WHERE m.org_id = $1 AND ($2::uuid IS NULL OR m.user_id > $2) ORDER BY m.user_id LIMIT $3",
    );
    Ok(found.bind(org).bind(after).bind(limit).fetch_all(connection).await?)
}

/// Whether the organisation has an owner beside this user.
pub async fn another_owner(connection: &mut PgConnection, org: Uuid, beside: Uuid) -> Result<bool, Error> {
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM memberships WHERE org_id = $1 AND user_id <> $2 AND role = $3)");
    Ok(found.bind(org).bind(beside).bind(Role::Owner as i16).fetch_one(connection).await?)
}

/// Adds one. The user must exist.
pub async fn insert(connection: &mut PgConnection, new: &Membership) -> Result<(), Error> {
    let inserted =
        sqlx::query("INSERT INTO memberships (org_id, user_id, role, policy_roles, groups) VALUES ($1, $2, $3, $4, $5)");
    inserted
        .bind(new.org_id)
        .bind(new.user_id)
        .bind(new.role as i16)
        .bind(&new.policy_roles)
        .bind(&new.groups)
        .execute(connection)
        .await
        .on_constraint("memberships_pkey", || Error::Taken(format!("the membership of users/{}", new.user_id)))?;
    Ok(())
}

/// Writes every column that can change; the caller holds the organisation.
pub async fn update(connection: &mut PgConnection, row: &Membership) -> Result<(), Error> {
    let updated = sqlx::query(
        "UPDATE memberships SET role = $3, policy_roles = $4, groups = $5, revision = revision + 1, updated_at = now() \
         WHERE org_id = $1 AND user_id = $2",
    );
    let updated = updated.bind(row.org_id).bind(row.user_id).bind(row.role as i16).bind(&row.policy_roles).bind(&row.groups);
    updated.execute(connection).await?;
    Ok(())
}

/// Deletes one, with the keys whose principal the user was here.
pub async fn delete(connection: &mut PgConnection, org: Uuid, user: Uuid) -> Result<(), Error> {
    let keys = "UPDATE api_keys SET revoked_at = now(), revision = revision + 1, updated_at = now() \
                WHERE org_id = $1 AND user_id = $2 AND revoked_at IS NULL";
    sqlx::query(keys).bind(org).bind(user).execute(&mut *connection).await?;
    let deleted = sqlx::query("DELETE FROM memberships WHERE org_id = $1 AND user_id = $2");
    deleted.bind(org).bind(user).execute(connection).await?;
    Ok(())
}
