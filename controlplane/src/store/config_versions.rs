//! Rows of `config_change`, read as versions: what each changed, by whom.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use crate::domain::diff::Step;

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

/// What changed after version `from` up to version `to`, oldest first. None: the history does not reach back, because rows are
/// missing or are from before documents were kept.
pub async fn steps(connection: &mut PgConnection, filter: &Filter, from: i64, to: i64) -> Result<Option<Vec<Step>>, Error> {
    let whole: bool =
        sqlx::query_scalar("SELECT count(DISTINCT version) = $2 - $1 FROM config_change WHERE version > $1 AND version <= $2")
            .bind(from)
            .bind(to)
            .fetch_one(&mut *connection)
            .await?;
    let found: Vec<StepRow> = sqlx::query_as(
        "SELECT org_slug, kind, resource, operation, before, after FROM config_change c \
         WHERE version > $1 AND version <= $2 AND ($3::uuid IS NULL OR org_id = $3) AND ($4::text IS NULL OR org_slug = $4) \
         AND epoch = (SELECT max(epoch) FROM config_change WHERE version = c.version) ORDER BY version, seq",
    )
    .bind(from)
    .bind(to)
    .bind(filter.org_id)
    .bind(&filter.org_slug)
    .fetch_all(connection)
    .await?;
    let kept = |row: &StepRow| row.before.is_some() || row.after.is_some() || !DOCUMENTED.contains(&row.kind.as_str());
    Ok((whole && found.iter().all(kept)).then(|| found.into_iter().map(Step::from).collect()))
}

/// The kinds of which every change keeps documents.
const DOCUMENTED: [&str; 7] = ["organization", "user", "membership", "api_key", "server", "policy", "rate_limit"];

#[derive(sqlx::FromRow)]
struct StepRow {
    org_slug: String,
    kind: String,
    resource: String,
    operation: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl From<StepRow> for Step {
    fn from(row: StepRow) -> Self {
        let StepRow { org_slug, kind, resource, operation, before, after } = row;
        Self { org_slug, kind, resource, operation, before, after }
    }
}

/// Whether an organisation of that slug is there, or was: history outlives it.
pub async fn ever_was(connection: &mut PgConnection, slug: &str) -> Result<bool, Error> {
    let found =
        "SELECT EXISTS (SELECT FROM organizations WHERE slug = $1) OR EXISTS (SELECT FROM config_change WHERE org_slug = $1)";
    Ok(sqlx::query_scalar(found).bind(slug).fetch_one(connection).await?)
}

/// The document of a server as it was deleted last, and its sealed credential then.
pub async fn last_of_server(connection: &mut PgConnection, uid: Uuid) -> Result<Option<(Value, Option<Vec<u8>>)>, Error> {
    let found = sqlx::query_as(
        "SELECT before, credential_wrapped FROM config_change \
         WHERE kind = 'server' AND operation = 'delete' AND before ->> 'uid' = $1 ORDER BY epoch DESC, version DESC, seq DESC LIMIT 1",
    );
    Ok(found.bind(uid.to_string()).fetch_optional(connection).await?)
}
