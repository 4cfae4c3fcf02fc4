//! What nodes say of themselves, and what it takes to tell people how they stand: since when they are behind, whom a problem concerns.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use mcp_gateway::{proto::config::v1::Peer, snapshot::Version};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{Error, Store, found, limit_usage, nodes::Seen};
use crate::{
    domain::{found::Found, usage::Count},
    ingest::record::number,
};

/// What a node says of itself beside what it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Since a control plane last confirmed what it runs; 0: one does.
    pub stale_seconds: u64,
    /// Organisations that it keeps on their last good configuration.
    pub quarantined: u32,
    /// Audit frames that wait to be acknowledged.
    pub spool_frames: u64,
    /// Age of the oldest of them, in milliseconds.
    pub spool_oldest_ms: u64,
    /// Open client streams.
    pub open_streams: u32,
}

/// A node's report.
#[derive(Debug)]
pub struct Report<'a> {
    pub node_id: Uuid,
    pub applied: Version,
    pub digest: &'a [u8],
    pub build: &'a str,
    /// `host:port`; empty: none.
    pub advertise: &'a str,
    pub vitals: Vitals,
    /// How full counts of rate limits are, by organisation.
    pub usage: &'a BTreeMap<Uuid, Vec<Count>>,
    /// What was found out about servers.
    pub found: &'a BTreeMap<Uuid, Found>,
}

/// The nodes of each pool that others can reach, sorted by id. Nodes count while they were heard of in the last five minutes: a control
/// plane that restarts makes no list shorter.
pub(super) async fn peers(connection: &mut PgConnection) -> Result<BTreeMap<String, Vec<Peer>>, Error> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT n.pool, n.id::text, s.advertise FROM node_status s JOIN nodes n ON n.id = s.node_id \
         WHERE s.advertise <> '' AND n.revoked_at IS NULL AND s.last_seen_at > now() - interval '5 minutes' ORDER BY n.id",
    )
    .fetch_all(connection)
    .await?;
    let mut peers: BTreeMap<String, Vec<Peer>> = BTreeMap::new();
    for (pool, node_id, address) in rows {
        peers.entry(pool).or_default().push(Peer { node_id, address });
    }
    Ok(peers)
}

/// A pool, and a version that a node of it runs.
pub type Standing = (String, Version);

#[derive(FromRow)]
struct Since {
    pool: String,
    epoch: i64,
    version: i64,
    since: Option<DateTime<Utc>>,
}

impl Store {
    /// Notes what a node says of itself. Whether a stream is open is not for it to say, and what its stream told in the last half
    /// minute stands: the report may have been overtaken. False: there is no such node, or it was removed.
    pub async fn note_report(&self, report: &Report<'_>) -> Result<bool, Error> {
        let mut connection = self.connection().await?;
        let Vitals { stale_seconds, quarantined, spool_frames, spool_oldest_ms, open_streams } = report.vitals;
        let noted = sqlx::query(
            "INSERT INTO node_status AS s (node_id, epoch, version, digest, build, \
             reported_at, stale_seconds, quarantined, spool_frames, spool_oldest_ms, open_streams, advertise) \
             SELECT id, $2, $3, $4, $5, now(), $6, $7, $8, $9, $10, $11 FROM nodes WHERE id = $1 AND revoked_at IS NULL \
             ON CONFLICT (node_id) DO UPDATE SET (epoch, version) = (SELECT e, v FROM (VALUES \
             (s.epoch, s.version, s.connected AND s.applied_at > now() - interval '30 seconds'), \
             (excluded.epoch, excluded.version, true)) AS said (e, v, counts) WHERE counts ORDER BY e DESC, v DESC LIMIT 1), \
             digest = excluded.digest, build = excluded.build, \
             last_seen_at = CASE WHEN s.connected THEN s.last_seen_at ELSE now() END, reported_at = excluded.reported_at, \
             stale_seconds = excluded.stale_seconds, quarantined = excluded.quarantined, spool_frames = excluded.spool_frames, \
             spool_oldest_ms = excluded.spool_oldest_ms, open_streams = excluded.open_streams, advertise = excluded.advertise",
        )
        .bind(report.node_id)
        .bind(number(report.applied.epoch))
        .bind(number(report.applied.version))
        .bind(report.digest)
        .bind(report.build)
        .bind(number(stale_seconds))
        .bind(quarantined.min(i32::MAX.unsigned_abs()).cast_signed())
        .bind(number(spool_frames))
        .bind(number(spool_oldest_ms))
        .bind(open_streams.min(i32::MAX.unsigned_abs()).cast_signed())
        .bind(report.advertise)
        .execute(&mut *connection)
        .await?;
        if noted.rows_affected() == 0 {
            return Ok(false);
        }
        limit_usage::note(&mut connection, report.node_id, report.usage).await?;
        found::note(&mut connection, report.node_id, report.found).await?;
        Ok(true)
    }

