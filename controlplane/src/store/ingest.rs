//! Audit frames into `request_logs`, what a batch brought into `log_seals`, and how far each lane is committed: one transaction for all of
//! it, so that a frame counts once and no row is without its seal.
//!
//! A row may be begun by either frame of its call: lanes are committed on their own, and a call's end may overtake its beginning.

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{Error, Store, accounts::Touched};
use crate::{
    evidence::{
        Signer,
        seal::{self, Head, Run, Seal},
    },
    ingest::{
        lane::Cursor,
        record::{Batch, End, Key, Row, array_literal, number, octets},
    },
};

/// Which lane of which process run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    pub node_id: Uuid,
    pub boot_id: Uuid,
    pub lane: i32,
}

impl Store {
    /// Locks a lane until the transaction ends, and says how far it is committed and sealed.
    pub async fn lock_lane(&self, id: LaneId) -> Result<(Transaction<'static, Postgres>, Cursor, Head), Error> {
        let mut tx = self.pool().begin().await?;
        let (last_seq, last_hash, sealed, seal_hash, next_number): (i64, Vec<u8>, i64, Vec<u8>, i64) = sqlx::query_as(
            "INSERT INTO ship_cursor (node_id, boot_id, lane, last_seq, last_hash) VALUES ($1, $2, $3, 0, $4) \
             ON CONFLICT (node_id, boot_id, lane) DO UPDATE SET lane = excluded.lane \
             RETURNING last_seq, last_hash, sealed, seal_hash, nextval('log_seal_numbers')",
        )
        .bind(id.node_id)
        .bind(id.boot_id)
        .bind(id.lane)
        .bind([0u8; 32].as_slice())
        .fetch_one(&mut *tx)
        .await?;
        let length = || Error::Corrupt("ship_cursor.last_hash and seal_hash: expected 32 bytes".into());
        let last_hash = last_hash.try_into().ok().ok_or_else(length)?;
        let head = Head::stored(sealed, &seal_hash, next_number).ok_or_else(length)?;
        Ok((tx, Cursor { last_seq: last_seq.unsigned_abs(), last_hash }, head))
    }
}

/// A batch, and the number of the seal that covers it.
#[derive(Debug, Clone, Copy)]
struct Sealing<'a> {
    lane: LaneId,
    number: i64,
    batch: &'a Batch,
}

/// Inserts what a batch holds, seals it and moves the lane's cursor behind it. Says which rows it touched.
pub async fn write(
    tx: &mut PgConnection,
    head: &Head,
    run: &Run<'_>,
    batch: &Batch,
    signer: &Signer,
) -> Result<Vec<Touched>, Error> {
    let touched = insert(tx, &Sealing { lane: run.lane, number: head.next_number, batch }).await?;
    let entries = seal::entries(run.lane, head.next_number, batch, &touched);
    advance(tx, &Seal::new(head, run, &entries), signer).await?;
    Ok(touched)
}

/// Says which rows it touched.
async fn insert(connection: &mut PgConnection, sealing: &Sealing<'_>) -> Result<Vec<Touched>, Error> {
    let batch = sealing.batch;
    let (mut touched, mut ends) = (Vec::new(), batch.ends.iter().map(|(key, end)| (*key, end)).collect::<Vec<_>>());
    if !batch.rows.is_empty() {
        touched = insert_decided(connection, sealing).await?;
        // Some were there already, perhaps without their end: a node that gave up a lane ships what is left of it under another name.
        if touched.len() < batch.rows.len() {
            ends.extend(batch.rows.iter().filter_map(|row| Some((row.key, row.end.as_ref()?))));
        }
    }
    if !ends.is_empty() {
        touched.append(&mut insert_ends(connection, sealing, &ends).await?);
    }
    Ok(touched)
}

const SEAL: &str = "WITH sealed AS (INSERT INTO log_seals (number, node_id, boot_id, lane, ordinal, sealed_at, first_seq, last_seq, \
      chain_hash, first_at, last_at, orgs, entries, entries_hash, previous_hash, hash, key_id, signature) \
      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)) \
    UPDATE ship_cursor SET last_seq = $8, last_hash = $9, sealed = $5, seal_hash = $16, updated_at = now() \
    WHERE node_id = $2 AND boot_id = $3 AND lane = $4";

