//! What publishers read and the one row per pool that they write: which version last changed what a pool's nodes get.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use mcp_gateway::{
    proto::config::v1::{ApiKey, Peer, RevokedSubject},
    snapshot::{Digest, Version},
};
use sqlx::{
    FromRow, PgConnection, Postgres, Row as _, Transaction, postgres::PgListener, postgres::PgPoolOptions, postgres::PgRow,
    types::Json,
};
use uuid::Uuid;

use super::{Error, Store, change::CHANNEL, endpoints, holds::Counts, node_status};
use crate::domain::{self, Role};

/// The newest committed version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub version: Version,
    pub committed_at: DateTime<Utc>,
}

/// The version that last changed a pool's content, as every replica knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRow {
    pub version: Version,
    pub digest: Digest,
    pub committed_at: DateTime<Utc>,
}

/// What changes without a version: who and what is void, which endpoints are out of use, where nodes are, and which pools there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Voids {
    /// Ids of revoked API keys.
    pub api_keys: Vec<String>,
    /// Ids of revoked login sessions.
    pub login_sessions: Vec<String>,
    pub subjects: Vec<RevokedSubject>,
    /// When the newest of all revocations was made, in microseconds since the Unix epoch.
    pub newest_us: u64,
    /// Endpoints that are not simply in use, sorted by server and URL.
    pub endpoints: Vec<endpoints::Row>,
    /// Nodes that others can reach, sorted by id, by pool.
    pub peers: BTreeMap<String, Vec<Peer>>,
    /// Nodes that were removed and may still hold a certificate.
    pub nodes: BTreeSet<Uuid>,
    /// Pools with an organisation, a node, or a token to join them.
    pub pools: BTreeSet<String>,
}

/// Revoked keys are listed this long beside being absent from their shard: long enough for every node to have taken a newer snapshot.
const KEY_WINDOW: &str = "1 day";
/// As long as a node's certificate lives, and a little more.
const NODE_WINDOW: &str = "25 hours";

impl FromRow<'_, PgRow> for Head {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { version: version(row)?, committed_at: row.try_get("committed_at")? })
    }
}

impl FromRow<'_, PgRow> for ScopeRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let digest: Vec<u8> = row.try_get("digest")?;
        let digest = Digest::from_bytes(&digest).ok_or_else(|| {
            sqlx::Error::Decode(format!("config_scope.digest: expected 32 bytes, found {}", digest.len()).into())
        })?;
        Ok(Self { version: version(row)?, digest, committed_at: row.try_get("committed_at")? })
    }
}

