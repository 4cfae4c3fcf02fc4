//! Rows of `config_change`, read as versions: what each changed, by whom.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;

/// One changed resource of a version.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ChangeRow {
    pub epoch: i64,
    pub version: i64,
    pub org_slug: String,
    pub kind: String,
    pub resource: String,
    pub operation: String,
    pub actor: String,
    pub reason: String,
    pub committed_at: DateTime<Utc>,
}

/// Which changes are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this organisation: what a caller may see.
    pub org_id: Option<Uuid>,
    /// Only those of organisations of this name, deleted ones included: what a caller asks for.
    pub org_slug: Option<String>,
}

/// The changes of the versions before a position, newest version first, of at most `limit` versions.
pub async fn list(
    connection: &mut PgConnection,
    filter: &Filter,
    before: Option<(i64, i64)>,
    limit: i64,
) -> Result<Vec<ChangeRow>, Error> {
    let (epoch, version) = before.unwrap_or((i64::MAX, i64::MAX));
    let found = sqlx::query_as(
        "SELECT c.epoch, c.version, c.org_slug, c.kind, c.resource, c.operation, c.actor, c.reason, c.committed_at \
         FROM (SELECT DISTINCT epoch, version FROM config_change \
               WHERE (epoch, version) < ($1, $2) AND ($3::uuid IS NULL OR org_id = $3) AND ($4::text IS NULL OR org_slug = $4) \
               ORDER BY epoch DESC, version DESC LIMIT $5) v \
         JOIN config_change c USING (epoch, version) \
         WHERE ($3::uuid IS NULL OR c.org_id = $3) AND ($4::text IS NULL OR c.org_slug = $4) \
         ORDER BY c.epoch DESC, c.version DESC, c.seq",
    );
    let found = found.bind(epoch).bind(version).bind(filter.org_id).bind(&filter.org_slug).bind(limit);
    Ok(found.fetch_all(connection).await?)
}

/// The changes of a version in the newest epoch that has it.
pub async fn get(connection: &mut PgConnection, version: i64, org_id: Option<Uuid>) -> Result<Vec<ChangeRow>, Error> {
    let found = sqlx::query_as(
        "SELECT epoch, version, org_slug, kind, resource, operation, actor, reason, committed_at FROM config_change c \
         WHERE version = $1 AND ($2::uuid IS NULL OR org_id = $2) \
         AND epoch = (SELECT max(epoch) FROM config_change WHERE version = $1) ORDER BY seq",
    );
    Ok(found.bind(version).bind(org_id).fetch_all(connection).await?)
}