/// Keeps the seal of a batch, and moves the lane's cursor behind it.
pub(super) async fn advance(connection: &mut PgConnection, seal: &Seal, signer: &Signer) -> Result<(), Error> {
    let (header, hash) = (&seal.header, seal.header.hash());
    let signature = signer.sign(&hash);
    sqlx::query(SEAL)
        .bind(header.number)
        .bind(header.lane.node_id)
        .bind(header.lane.boot_id)
        .bind(header.lane.lane)
        .bind(header.ordinal)
        .bind(header.sealed_at)
        .bind(header.first_seq)
        .bind(header.last_seq)
        .bind(&header.chain_hash)
        .bind(header.first_at)
        .bind(header.last_at)
        .bind(&header.orgs)
        .bind(&seal.entries)
        .bind(&header.entries_hash)
        .bind(&header.previous_hash)
        .bind(hash.as_slice())
        .bind(signature.key_id)
        .bind(signature.bytes)
        .execute(connection)
        .await?;
    Ok(())
}

// A row with decision 0 was begun by its end: what was decided is filled in. Any other row stands as it is.
const INSERT_DECIDED: &str = "INSERT INTO request_logs (node_id, boot_id, lane, \
    request_id, decided_at, seq, class, org_id, server_id, server, subject, roles, groups, via, credential_id, client_address, \
    method, target, client_protocol_version, client_transport, client_era, server_transport, server_era, decision, rule_id, rule, \
    mode, reason, config_epoch, config_version, org_digest, request_bytes, arguments_digest, session, shadow_rule_id, \
    shadow_decision, ended_at, outcome, status, error_code, response_bytes, upstream, decide_us, upstream_us, total_us, stage_us, events, \
    decided_seal, ended_seal) SELECT $1, $2, $3, r.request_id, r.decided_at, r.seq, r.class, r.org_id, r.server_id, r.server, r.subject, \
    r.roles::text[], r.groups::text[], r.via, r.credential_id, r.client_address, r.method, r.target, r.client_protocol_version, \
    r.client_transport, r.client_era, r.server_transport, r.server_era, r.decision, r.rule_id, r.rule, r.mode, r.reason, \
    r.config_epoch, r.config_version, r.org_digest, r.request_bytes, r.arguments_digest, r.session, r.shadow_rule_id, \
    r.shadow_decision, r.ended_at, r.outcome, r.status, r.error_code, r.response_bytes, r.upstream, r.decide_us, r.upstream_us, \
    r.total_us, r.stage_us::bigint[], r.events, $48, CASE WHEN r.outcome IS NOT NULL THEN $48 END \
    FROM unnest($4::uuid[], $5::timestamptz[], $6::bigint[], $7::smallint[], $8::uuid[], $9::uuid[], $10::text[], $11::text[], \
    $12::text[], $13::text[], $14::smallint[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], \
    $21::text[], $22::text[], $23::text[], $24::smallint[], $25::text[], $26::text[], $27::text[], $28::text[], $29::bigint[], \
    $30::bigint[], $31::bytea[], $32::bigint[], $33::bytea[], $34::text[], $35::text[], $36::smallint[], $37::timestamptz[], \
    $38::smallint[], $39::int[], $40::int[], $41::bigint[], $42::text[], $43::bigint[], $44::bigint[], $45::bigint[], $46::text[], \
    $47::bigint[]) AS r (request_id, decided_at, seq, class, org_id, server_id, server, subject, roles, groups, via, credential_id, \
    client_address, method, target, client_protocol_version, client_transport, client_era, server_transport, server_era, decision, \
    rule_id, rule, mode, reason, config_epoch, config_version, org_digest, request_bytes, arguments_digest, session, shadow_rule_id, \
    shadow_decision, ended_at, outcome, status, error_code, response_bytes, upstream, decide_us, upstream_us, total_us, stage_us, events) \
    ON CONFLICT (decided_at, request_id) DO UPDATE SET node_id = excluded.node_id, boot_id = excluded.boot_id, lane = excluded.lane, \
    seq = excluded.seq, class = excluded.class, org_id = excluded.org_id, server_id = excluded.server_id, server = excluded.server, \
    subject = excluded.subject, roles = excluded.roles, groups = excluded.groups, via = excluded.via, \
    credential_id = excluded.credential_id, client_address = excluded.client_address, method = excluded.method, \
    target = excluded.target, client_protocol_version = excluded.client_protocol_version, \
    client_transport = excluded.client_transport, client_era = excluded.client_era, server_transport = excluded.server_transport, \
    server_era = excluded.server_era, decision = excluded.decision, rule_id = excluded.rule_id, rule = excluded.rule, \
    mode = excluded.mode, reason = excluded.reason, config_epoch = excluded.config_epoch, config_version = excluded.config_version, \
    org_digest = excluded.org_digest, request_bytes = excluded.request_bytes, arguments_digest = excluded.arguments_digest, \
    session = excluded.session, shadow_rule_id = excluded.shadow_rule_id, shadow_decision = excluded.shadow_decision, \
    decided_seal = excluded.decided_seal \
    WHERE request_logs.decision = 0 AND request_logs.node_id = excluded.node_id \
    RETURNING request_id, decided_at, org_id, server_id, server, method, target, decision, reason, outcome, error_code, upstream, \
    request_bytes, response_bytes, total_us, interrupted_at IS NOT NULL AS was_interrupted, \
    decided_seal, ended_seal";