fn version(row: &PgRow) -> Result<Version, sqlx::Error> {
    let unsigned = |column| row.try_get(column).map(i64::unsigned_abs);
    Ok(Version { epoch: unsigned("epoch")?, version: unsigned("version")? })
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Store {
    /// The newest committed version.
    pub async fn head(&self) -> Result<Head, Error> {
        head(&mut *self.connection().await?).await
    }

    /// A view of one moment: everything read in it belongs to one version.
    pub async fn one_moment(&self) -> Result<Transaction<'static, Postgres>, Error> {
        Ok(self.pool().begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }

    /// Hears of new versions on a connection of its own. Only a wake-up call: what was missed is not repeated.
    pub async fn listen(&self) -> Result<PgListener, Error> {
        let options = (*self.pool().connect_options()).clone();
        let own = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&own).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    /// Says that a scope, which is a pool or its [`canary_key`], has the content `digest` as of `found`, and returns what holds now: the
    /// oldest version known to have brought this content and not below the scope's floor, or a newer one with another content if `found`
    /// is overtaken.
    pub async fn settle_scope(&self, scope: &str, found: Head, (digest, counts): (&Digest, &Counts)) -> Result<ScopeRow, Error> {
        let mut connection = self.connection().await?;
        sqlx::query(
            "INSERT INTO config_scope (pool, epoch, version, digest, committed_at, counts) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (pool) DO UPDATE SET epoch = excluded.epoch, version = excluded.version, digest = excluded.digest, \
             committed_at = excluded.committed_at, counts = excluded.counts \
             WHERE (config_scope.epoch, config_scope.version) < (excluded.epoch, excluded.version) \
             AND (config_scope.digest <> excluded.digest OR config_scope.epoch <> excluded.epoch \
             OR ((config_scope.epoch, config_scope.version) < (config_scope.floor_epoch, config_scope.floor_version) \
             AND (excluded.epoch, excluded.version) >= (config_scope.floor_epoch, config_scope.floor_version)))",
        )
        .bind(scope)
        .bind(signed(found.version.epoch))
        .bind(signed(found.version.version))
        .bind(digest.as_bytes().as_slice())
        .bind(found.committed_at)
        .bind(Json(counts))
        .execute(&mut *connection)
        .await?;
        let row = sqlx::query_as("SELECT epoch, version, digest, committed_at FROM config_scope WHERE pool = $1").bind(scope);
        Ok(row.fetch_one(&mut *connection).await?)
    }

    /// What is void now. Sessions and users count while a token of theirs may still be good.
    pub async fn voids(&self, token_lifetime: std::time::Duration) -> Result<Voids, Error> {
        let mut tx = self.one_moment().await?;
        // To the minute, so that replicas forget the same entries at the same time.
        let api_keys = sqlx::query_scalar(
            "SELECT id FROM api_keys WHERE revoked_at > date_trunc('minute', now()) - $1::interval ORDER BY id COLLATE \"C\"",
        );
        let api_keys = api_keys.bind(KEY_WINDOW).fetch_all(&mut *tx).await?;
        let seconds = f64::from(u32::try_from(token_lifetime.as_secs()).unwrap_or(u32::MAX)) + 120.0;
        let login_sessions = sqlx::query_scalar(
            "SELECT id::text FROM sessions WHERE revoked_at > date_trunc('minute', now()) - make_interval(secs => $1) ORDER BY id",
        );
        let login_sessions = login_sessions.bind(seconds).fetch_all(&mut *tx).await?;
        let subjects: Vec<(String, i64)> = sqlx::query_as(
            // To the second, as tokens count: one that was issued in the second of the change may be the new one.
            "SELECT id::text, floor(extract(epoch FROM tokens_not_before))::bigint FROM users \
             WHERE tokens_not_before > date_trunc('minute', now()) - make_interval(secs => $1) ORDER BY 1",
        )
        .bind(seconds)
        .fetch_all(&mut *tx)
        .await?;
        let subjects = subjects.into_iter().map(|(subject, not_before)| RevokedSubject { subject, not_before }).collect();
        let newest: i64 = sqlx::query_scalar(
            "SELECT coalesce(extract(epoch FROM greatest((SELECT max(revoked_at) FROM api_keys), \
             (SELECT max(revoked_at) FROM sessions), (SELECT max(tokens_not_before) FROM users))) * 1000000, 0)::bigint",
        )
        .fetch_one(&mut *tx)
        .await?;
        let newest_us = newest.unsigned_abs();
        let endpoints = endpoints::all(&mut tx).await?;
        let peers = node_status::peers(&mut tx).await?;
        let nodes: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM nodes WHERE revoked_at > now() - $1::interval")
            .bind(NODE_WINDOW)
            .fetch_all(&mut *tx)
            .await?;
        let pools: Vec<String> = sqlx::query_scalar(
            "SELECT 'default' UNION SELECT pool FROM organizations UNION SELECT pool FROM nodes WHERE revoked_at IS NULL \
             UNION SELECT pool FROM join_tokens WHERE used_at IS NULL AND expires_at > now()",
        )
        .fetch_all(&mut *tx)
        .await?;
        let (nodes, pools) = (nodes.into_iter().collect(), pools.into_iter().collect());
        Ok(Voids { api_keys, login_sessions, subjects, newest_us, endpoints, peers, nodes, pools })
    }
}

/// The scope of a pool's canaries. No pool has such a name.
pub fn canary_key(pool: &str) -> String {
    format!("{pool}#canary")
}

/// What the manifests of scopes carry at least, by scope.
pub async fn floors(connection: &mut PgConnection) -> Result<BTreeMap<String, Version>, Error> {
    let query = "SELECT pool, floor_epoch AS epoch, floor_version AS version FROM config_scope WHERE floor_version > 0";
    let rows = sqlx::query(query).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("pool")?, version(row)?))).collect()
}

