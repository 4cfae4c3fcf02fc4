//! Evidence about the logs: checkpoints, seals, what expired. Written by ingest, [`super::audit`] and maintenance in their own
//! transactions; read here for whoever verifies it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Store, ingest::LaneId};
use crate::evidence::{
    Hash,
    canon::START,
    checkpoint::{self, Checkpoint, Stand},
    purge::{Expired, Floor, Log, Purge},
    seal::Header,
    signer::Signature,
};

pub mod expiry;
pub mod rows;

/// Any fixed number: the lock of the one replica that takes a checkpoint.
const LOCK: i64 = 0x6d63_7067_775f_6370;

impl Store {
    /// Takes a checkpoint and signs it. None: nothing is new, or another replica is at it.
    pub async fn take_checkpoint(&self) -> Result<Option<(Checkpoint, Signature)>, Error> {
        let mut tx = self.pool().begin().await?;
        let won: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(LOCK).fetch_one(&mut *tx).await?;
        if !won {
            return Ok(None);
        }
        let last: Option<(i64, Vec<u8>, i64)> =
            sqlx::query_as("SELECT number, hash, audit_number FROM log_checkpoints ORDER BY number DESC LIMIT 1")
                .fetch_optional(&mut *tx)
                .await?;
        let (number, previous_hash, audited) = last.unwrap_or((0, START.to_vec(), -1));
        let (audit_number, audit_hash, began_at): (i64, Vec<u8>, DateTime<Utc>) =
            sqlx::query_as("SELECT number, hash, began_at FROM audit_chain").fetch_one(&mut *tx).await?;
        let (seals, stands) = moved(&mut tx).await?;
        if stands.is_empty() && audit_number == audited {
            return Ok(None);
        }
        let lanes = checkpoint::pack(&stands);
        let taken_at = now_as_kept();
        let root = checkpoint::root(&lanes).to_vec();
        let number = number + 1;
        let checkpoint = Checkpoint { number, taken_at, began_at, seals, root, audit_number, audit_hash, previous_hash };
        let signature = self.signer().sign(&checkpoint.hash());
        insert(&mut tx, &checkpoint, &lanes, &signature).await?;
        tx.commit().await?;
        Ok(Some((checkpoint, signature)))
    }
}

/// This moment, as Postgres would keep it.
pub fn now_as_kept() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

/// The lanes that have seals since the last checkpoint, in order, and how many seals. Marks them as covered.
async fn moved(connection: &mut PgConnection) -> Result<(i64, Vec<Stand>), Error> {
    let query = "UPDATE ship_cursor c SET checkpointed = c.sealed FROM ship_cursor before \
                 WHERE c.sealed > c.checkpointed AND (before.node_id, before.boot_id, before.lane) = (c.node_id, c.boot_id, c.lane) \
                 RETURNING c.node_id, c.boot_id, c.lane, c.sealed, c.last_seq, c.seal_hash, c.sealed - before.checkpointed";
    type Moved = (Uuid, Uuid, i32, i64, i64, Vec<u8>, i64);
    let rows: Vec<Moved> = sqlx::query_as(query).fetch_all(connection).await?;
    let (mut seals, mut stands) = (0, Vec::with_capacity(rows.len()));
    for (node_id, boot_id, lane, ordinal, last_seq, seal_hash, fresh) in rows {
        let wrong = || Error::Corrupt("ship_cursor.seal_hash: expected 32 bytes".into());
        let seal_hash: Hash = seal_hash.try_into().ok().ok_or_else(wrong)?;
        seals += fresh;
        stands.push(Stand { lane: LaneId { node_id, boot_id, lane }, ordinal, last_seq, seal_hash });
    }
    stands.sort_by_key(|stand| stand.lane);
    Ok((seals, stands))
}

async fn insert(tx: &mut PgConnection, checkpoint: &Checkpoint, lanes: &[u8], signature: &Signature) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO log_checkpoints (number, taken_at, began_at, seals, lanes, root, audit_number, audit_hash, previous_hash, hash, \
         key_id, signature) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(checkpoint.number)
    .bind(checkpoint.taken_at)
    .bind(checkpoint.began_at)
    .bind(checkpoint.seals)
    .bind(lanes)
    .bind(&checkpoint.root)
    .bind(checkpoint.audit_number)
    .bind(&checkpoint.audit_hash)
    .bind(&checkpoint.previous_hash)
    .bind(checkpoint.hash().as_slice())
    .bind(&signature.key_id)
    .bind(&signature.bytes)
    .execute(tx)
    .await?;
    Ok(())
}

