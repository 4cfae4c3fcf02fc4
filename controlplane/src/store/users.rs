//! Rows of `users`. Password hashes come in and go out only through the functions that say so.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, OnConstraint};
use crate::domain::User;

/// A user with what its password is checked against.
#[derive(Debug)]
pub struct WithHash {
    pub user: User,
    /// argon2id, PHC string.
    pub password_hash: String,
}

impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for WithHash {
    fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { user: User::from_row(row)?, password_hash: sqlx::Row::try_get(row, "password_hash")? })
    }
}

/// A user.
pub async fn by_id(connection: &mut PgConnection, id: Uuid) -> Result<Option<User>, Error> {
    Ok(sqlx::query_as("SELECT * FROM users WHERE id = $1").bind(id).fetch_optional(connection).await?)
}

/// A user with the password hash, held until the end of the transaction.
pub async fn hold(connection: &mut PgConnection, id: Uuid) -> Result<Option<WithHash>, Error> {
    Ok(sqlx::query_as("SELECT * FROM users WHERE id = $1 FOR NO KEY UPDATE").bind(id).fetch_optional(connection).await?)
}

/// What a user's password is checked against.
pub async fn password_hash(connection: &mut PgConnection, id: Uuid) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1").bind(id).fetch_optional(connection).await?)
}

/// A user with the password hash, by email address without regard to case.
pub async fn by_email(connection: &mut PgConnection, email: &str) -> Result<Option<WithHash>, Error> {
    Ok(sqlx::query_as("SELECT * FROM users WHERE lower(email) = lower($1)").bind(email).fetch_optional(connection).await?)
}

/// The users after an id, oldest first.
pub async fn list(connection: &mut PgConnection, after: Option<Uuid>, limit: i64) -> Result<Vec<User>, Error> {
    let found = sqlx::query_as("SELECT * FROM users WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2");
    Ok(found.bind(after).bind(limit).fetch_all(connection).await?)
}

/// Whether there is any user.
pub async fn any(connection: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM users)").fetch_one(connection).await?)
}

/// Whether a platform administrator beside this one could still sign in. Holds that true until the end of the transaction.
pub async fn another_platform_admin(connection: &mut PgConnection, beside: Uuid) -> Result<bool, Error> {
    super::hold(connection, "platform administrators").await?;
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM users WHERE platform_admin AND NOT disabled AND id <> $1)");
    Ok(found.bind(beside).fetch_one(connection).await?)
}

/// Adds one.
pub async fn insert(connection: &mut PgConnection, new: &User, password_hash: &str) -> Result<User, Error> {
    let inserted = sqlx::query_as(
        "INSERT INTO users (id, email, display_name, password_hash, disabled, platform_admin) \
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING *",
    );
    inserted
        .bind(new.id)
        .bind(&new.email)
        .bind(&new.display_name)
        .bind(password_hash)
        .bind(new.disabled)
        .bind(new.platform_admin)
        .fetch_one(connection)
        .await
        .on_constraint("users_email_key", taken)
}

/// Writes every column that can change; the caller holds the row.
pub async fn update(connection: &mut PgConnection, row: &User) -> Result<User, Error> {
    let updated = sqlx::query_as(
        "UPDATE users SET email = $2, display_name = $3, disabled = $4, platform_admin = $5, \
         revision = revision + 1, updated_at = now() WHERE id = $1 RETURNING *",
    );
    updated
        .bind(row.id)
        .bind(&row.email)
        .bind(&row.display_name)
        .bind(row.disabled)
        .bind(row.platform_admin)
        .fetch_one(connection)
        .await
        .on_constraint("users_email_key", taken)
}

/// Sets the password hash.
pub async fn set_password(connection: &mut PgConnection, id: Uuid, password_hash: &str) -> Result<(), Error> {
    let set = sqlx::query("UPDATE users SET password_hash = $2, revision = revision + 1, updated_at = now() WHERE id = $1");
    set.bind(id).bind(password_hash).execute(connection).await?;
    Ok(())
}

/// Makes every access token of a user void that was issued before now.
pub async fn void_tokens(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query("UPDATE users SET tokens_not_before = now() WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// Deletes one with its memberships and keys.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query("DELETE FROM users WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

fn taken() -> Error {
    Error::Taken("a user with this email address".into())
}