/// The newest committed version, in the caller's transaction.
pub async fn head(connection: &mut PgConnection) -> Result<Head, Error> {
    Ok(sqlx::query_as("SELECT epoch, version, committed_at FROM config_head").fetch_one(connection).await?)
}

/// The organisations that changed after `from` up to `to`. None: the log does not tell, everything must be read.
pub async fn changed_orgs(connection: &mut PgConnection, from: Version, to: Version) -> Result<Option<BTreeSet<Uuid>>, Error> {
    if from.epoch != to.epoch || from.version > to.version {
        return Ok(None);
    }
    let rows: Vec<(i64, Option<Uuid>)> =
        sqlx::query_as("SELECT version, org_id FROM config_change WHERE epoch = $1 AND version > $2 AND version <= $3")
            .bind(signed(from.epoch))
            .bind(signed(from.version))
            .bind(signed(to.version))
            .fetch_all(connection)
            .await?;
    let versions: BTreeSet<i64> = rows.iter().map(|(version, _)| *version).collect();
    let complete = versions.len() as u64 == to.version - from.version;
    Ok(complete.then(|| rows.into_iter().map(|(_, org)| org).collect()).flatten())
}

/// Every organisation.
pub async fn all_orgs(connection: &mut PgConnection) -> Result<BTreeSet<Uuid>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM organizations").fetch_all(connection).await?;
    Ok(ids.into_iter().collect())
}

/// The API keys of an organisation that work, as nodes need them, sorted by id. The keys of a user who left or is disabled do not.
pub async fn api_keys(connection: &mut PgConnection, org: Uuid) -> Result<Vec<ApiKey>, Error> {
    Ok(api_keys_of(connection, &[org]).await?.remove(&org).unwrap_or_default())
}

/// The same of several organisations.
pub async fn api_keys_of(connection: &mut PgConnection, orgs: &[Uuid]) -> Result<BTreeMap<Uuid, Vec<ApiKey>>, Error> {
    let rows = sqlx::query(
        "SELECT k.id, k.org_id, k.user_id, k.secret_sha256, k.policy_roles, k.groups, k.expires_at, \
         m.role AS member_role, m.policy_roles AS member_roles, m.groups AS member_groups \
         FROM api_keys k LEFT JOIN users u ON u.id = k.user_id \
         LEFT JOIN memberships m ON m.org_id = k.org_id AND m.user_id = k.user_id \
         WHERE k.org_id = ANY($1) AND k.revoked_at IS NULL AND (k.user_id IS NULL OR (m.user_id IS NOT NULL AND NOT u.disabled)) \
         ORDER BY k.id COLLATE \"C\"",
    )
    .bind(orgs)
    .fetch_all(connection)
    .await?;
    let mut keys: BTreeMap<Uuid, Vec<ApiKey>> = BTreeMap::new();
    for row in &rows {
        let org = row.try_get("org_id")?;
        keys.entry(org).or_default().push(api_key(row, org)?);
    }
    Ok(keys)
}

fn api_key(row: &PgRow, org: Uuid) -> Result<ApiKey, sqlx::Error> {
    let key_id: String = row.try_get("id")?;
    let user: Option<Uuid> = row.try_get("user_id")?;
    let (subject, roles, groups) = match user {
        None => (format!("key:{key_id}"), row.try_get("policy_roles")?, row.try_get("groups")?),
        Some(user) => {
            let role = Role::try_from(i32::from(row.try_get::<i16, _>("member_role")?)).unwrap_or(Role::Unspecified);
            let made_up: Vec<String> = row.try_get("member_roles")?;
            (user.to_string(), domain::principal_roles(role, &made_up), row.try_get("member_groups")?)
        }
    };
    let expires_at: Option<DateTime<Utc>> = row.try_get("expires_at")?;
    Ok(ApiKey {
        key_id,
        org_id: org.to_string(),
        secret_sha256: row.try_get::<Vec<u8>, _>("secret_sha256")?.into(),
        subject,
        roles,
        groups,
        expires_at: expires_at.map_or(0, |at| at.timestamp().max(1)),
    })
}
