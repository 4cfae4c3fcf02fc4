//! What is deleted because it is too old, and what is put on record of it: in one transaction where rows go first.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, LaneId, now_as_kept};
use crate::evidence::{
    Signer,
    purge::{self, Expired, Floor, Log, Purge},
};

/// Rows deleted in one statement, at most: no statement runs for minutes.
const SLICE: i64 = 10_000;
/// Lanes whose seals are deleted in one run.
const LANES: i64 = 500;

/// How long evidence about requests is kept at least, and requests of no organisation.
pub const EVIDENCE_DAYS: i32 = 90;
/// How long records of no organisation are kept, and at least how long a day's partition is.
const KEPT_DAYS: [(Log, i32); 2] = [(Log::Requests, EVIDENCE_DAYS), (Log::Audit, 400)];
/// Rows are counted up to here for the record of what expired: no statement counts for minutes either.
const COUNTED: i64 = 100_000;

/// What of a log is older than it is kept, by organisation. Moments are whole hours, so that there is not much to put on record.
pub async fn expired(connection: &mut PgConnection, log: Log) -> Result<Vec<Expired>, Error> {
    let query = match log {
        Log::Requests => {
            "SELECT o.id, b.before, o.request_log_retention_days, \
             (SELECT count(*) FROM (SELECT 1 FROM request_logs r WHERE r.org_id = o.id AND r.decided_at < b.before LIMIT $1) c) FROM organizations o, \
             LATERAL (SELECT date_trunc('hour', now() - make_interval(days => o.request_log_retention_days)) AS before) b \
             WHERE EXISTS (SELECT 1 FROM request_logs r WHERE r.org_id = o.id AND r.decided_at < b.before)"
        }
        Log::Audit => {
            "SELECT o.id, b.before, o.audit_log_retention_days, \
             (SELECT count(*) FROM (SELECT 1 FROM audit_logs r WHERE r.org_id = o.id AND r.occurred_at < b.before LIMIT $1) c) FROM organizations o, \
             LATERAL (SELECT date_trunc('hour', now() - make_interval(days => o.audit_log_retention_days)) AS before) b \
             WHERE EXISTS (SELECT 1 FROM audit_logs r WHERE r.org_id = o.id AND r.occurred_at < b.before)"
        }
    };
    let rows: Vec<(Uuid, DateTime<Utc>, i32, i64)> = sqlx::query_as(query).bind(COUNTED).fetch_all(&mut *connection).await?;
    let mut found: Vec<Expired> =
        rows.into_iter().map(|(org, before, days, count)| Expired { org, before, days, count }).collect();
    found.extend(expired_of_none(connection, log).await?);
    Ok(found)
}

/// What no organisation that there is says how long to keep.
async fn expired_of_none(connection: &mut PgConnection, log: Log) -> Result<Option<Expired>, Error> {
    let (before, days) = horizon(connection, log).await?;
    let query = match log {
        Log::Requests => "SELECT count(*) FROM (SELECT 1 FROM request_logs r WHERE r.decided_at < $1 LIMIT $2) c",
        Log::Audit => "SELECT count(*) FROM (SELECT 1 FROM audit_logs r WHERE r.occurred_at < $1 LIMIT $2) c",
    };
    let count: i64 = sqlx::query_scalar(query).bind(before).bind(COUNTED).fetch_one(connection).await?;
    Ok((count > 0).then_some(Expired { org: Uuid::nil(), before, days, count }))
}

/// Before when nothing of a log is kept, by any organisation; and how many days that is, at least.
pub async fn horizon(connection: &mut PgConnection, log: Log) -> Result<(DateTime<Utc>, i32), Error> {
    let least = KEPT_DAYS.into_iter().find_map(|(of, days)| (of == log).then_some(days)).unwrap_or_default();
    let query = match log {
        Log::Requests => {
            "SELECT date_trunc('day', now() - make_interval(days => d.days + 1), 'UTC'), d.days FROM \
             (SELECT greatest($1, (SELECT max(request_log_retention_days) FROM organizations)) AS days) d"
        }
        Log::Audit => {
            "SELECT date_trunc('day', now() - make_interval(days => d.days + 1), 'UTC'), d.days FROM \
             (SELECT greatest($1, (SELECT max(audit_log_retention_days) FROM organizations)) AS days) d"
        }
    };
    Ok(sqlx::query_as(query).bind(least).fetch_one(connection).await?)
}