/// A checkpoint as stored.
#[derive(Debug, Clone)]
pub struct KeptCheckpoint {
    pub checkpoint: Checkpoint,
    /// None: forgotten, its lanes are too old.
    pub lanes: Option<Vec<u8>>,
    pub hash: Vec<u8>,
    pub signature: Signature,
}

#[derive(sqlx::FromRow)]
struct CheckpointRow {
    number: i64,
    taken_at: DateTime<Utc>,
    began_at: DateTime<Utc>,
    seals: i64,
    lanes: Option<Vec<u8>>,
    root: Vec<u8>,
    audit_number: i64,
    audit_hash: Vec<u8>,
    previous_hash: Vec<u8>,
    hash: Vec<u8>,
    key_id: String,
    signature: Vec<u8>,
}

impl From<CheckpointRow> for KeptCheckpoint {
    fn from(row: CheckpointRow) -> Self {
        let CheckpointRow { number, taken_at, began_at, seals, root, audit_number, audit_hash, previous_hash, .. } = row;
        Self {
            checkpoint: Checkpoint { number, taken_at, began_at, seals, root, audit_number, audit_hash, previous_hash },
            lanes: row.lanes,
            hash: row.hash,
            signature: Signature { key_id: row.key_id, bytes: row.signature },
        }
    }
}

