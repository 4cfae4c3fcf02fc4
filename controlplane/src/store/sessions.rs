//! Login sessions: families of refresh tokens of which only the newest is good.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Store};

/// A session with what its user is now.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Live {
    pub user_id: Uuid,
    pub email: String,
    pub disabled: bool,
    pub platform_admin: bool,
    pub tokens_not_before: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub org_id: Option<Uuid>,
    pub org_slug: Option<String>,
    /// `admin.v1.Role` of the membership; none: no member.
    pub role: Option<i16>,
}

impl Store {
    /// A session and its user, whatever their state.
    pub async fn live_session(&self, id: Uuid) -> Result<Option<Live>, Error> {
        let found = sqlx::query_as(
            "SELECT s.user_id, u.email, u.disabled, u.platform_admin, u.tokens_not_before, s.revoked_at, \
                    s.org_id, o.slug AS org_slug, m.role \
             FROM sessions s JOIN users u ON u.id = s.user_id LEFT JOIN organizations o ON o.id = s.org_id \
             LEFT JOIN memberships m ON m.org_id = s.org_id AND m.user_id = s.user_id WHERE s.id = $1",
        );
        Ok(found.bind(id).fetch_optional(self.pool()).await?)
    }
}

/// Ends every session of a user, or only those in one organisation. How many there were.
pub async fn revoke_of_user(connection: &mut PgConnection, user: Uuid, org: Option<Uuid>) -> Result<u64, Error> {
    let ended = sqlx::query(
        "UPDATE sessions SET revoked_at = now() WHERE user_id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR org_id = $2)",
    );
    Ok(ended.bind(user).bind(org).execute(connection).await?.rows_affected())
}

/// A session as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Session {
    pub id: Uuid,
    pub user_id: Uuid,
    pub org_id: Option<Uuid>,
    /// SHA-256 of the newest refresh token.
    pub refresh_sha256: Vec<u8>,
    pub generation: i64,
    pub expires_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Whose session it is.
pub async fn user_of(connection: &mut PgConnection, id: Uuid) -> Result<Option<Uuid>, Error> {
    Ok(sqlx::query_scalar("SELECT user_id FROM sessions WHERE id = $1").bind(id).fetch_optional(connection).await?)
}

/// A session, held until the end of the transaction: two refreshes of one token are one after the other.
pub async fn hold(connection: &mut PgConnection, id: Uuid) -> Result<Option<Session>, Error> {
    let held =
        "SELECT id, user_id, org_id, refresh_sha256, generation, expires_at, revoked_at FROM sessions WHERE id = $1 FOR UPDATE";
    Ok(sqlx::query_as(held).bind(id).fetch_optional(connection).await?)
}

/// Adds one.
pub async fn insert(connection: &mut PgConnection, new: &Session) -> Result<(), Error> {
    let inserted = sqlx::query(
        "INSERT INTO sessions (id, user_id, org_id, refresh_sha256, generation, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
    );
    let inserted = inserted.bind(new.id).bind(new.user_id).bind(new.org_id).bind(&new.refresh_sha256).bind(new.generation);
    inserted.bind(new.expires_at).execute(connection).await?;
    Ok(())
}

/// Puts a new refresh token in the place of the one that was used.
pub async fn rotate(connection: &mut PgConnection, next: &Session) -> Result<(), Error> {
    let rotated = sqlx::query("UPDATE sessions SET refresh_sha256 = $2, generation = $3, expires_at = $4 WHERE id = $1");
    rotated.bind(next.id).bind(&next.refresh_sha256).bind(next.generation).bind(next.expires_at).execute(connection).await?;
    Ok(())
}

/// Ends one.
pub async fn revoke(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query("UPDATE sessions SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}
