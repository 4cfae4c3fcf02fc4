//! Nodes, and what they run.

use chrono::{DateTime, Utc};
use mcp_gateway::snapshot::Version;
use sqlx::{FromRow, PgConnection, Row as _, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::{Error, Store, node_status::Vitals};
use crate::{
    domain::{Labels, Meta},
    ingest::record::{array_literal, number},
};

/// A node with what it last reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub id: Uuid,
    pub display_name: String,
    pub pool: String,
    pub labels: Labels,
    pub meta: Meta,
    pub certificate_expires_at: DateTime<Utc>,
    /// Whether a discovery stream is open, on any replica.
    pub connected: bool,
    /// Zero: none yet.
    pub applied: Version,
    pub build: String,
    /// The version that it refused since; zero: none.
    pub refused: Version,
    pub problems: Vec<String>,
    pub last_seen_at: Option<DateTime<Utc>>,
    /// None: it never told of itself.
    pub reported_at: Option<DateTime<Utc>>,
    pub vitals: Vitals,
    /// `host:port` for other nodes; empty: none.
    pub advertise: String,
}

/// A node as it joins or renews.
#[derive(Debug)]
pub struct Enrolled<'a> {
    pub id: Uuid,
    pub display_name: &'a str,
    pub pool: &'a str,
    pub spki_sha256: [u8; 32],
    pub hpke_public_key: &'a [u8],
    pub certificate_expires_at: DateTime<Utc>,
}

/// What the discovery streams of this replica know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub node_id: Uuid,
    pub connected: bool,
    /// None: not known on this replica.
    pub applied: Option<Version>,
    /// Zero: none since it applied one. None: as it was.
    pub refused: Option<Version>,
    /// None: as it was.
    pub problems: Option<Vec<String>>,
    /// `host:port` for other nodes; empty: nowhere. None: as it was.
    pub advertise: Option<String>,
}

/// A replica that has not confirmed a stream for this long does not hold it any more.
const STALE: &str = "45 seconds";

const NODE: &str = "SELECT n.id, n.display_name, n.pool, n.labels, n.revision, n.certificate_expires_at, n.created_at, \
    coalesce(s.connected AND s.last_seen_at > now() - interval '45 seconds', false) AS connected, \
    coalesce(s.epoch, 0) AS epoch, coalesce(s.version, 0) AS version, coalesce(s.build, '') AS build, \
    coalesce(s.refused_epoch, 0) AS refused_epoch, coalesce(s.refused_version, 0) AS refused_version, \
    coalesce(s.problems, '{}') AS problems, s.last_seen_at, s.reported_at, coalesce(s.stale_seconds, 0) AS stale_seconds, \
    coalesce(s.quarantined, 0) AS quarantined, coalesce(s.spool_frames, 0) AS spool_frames, \
    coalesce(s.spool_oldest_ms, 0) AS spool_oldest_ms, coalesce(s.open_streams, 0) AS open_streams, \
    coalesce(s.advertise, '') AS advertise FROM nodes n LEFT JOIN node_status s ON s.node_id = n.id \
    WHERE n.revoked_at IS NULL";

impl FromRow<'_, PgRow> for Node {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let unsigned = |column| row.try_get(column).map(i64::unsigned_abs);
        Ok(Self {
            id: row.try_get("id")?,
            display_name: row.try_get("display_name")?,
            pool: row.try_get("pool")?,
            labels: row.try_get::<Json<Labels>, _>("labels")?.0,
            meta: Meta {
                revision: row.try_get("revision")?,
                config_version: 0,
                created_at: row.try_get("created_at")?,
                updated_at: row.try_get("created_at")?,
            },
            certificate_expires_at: row.try_get("certificate_expires_at")?,
            connected: row.try_get("connected")?,
            applied: Version { epoch: unsigned("epoch")?, version: unsigned("version")? },
            build: row.try_get("build")?,
            refused: Version { epoch: unsigned("refused_epoch")?, version: unsigned("refused_version")? },
            problems: row.try_get("problems")?,
            last_seen_at: row.try_get("last_seen_at")?,
            reported_at: row.try_get("reported_at")?,
            advertise: row.try_get("advertise")?,
            vitals: Vitals {
                stale_seconds: unsigned("stale_seconds")?,
                quarantined: row.try_get("quarantined").map(i32::unsigned_abs)?,
                spool_frames: unsigned("spool_frames")?,
                spool_oldest_ms: unsigned("spool_oldest_ms")?,
                open_streams: row.try_get("open_streams").map(i32::unsigned_abs)?,
            },
        })
    }
}

impl Store {
    /// One node.
    pub async fn node(&self, id: Uuid) -> Result<Option<Node>, Error> {
        let query = sqlx::query_as(const_format_node("AND n.id = $1")).bind(id);
        Ok(query.fetch_optional(&mut *self.connection().await?).await?)
    }