/// Puts on record that requests expired: before they are deleted, so that none is missing without a reason.
pub async fn announce(connection: &mut PgConnection, expired: Vec<Expired>, signer: &Signer) -> Result<(), Error> {
    let purge = Purge { id: Uuid::now_v7(), purged_at: now_as_kept(), log: Log::Requests, expired, numbers: Vec::new() };
    keep(connection, &purge, signer).await
}

async fn keep(connection: &mut PgConnection, purge: &Purge, signer: &Signer) -> Result<(), Error> {
    let hash = purge.hash();
    let signature = signer.sign(&hash);
    sqlx::query(
        "INSERT INTO log_purges (id, purged_at, log, orgs, before, days, counts, numbers, hash, key_id, signature) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(purge.id)
    .bind(purge.purged_at)
    .bind(purge.log.as_str())
    .bind(purge.expired.iter().map(|one| one.org).collect::<Vec<_>>())
    .bind(purge.expired.iter().map(|one| one.before).collect::<Vec<_>>())
    .bind(purge.expired.iter().map(|one| one.days).collect::<Vec<_>>())
    .bind(purge.expired.iter().map(|one| one.count).collect::<Vec<_>>())
    .bind(&purge.numbers)
    .bind(hash.as_slice())
    .bind(signature.key_id)
    .bind(signature.bytes)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes requests that expired, a slice at a time; what no organisation keeps goes with its day's partition. How many.
pub async fn delete_requests(connection: &mut PgConnection, expired: &Expired) -> Result<u64, Error> {
    let mut deleted = 0;
    loop {
        let query = "DELETE FROM request_logs l USING (SELECT r.decided_at, r.request_id FROM request_logs r \
                     WHERE (r.org_id = $1 OR $1 = '00000000-0000-0000-0000-000000000000') AND r.decided_at < $2 LIMIT $3) old \
                     WHERE l.decided_at < $2 AND l.decided_at = old.decided_at AND l.request_id = old.request_id";
        let query = sqlx::query(query).bind(expired.org).bind(expired.before).bind(SLICE);
        let slice = query.execute(&mut *connection).await?.rows_affected();
        deleted += slice;
        if slice < SLICE.unsigned_abs() {
            return Ok(deleted);
        }
    }
}

/// Deletes administrative records that expired, and puts their numbers on record. How many.
pub async fn delete_records(connection: &mut PgConnection, expired: Expired, signer: &Signer) -> Result<u64, Error> {
    let mut deleted = 0;
    loop {
        let mut tx = super::super::begin_within(connection).await?;
        let query = "DELETE FROM audit_logs l USING (SELECT r.occurred_at, r.id FROM audit_logs r \
                     WHERE (r.org_id = $1 OR $1 = '00000000-0000-0000-0000-000000000000') AND r.occurred_at < $2 LIMIT $3) old \
                     WHERE l.occurred_at < $2 AND l.occurred_at = old.occurred_at AND l.id = old.id RETURNING l.number";
        let query = sqlx::query_scalar(query).bind(expired.org).bind(expired.before).bind(SLICE);
        let gone: Vec<Option<i64>> = query.fetch_all(&mut *tx).await?;
        let slice = i64::try_from(gone.len()).unwrap_or(SLICE);
        if slice > 0 {
            let mut numbers: Vec<i64> = gone.into_iter().flatten().collect();
            numbers.sort_unstable();
            let (purged_at, numbers) = (now_as_kept(), purge::runs(&numbers));
            let expired = vec![Expired { count: slice, ..expired.clone() }];
            let purge = Purge { id: Uuid::now_v7(), purged_at, log: Log::Audit, expired, numbers };
            keep(&mut tx, &purge, signer).await?;
        }
        tx.commit().await?;
        deleted += slice.unsigned_abs();
        if slice < SLICE {
            return Ok(deleted);
        }
    }
}

/// Drops day partitions of a log that end before a moment. Their names.
pub async fn drop_partitions(connection: &mut PgConnection, log: Log, before: DateTime<Utc>) -> Result<Vec<String>, Error> {
    let query = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
                 WHERE i.inhparent = $1::regclass AND c.relname ~ ('^' || $1 || '_[0-9]{8}$') \
                 AND to_date(right(c.relname, 8), 'YYYYMMDD') < ($2 AT TIME ZONE 'UTC')::date ORDER BY 1";
    let mut old: Vec<String> = sqlx::query_scalar(query).bind(log.as_str()).bind(before).fetch_all(&mut *connection).await?;
    old.retain(|name| NaiveDate::parse_from_str(name.rsplit('_').next().unwrap_or_default(), "%Y%m%d").is_ok());
    for name in &old {
        // The name is letters and digits, as the query and the line above have seen.
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {name}"))).execute(&mut *connection).await?;
    }
    Ok(old)
}

/// Deletes seals that only cover what is older than `before`, lane by lane from the first, and says where each lane's begin now. How many.
pub async fn delete_seals(connection: &mut PgConnection, before: DateTime<Utc>, signer: &Signer) -> Result<u64, Error> {
    let query = "SELECT l.node_id, l.boot_id, l.lane, last.ordinal, last.hash FROM \
                 (SELECT DISTINCT node_id, boot_id, lane FROM log_seals WHERE sealed_at < $1 AND last_at < $1 LIMIT $2) l, \
                 LATERAL (SELECT s.ordinal, s.hash FROM log_seals s WHERE (s.node_id, s.boot_id, s.lane) = (l.node_id, l.boot_id, l.lane) \
                   AND s.ordinal < coalesce((SELECT min(k.ordinal) FROM log_seals k \
                     WHERE (k.node_id, k.boot_id, k.lane) = (l.node_id, l.boot_id, l.lane) AND NOT (k.sealed_at < $1 AND k.last_at < $1)), \
                     9223372036854775807) ORDER BY s.ordinal DESC LIMIT 1) last";
    let rows: Vec<(Uuid, Uuid, i32, i64, Vec<u8>)> =
        sqlx::query_as(query).bind(before).bind(LANES).fetch_all(&mut *connection).await?;
    let mut deleted = 0;
    for (node_id, boot_id, lane, ordinal, seal_hash) in rows {
        let floor = Floor { lane: LaneId { node_id, boot_id, lane }, ordinal, seal_hash, before };
        let signature = signer.sign(&floor.hash());
        let query = "WITH gone AS (DELETE FROM log_seals WHERE node_id = $1 AND boot_id = $2 AND lane = $3 AND ordinal <= $4 RETURNING 1), \
                     floor AS (INSERT INTO log_seal_floors (node_id, boot_id, lane, ordinal, seal_hash, before, key_id, signature) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (node_id, boot_id, lane) DO UPDATE SET \
                       ordinal = excluded.ordinal, seal_hash = excluded.seal_hash, before = excluded.before, key_id = excluded.key_id, \
                       signature = excluded.signature) \
                     SELECT count(*) FROM gone";
        let query = sqlx::query_scalar(query).bind(node_id).bind(boot_id).bind(lane).bind(ordinal);
        let query = query.bind(floor.seal_hash).bind(before).bind(signature.key_id).bind(signature.bytes);
        let gone: i64 = query.fetch_one(&mut *connection).await?;
        deleted += gone.unsigned_abs();
    }
    Ok(deleted)
}

/// Forgets evidence about what is older than `before`: the lanes of checkpoints, purges of requests, and lanes without seals.
pub async fn forget(connection: &mut PgConnection, before: DateTime<Utc>) -> Result<u64, Error> {
    const OLD: [&str; 4] = [
        "UPDATE log_checkpoints SET lanes = NULL WHERE taken_at < $1 AND lanes IS NOT NULL",
        "DELETE FROM log_purges WHERE log = 'request_logs' AND purged_at < $1",
        "DELETE FROM ship_cursor c WHERE updated_at < $1 - interval '2 days' AND NOT EXISTS \
         (SELECT 1 FROM log_seals s WHERE (s.node_id, s.boot_id, s.lane) = (c.node_id, c.boot_id, c.lane))",
        "DELETE FROM log_seal_floors f WHERE before < $1 - interval '7 days' AND NOT EXISTS \
         (SELECT 1 FROM ship_cursor c WHERE (c.node_id, c.boot_id, c.lane) = (f.node_id, f.boot_id, f.lane)) AND NOT EXISTS \
         (SELECT 1 FROM log_seals s WHERE (s.node_id, s.boot_id, s.lane) = (f.node_id, f.boot_id, f.lane))",
    ];
    let mut forgotten = 0;
    for statement in OLD {
        forgotten += sqlx::query(statement).bind(before).execute(&mut *connection).await?.rows_affected();
    }
    Ok(forgotten)
}

/// Rows in the default partition of a log: of clocks that are wrong, or of days whose partition was not made in time.
pub async fn misplaced(connection: &mut PgConnection, log: Log) -> Result<i64, Error> {
    let query = match log {
        Log::Requests => "SELECT count(*) FROM request_logs_default",
        Log::Audit => "SELECT count(*) FROM audit_logs_default",
    };
    Ok(sqlx::query_scalar(query).fetch_one(connection).await?)
}