/// At most `limit` checkpoints behind a number, in order.
pub async fn checkpoints(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<KeptCheckpoint>, Error> {
    let query = "SELECT * FROM log_checkpoints WHERE number > $1 ORDER BY number LIMIT $2";
    let rows: Vec<CheckpointRow> = sqlx::query_as(query).bind(after).bind(limit).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// At most `limit` checkpoints before a number, newest first.
pub async fn checkpoints_before(connection: &mut PgConnection, before: i64, limit: i64) -> Result<Vec<KeptCheckpoint>, Error> {
    let query = "SELECT * FROM log_checkpoints WHERE number < $1 ORDER BY number DESC LIMIT $2";
    let rows: Vec<CheckpointRow> = sqlx::query_as(query).bind(before).bind(limit).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// A seal as stored.
#[derive(Debug, Clone)]
pub struct KeptSeal {
    pub header: Header,
    pub hash: Vec<u8>,
    pub signature: Signature,
    /// None: not asked for.
    pub entries: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct SealRow {
    number: i64,
    node_id: Uuid,
    boot_id: Uuid,
    lane: i32,
    ordinal: i64,
    sealed_at: DateTime<Utc>,
    first_seq: i64,
    last_seq: i64,
    chain_hash: Vec<u8>,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    orgs: Vec<Uuid>,
    entries: Option<Vec<u8>>,
    entries_hash: Vec<u8>,
    previous_hash: Vec<u8>,
    hash: Vec<u8>,
    key_id: String,
    signature: Vec<u8>,
}

impl From<SealRow> for KeptSeal {
    fn from(row: SealRow) -> Self {
        let SealRow { number, ordinal, sealed_at, first_seq, last_seq, chain_hash, first_at, last_at, orgs, .. } = row;
        let lane = LaneId { node_id: row.node_id, boot_id: row.boot_id, lane: row.lane };
        let (entries_hash, previous_hash) = (row.entries_hash, row.previous_hash);
        Self {
            header: Header {
                number,
                lane,
                ordinal,
                sealed_at,
                first_seq,
                last_seq,
                chain_hash,
                first_at,
                last_at,
                orgs,
                entries_hash,
                previous_hash,
            },
            hash: row.hash,
            signature: Signature { key_id: row.key_id, bytes: row.signature },
            entries: row.entries,
        }
    }
}

/// From when to when rows are looked at: decisions from the first moment on and before the second.
pub type Period = (DateTime<Utc>, DateTime<Utc>);

/// At most `limit` seals behind a place, by lane and ordinal; with their entries where these are about the period.
pub async fn seals(
    connection: &mut PgConnection,
    (lane, ordinal): (LaneId, i64),
    (from, to): Period,
    limit: i64,
) -> Result<Vec<KeptSeal>, Error> {
    let query = "SELECT number, node_id, boot_id, lane, ordinal, sealed_at, first_seq, last_seq, chain_hash, first_at, last_at, orgs, \
                 CASE WHEN last_at >= $5 AND first_at < $6 THEN entries END AS entries, entries_hash, previous_hash, hash, key_id, \
                 signature FROM log_seals WHERE (node_id, boot_id, lane, ordinal) > ($1, $2, $3, $4) \
                 ORDER BY node_id, boot_id, lane, ordinal LIMIT $7";
    let query = sqlx::query_as(query).bind(lane.node_id).bind(lane.boot_id).bind(lane.lane).bind(ordinal);
    let rows: Vec<SealRow> = query.bind(from).bind(to).bind(limit).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The seals with these numbers, with their entries.
pub async fn seals_of(connection: &mut PgConnection, numbers: &[i64]) -> Result<Vec<KeptSeal>, Error> {
    let query = "SELECT * FROM log_seals WHERE number = ANY($1)";
    let rows: Vec<SealRow> = sqlx::query_as(query).bind(numbers).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// How far the cursor of a lane says that it is sealed, and the last frame; none: there is no cursor.
pub async fn sealed(connection: &mut PgConnection, lane: LaneId) -> Result<Option<(i64, i64)>, Error> {
    let query = "SELECT sealed, last_seq FROM ship_cursor WHERE node_id = $1 AND boot_id = $2 AND lane = $3";
    let query = sqlx::query_as(query).bind(lane.node_id).bind(lane.boot_id).bind(lane.lane);
    Ok(query.fetch_optional(connection).await?)
}

/// Every lane that has been sealed.
pub async fn sealed_lanes(connection: &mut PgConnection) -> Result<Vec<(LaneId, i64)>, Error> {
    let query = "SELECT node_id, boot_id, lane, sealed FROM ship_cursor WHERE sealed > 0";
    let rows: Vec<(Uuid, Uuid, i32, i64)> = sqlx::query_as(query).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(node_id, boot_id, lane, sealed)| (LaneId { node_id, boot_id, lane }, sealed)).collect())
}

/// The floor of a lane, if seals of it were deleted.
pub async fn floor(connection: &mut PgConnection, lane: LaneId) -> Result<Option<(Floor, Signature)>, Error> {
    let query = "SELECT ordinal, seal_hash, before, key_id, signature FROM log_seal_floors WHERE node_id = $1 AND boot_id = $2 AND lane = $3";
    let query = sqlx::query_as(query).bind(lane.node_id).bind(lane.boot_id).bind(lane.lane);
    type Kept = (i64, Vec<u8>, DateTime<Utc>, String, Vec<u8>);
    let row: Option<Kept> = query.fetch_optional(connection).await?;
    Ok(row.map(|(ordinal, seal_hash, before, key_id, bytes)| {
        (Floor { lane, ordinal, seal_hash, before }, Signature { key_id, bytes })
    }))
}

/// A purge as stored.
#[derive(Debug, Clone)]
pub struct KeptPurge {
    pub purge: Purge,
    pub hash: Vec<u8>,
    pub signature: Signature,
}

#[derive(sqlx::FromRow)]
struct PurgeRow {
    id: Uuid,
    purged_at: DateTime<Utc>,
    orgs: Vec<Uuid>,
    before: Vec<DateTime<Utc>>,
    days: Vec<i32>,
    counts: Vec<i64>,
    numbers: Vec<i64>,
    hash: Vec<u8>,
    key_id: String,
    signature: Vec<u8>,
}

/// At most `limit` purges of a log behind a place, in order of time.
pub async fn purges(
    connection: &mut PgConnection,
    log: Log,
    (after, id): (DateTime<Utc>, Uuid),
    limit: i64,
) -> Result<Vec<KeptPurge>, Error> {
    let query = "SELECT * FROM log_purges WHERE log = $1 AND (purged_at, id) > ($2, $3) ORDER BY purged_at, id LIMIT $4";
    let query = sqlx::query_as(query).bind(log.as_str()).bind(after).bind(id).bind(limit);
    let rows: Vec<PurgeRow> = query.fetch_all(connection).await?;
    let kept = |row: PurgeRow| {
        let each = row.orgs.into_iter().zip(row.before).zip(row.days).zip(row.counts);
        let expired = each.map(|(((org, before), days), count)| Expired { org, before, days, count }).collect();
        KeptPurge {
            purge: Purge { id: row.id, purged_at: row.purged_at, log, expired, numbers: row.numbers },
            hash: row.hash,
            signature: Signature { key_id: row.key_id, bytes: row.signature },
        }
    };
    Ok(rows.into_iter().map(kept).collect())
}

/// Since when there is evidence, and where the chain of administrative records stands.
pub async fn audit_head(connection: &mut PgConnection) -> Result<(DateTime<Utc>, i64, Vec<u8>), Error> {
    Ok(sqlx::query_as("SELECT began_at, number, hash FROM audit_chain").fetch_one(connection).await?)
}

/// The slugs of organisations, for messages.
pub async fn slugs(connection: &mut PgConnection) -> Result<BTreeMap<Uuid, String>, Error> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as("SELECT id, slug FROM organizations").fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}