/// The rows that were new, or were filled in.
async fn insert_decided(connection: &mut PgConnection, sealing: &Sealing<'_>) -> Result<Vec<Touched>, Error> {
    let (id, rows) = (sealing.lane, &sealing.batch.rows);
    let decided = |of: fn(&Row) -> &String| rows.iter().map(|row| of(row).as_str()).collect::<Vec<_>>();
    let small = |of: fn(&Row) -> i32| rows.iter().map(|row| i16::try_from(of(row)).unwrap_or_default()).collect::<Vec<_>>();
    let ended = |of: fn(&End) -> i64| rows.iter().map(|row| row.end.as_ref().map_or(0, of)).collect::<Vec<_>>();
    let int = |of: fn(&End) -> i32| rows.iter().map(|row| row.end.as_ref().map_or(0, of)).collect::<Vec<_>>();
    let touched = sqlx::query_as(INSERT_DECIDED)
        .bind(id.node_id)
        .bind(id.boot_id)
        .bind(id.lane)
        .bind(rows.iter().map(|row| row.key.1).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.seq).collect::<Vec<_>>())
        .bind(small(|row| row.decided.class))
        .bind(rows.iter().map(|row| row.org_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.server_id).collect::<Vec<_>>())
        .bind(decided(|row| &row.decided.server))
        .bind(decided(|row| &row.decided.subject))
        .bind(rows.iter().map(|row| array_literal(&row.decided.roles)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| array_literal(&row.decided.groups)).collect::<Vec<_>>())
        .bind(small(|row| row.decided.via))
        .bind(decided(|row| &row.decided.credential_id))
        .bind(decided(|row| &row.decided.client_address))
        .bind(decided(|row| &row.decided.method))
        .bind(decided(|row| &row.decided.name))
        .bind(decided(|row| &row.decided.client_protocol_version))
        .bind(decided(|row| &row.decided.client_transport))
        .bind(decided(|row| &row.decided.client_era))
        .bind(decided(|row| &row.decided.server_transport))
        .bind(decided(|row| &row.decided.server_era))
        .bind(small(|row| row.decided.decision))
        .bind(decided(|row| &row.decided.rule_id))
        .bind(decided(|row| &row.decided.rule))
        .bind(decided(|row| &row.decided.mode))
        .bind(decided(|row| &row.decided.reason))
        .bind(rows.iter().map(|row| number(row.decided.config_epoch)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| number(row.decided.config_version)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| octets(&row.decided.org_digest)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| number(row.decided.request_bytes)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| octets(&row.decided.arguments_digest)).collect::<Vec<_>>())
        .bind(decided(|row| &row.decided.session))
        .bind(decided(|row| &row.decided.shadow_rule_id))
        .bind(small(|row| row.decided.shadow_decision))
        .bind(rows.iter().map(|row| row.end.as_ref().map(|end| end.ended_at)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.end.as_ref().map(outcome)).collect::<Vec<_>>())
        .bind(int(|end| i32::try_from(end.ended.status).unwrap_or_default()))
        .bind(int(|end| end.ended.error_code))
        .bind(ended(|end| number(end.ended.response_bytes)))
        .bind(rows.iter().map(|row| row.end.as_ref().map_or("", |end| end.ended.upstream.as_str())).collect::<Vec<_>>())
        .bind(ended(|end| end.ended.decide_us.into()))
        .bind(ended(|end| end.ended.upstream_us.into()))
        .bind(ended(|end| end.ended.total_us.into()))
        .bind(rows.iter().map(|row| row.end.as_ref().map_or_else(|| "{}".into(), stages)).collect::<Vec<String>>())
        .bind(ended(|end| end.ended.events.into()))
        .bind(sealing.number)
        .fetch_all(connection)
        .await?;
    Ok(touched)
}