    /// Nodes after `after`, by id, with all of these labels; of one pool, or of all where it is empty.
    pub async fn nodes(&self, pool: &str, labels: &Labels, after: Option<Uuid>, limit: i64) -> Result<Vec<Node>, Error> {
        let query = sqlx::query_as(const_format_node(
            "AND ($1 = '' OR n.pool = $1) AND n.labels @> $2 AND ($3::uuid IS NULL OR n.id > $3) ORDER BY n.id LIMIT $4",
        ));
        let query = query.bind(pool).bind(Json(labels)).bind(after).bind(limit);
        Ok(query.fetch_all(&mut *self.connection().await?).await?)
    }

    /// Every node.
    pub async fn all_nodes(&self) -> Result<Vec<Node>, Error> {
        Ok(sqlx::query_as(const_format_node("ORDER BY n.id")).fetch_all(&mut *self.connection().await?).await?)
    }

    /// Every node with an open stream on any replica, and those whose stream ended within the last two seconds: nodes change streams
    /// in good order, to show a new certificate or to say what they hold.
    pub async fn present_nodes(&self) -> Result<Vec<Node>, Error> {
        let query = const_format_node(
            "AND s.last_seen_at > now() - CASE WHEN s.connected THEN interval '45 seconds' ELSE interval '2 seconds' END \
             ORDER BY n.id",
        );
        Ok(sqlx::query_as(query).fetch_all(&mut *self.connection().await?).await?)
    }

    /// Whether the node joined this pool and was not removed.
    pub async fn is_member(&self, id: Uuid, pool: &str) -> Result<bool, Error> {
        let query = sqlx::query_scalar("SELECT EXISTS (SELECT FROM nodes WHERE id = $1 AND pool = $2 AND revoked_at IS NULL)");
        Ok(query.bind(id).bind(pool).fetch_one(&mut *self.connection().await?).await?)
    }

    /// Notes a renewed certificate; `presented` is the key of the one that it was asked for with. False: there is no such node, or it was
    /// removed.
    pub async fn renew_node(&self, node: &Enrolled<'_>, presented: Option<[u8; 32]>) -> Result<bool, Error> {
        // Should the answer get lost, the node is left with the keys that it asked with: they stay registered beside the new ones.
        let renewed = sqlx::query(
            "UPDATE nodes SET spki_sha256 = $3, hpke_public_key = $4, certificate_expires_at = $5, \
             previous_spki_sha256 = CASE WHEN spki_sha256 = $6 THEN spki_sha256 ELSE previous_spki_sha256 END, \
             previous_hpke_public_key = CASE WHEN spki_sha256 = $6 THEN hpke_public_key ELSE previous_hpke_public_key END \
             WHERE id = $1 AND pool = $2 AND revoked_at IS NULL",
        )
        .bind(node.id)
        .bind(node.pool)
        .bind(node.spki_sha256.as_slice())
        .bind(node.hpke_public_key)
        .bind(node.certificate_expires_at)
        .bind(presented.map(|key| key.to_vec()))
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Notes what the streams of `replica` know. What another replica says of a node that went there stands.
    pub async fn note_seen(&self, replica: &str, seen: &[Seen]) -> Result<(), Error> {
        let applied = |of: fn(Version) -> u64| seen.iter().map(|s| s.applied.map(|v| number(of(v)))).collect::<Vec<_>>();
        let refused = |of: fn(Version) -> u64| seen.iter().map(|s| s.refused.map(|v| number(of(v)))).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO node_status AS s (node_id, replica, connected, epoch, version, problems, last_seen_at, applied_at, \
             refused_epoch, refused_version) \
             SELECT r.node_id, $1, r.connected, coalesce(r.epoch, 0), coalesce(r.version, 0), coalesce(r.problems::text[], '{}'), now(), \
             CASE WHEN r.epoch IS NOT NULL THEN now() END, r.refused_epoch, r.refused_version \
             FROM unnest($2::uuid[], $3::boolean[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[]) \
             AS r (node_id, connected, epoch, version, problems, refused_epoch, refused_version) JOIN nodes n ON n.id = r.node_id \
             ON CONFLICT (node_id) DO UPDATE SET replica = excluded.replica, connected = excluded.connected, \
             epoch = CASE WHEN excluded.epoch = 0 THEN s.epoch ELSE excluded.epoch END, \
             version = CASE WHEN excluded.epoch = 0 THEN s.version ELSE excluded.version END, \
             problems = CASE WHEN excluded.epoch = 0 AND excluded.problems = '{}' THEN s.problems ELSE excluded.problems END, \
             refused_epoch = coalesce(excluded.refused_epoch, s.refused_epoch), \
             refused_version = coalesce(excluded.refused_version, s.refused_version), \
             last_seen_at = now(), applied_at = coalesce(excluded.applied_at, s.applied_at) \
             WHERE excluded.connected OR s.replica = excluded.replica",
        )
        .bind(replica)
        .bind(seen.iter().map(|s| s.node_id).collect::<Vec<_>>())
        .bind(seen.iter().map(|s| s.connected).collect::<Vec<_>>())
        .bind(applied(|version| version.epoch))
        .bind(applied(|version| version.version))
        .bind(seen.iter().map(|s| s.problems.as_ref().map(|problems| array_literal(problems))).collect::<Vec<_>>())
        .bind(refused(|version| version.epoch))
        .bind(refused(|version| version.version))
        .execute(&mut *self.connection().await?)
        .await?;
        self.note_addresses(seen).await
    }

    /// Streams of replicas that died are not open any more. How many there were.
    pub async fn forget_stale_streams(&self) -> Result<u64, Error> {
        let query =
            sqlx::query("UPDATE node_status SET connected = false WHERE connected AND last_seen_at < now() - $1::interval");
        Ok(query.bind(STALE).execute(&mut *self.connection().await?).await?.rows_affected())
    }
}

/// The node query with a condition: only ever literals of this file.
fn const_format_node(condition: &'static str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{NODE} {condition}"))
}

/// These nodes, as far as they were not removed.
pub async fn some(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Node>, Error> {
    let query = sqlx::query_as(const_format_node("AND n.id = ANY ($1) ORDER BY n.id")).bind(ids);
    Ok(query.fetch_all(connection).await?)
}

/// A node, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, id: Uuid) -> Result<Option<Node>, Error> {
    let query = sqlx::query_as(const_format_node("AND n.id = $1 FOR UPDATE OF n")).bind(id);
    Ok(query.fetch_optional(connection).await?)
}

/// Writes what may change of a node that the caller has locked; its new revision is in what comes back.
pub async fn update(connection: &mut PgConnection, node: Node) -> Result<Node, Error> {
    let query = sqlx::query_scalar(
        "UPDATE nodes SET display_name = $2, labels = $3, revision = revision + 1 WHERE id = $1 RETURNING revision",
    );
    let revision = query.bind(node.id).bind(&node.display_name).bind(Json(&node.labels)).fetch_one(connection).await?;
    Ok(Node { meta: Meta { revision, ..node.meta }, ..node })
}

/// Adds a node.
pub async fn insert_node(connection: &mut PgConnection, node: &Enrolled<'_>, labels: &Labels) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO nodes (id, display_name, pool, spki_sha256, hpke_public_key, certificate_expires_at, labels) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(node.id)
    .bind(node.display_name)
    .bind(node.pool)
    .bind(node.spki_sha256.as_slice())
    .bind(node.hpke_public_key)
    .bind(node.certificate_expires_at)
    .bind(Json(labels))
    .execute(connection)
    .await?;
    Ok(())
}

/// What a node registered under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub hpke_public_key: Vec<u8>,
    /// How often it recovered within the last day.
    pub recoveries: usize,
}