    /// How many nodes of a pool were heard of in the last 45 s: that is four reports, and what a closed stream takes to be noticed.
    pub async fn live_nodes(&self, pool: &str) -> Result<u32, Error> {
        let query = sqlx::query_scalar(
            "SELECT count(*) FROM node_status s JOIN nodes n ON n.id = s.node_id WHERE n.pool = $1 AND n.revoked_at IS NULL \
             AND greatest(s.last_seen_at, s.reported_at) > now() - interval '45 seconds'",
        );
        let count: i64 = query.bind(pool).fetch_one(&mut *self.connection().await?).await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Notes where nodes can be reached, as they said on their streams.
    pub(super) async fn note_addresses(&self, seen: &[Seen]) -> Result<(), Error> {
        let said: Vec<_> = seen.iter().filter_map(|s| s.advertise.as_deref().map(|address| (s.node_id, address))).collect();
        if said.is_empty() {
            return Ok(());
        }
        let (nodes, addresses): (Vec<Uuid>, Vec<&str>) = said.into_iter().unzip();
        sqlx::query(
            "UPDATE node_status AS s SET advertise = r.advertise FROM unnest($1::uuid[], $2::text[]) AS r (node_id, advertise) \
             WHERE s.node_id = r.node_id AND s.advertise <> r.advertise",
        )
        .bind(nodes)
        .bind(addresses)
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(())
    }

    /// When the first change was committed that reached the pool after the version. Without an entry: the log does not tell.
    pub async fn first_changes_after(&self, standings: &[Standing]) -> Result<BTreeMap<Standing, DateTime<Utc>>, Error> {
        let part = |of: fn(Version) -> u64| standings.iter().map(|(_, version)| number(of(*version))).collect::<Vec<_>>();
        let rows: Vec<Since> = sqlx::query_as(
            "SELECT a.pool, a.epoch, a.version, (SELECT c.committed_at FROM config_change c \
             LEFT JOIN organizations o ON o.id = c.org_id WHERE (c.epoch, c.version) > (a.epoch, a.version) \
             AND (o.id IS NULL OR o.pool = a.pool) ORDER BY c.epoch, c.version LIMIT 1) AS since \
             FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS a (pool, epoch, version)",
        )
        .bind(standings.iter().map(|(pool, _)| pool.as_str()).collect::<Vec<_>>())
        .bind(part(|version| version.epoch))
        .bind(part(|version| version.version))
        .fetch_all(&mut *self.connection().await?)
        .await?;
        let entry = |row: Since| {
            let version = Version { epoch: row.epoch.unsigned_abs(), version: row.version.unsigned_abs() };
            row.since.map(|since| ((row.pool, version), since))
        };
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    /// The slugs of organisations; those that are gone have none.
    pub async fn slugs(&self, ids: &[Uuid]) -> Result<BTreeMap<Uuid, String>, Error> {
        let query = sqlx::query_as("SELECT id, slug FROM organizations WHERE id = ANY($1)").bind(ids);
        let rows: Vec<(Uuid, String)> = query.fetch_all(&mut *self.connection().await?).await?;
        Ok(rows.into_iter().collect())
    }
}