// Only the first end counts, and only the node that began the row may end it.
const INSERT_ENDS: &str = "INSERT INTO request_logs (node_id, boot_id, lane, request_id, decided_at, seq, class, decision, \
    ended_at, outcome, status, error_code, response_bytes, upstream, decide_us, upstream_us, total_us, stage_us, events, ended_seal) \
    SELECT $1, $2, $3, r.request_id, r.decided_at, 0, 0, 0, r.ended_at, r.outcome, r.status, r.error_code, r.response_bytes, \
    r.upstream, r.decide_us, r.upstream_us, r.total_us, r.stage_us::bigint[], r.events, $17 \
    FROM unnest($4::uuid[], $5::timestamptz[], $6::timestamptz[], $7::smallint[], $8::int[], $9::int[], $10::bigint[], $11::text[], \
    $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::bigint[]) AS r (request_id, decided_at, ended_at, outcome, status, \
    error_code, response_bytes, upstream, decide_us, upstream_us, total_us, stage_us, events) \
    ON CONFLICT (decided_at, request_id) DO UPDATE SET ended_at = excluded.ended_at, outcome = excluded.outcome, \
    status = excluded.status, error_code = excluded.error_code, response_bytes = excluded.response_bytes, \
    upstream = excluded.upstream, decide_us = excluded.decide_us, upstream_us = excluded.upstream_us, \
    total_us = excluded.total_us, stage_us = excluded.stage_us, events = excluded.events, ended_seal = excluded.ended_seal \
    WHERE request_logs.outcome IS NULL AND request_logs.node_id = excluded.node_id \
    RETURNING request_id, decided_at, org_id, server_id, server, method, target, decision, reason, outcome, error_code, upstream, \
    request_bytes, response_bytes, total_us, interrupted_at IS NOT NULL AS was_interrupted, \
    decided_seal, ended_seal";

async fn insert_ends(connection: &mut PgConnection, sealing: &Sealing<'_>, ends: &[(Key, &End)]) -> Result<Vec<Touched>, Error> {
    let id = sealing.lane;
    let long = |of: fn(&End) -> i64| ends.iter().map(|(_, end)| of(end)).collect::<Vec<_>>();
    let int = |of: fn(&End) -> i32| ends.iter().map(|(_, end)| of(end)).collect::<Vec<_>>();
    let rows = sqlx::query_as(INSERT_ENDS)
        .bind(id.node_id)
        .bind(id.boot_id)
        .bind(id.lane)
        .bind(ends.iter().map(|(key, _)| key.1).collect::<Vec<_>>())
        .bind(ends.iter().map(|(key, _)| key.0).collect::<Vec<_>>())
        .bind(ends.iter().map(|(_, end)| end.ended_at).collect::<Vec<_>>())
        .bind(ends.iter().map(|(_, end)| outcome(end)).collect::<Vec<_>>())
        .bind(int(|end| i32::try_from(end.ended.status).unwrap_or_default()))
        .bind(int(|end| end.ended.error_code))
        .bind(long(|end| number(end.ended.response_bytes)))
        .bind(ends.iter().map(|(_, end)| end.ended.upstream.as_str()).collect::<Vec<_>>())
        .bind(long(|end| end.ended.decide_us.into()))
        .bind(long(|end| end.ended.upstream_us.into()))
        .bind(long(|end| end.ended.total_us.into()))
        .bind(ends.iter().map(|(_, end)| stages(end)).collect::<Vec<_>>())
        .bind(long(|end| end.ended.events.into()))
        .bind(sealing.number)
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

fn outcome(end: &End) -> i16 {
    i16::try_from(end.ended.outcome).unwrap_or_default()
}

fn stages(end: &End) -> String {
    array_literal(&end.ended.stage_us.iter().map(ToString::to_string).collect::<Vec<_>>())
}