/// What the node registered with this key, locked until the transaction ends. None: no such node, it was removed, or it is not its key.
pub async fn registered(
    connection: &mut PgConnection,
    id: Uuid,
    pool: &str,
    spki_sha256: &[u8; 32],
) -> Result<Option<Registered>, Error> {
    let row: Option<(Vec<u8>, i64)> = sqlx::query_as(
        "SELECT CASE WHEN spki_sha256 = $3 THEN hpke_public_key ELSE previous_hpke_public_key END, \
         (SELECT count(*) FROM unnest(recoveries) AS r (at) WHERE r.at > now() - interval '1 day') FROM nodes \
         WHERE id = $1 AND pool = $2 AND revoked_at IS NULL AND $3 IN (spki_sha256, previous_spki_sha256) FOR UPDATE",
    )
    .bind(id)
    .bind(pool)
    .bind(spki_sha256.as_slice())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(hpke_public_key, recoveries)| Registered {
        hpke_public_key,
        recoveries: usize::try_from(recoveries).unwrap_or(usize::MAX),
    }))
}

/// Notes a recovery of a node that the caller has locked.
pub async fn recovered(connection: &mut PgConnection, node: &Enrolled<'_>) -> Result<(), Error> {
    sqlx::query(
        "UPDATE nodes SET spki_sha256 = $2, hpke_public_key = $3, certificate_expires_at = $4, recoveries = \
         ARRAY (SELECT r.at FROM unnest(recoveries) AS r (at) WHERE r.at > now() - interval '1 day' ORDER BY 1) || now() WHERE id = $1",
    )
    .bind(node.id)
    .bind(node.spki_sha256.as_slice())
    .bind(node.hpke_public_key)
    .bind(node.certificate_expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes a node for good: its row stays, so that its certificate is known to be void. Its pool; none: there is no such node.
/// Publishers are woken: they end its stream.
pub async fn revoke_node(connection: &mut PgConnection, id: Uuid) -> Result<Option<String>, Error> {
    let revoked =
        sqlx::query_scalar("UPDATE nodes SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING pool").bind(id);
    let pool: Option<String> = revoked.fetch_optional(&mut *connection).await?;
    if pool.is_some() {
        sqlx::query("SELECT pg_notify($1, '')").bind(super::change::CHANNEL).execute(connection).await?;
    }
    Ok(pool)
}
