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
