//! `rollup_minutes`, `error_groups` and `log_arrivals`: written in the transaction that completes the rows they are about, in one statement.
//!
//! What is written is made in `ingest::account`. Rows that will never end are completed here too, as interrupted.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Store, ingest};
use crate::{
    evidence::{
        canon::START,
        half::{self, Half},
        seal::{Entry, OWN, Run, Seal},
    },
    ingest::{
        account::{Account, Errors, Minute, Sums},
        names::Names,
        record::{Key, array_literal, number},
    },
};

/// A row of `request_logs` that a statement inserted or changed.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Touched {
    pub request_id: Uuid,
    pub decided_at: DateTime<Utc>,
    pub org_id: Option<Uuid>,
    pub server_id: Option<Uuid>,
    pub server: String,
    pub method: String,
    pub target: String,
    /// 0: only the end is known.
    pub decision: i16,
    pub reason: String,
    /// None: no end is known.
    pub outcome: Option<i16>,
    pub error_code: i32,
    pub upstream: String,
    pub request_bytes: i64,
    pub response_bytes: i64,
    pub total_us: i64,
    /// It was on record as interrupted.
    pub was_interrupted: bool,
    /// The seals of its halves.
    pub decided_seal: Option<i64>,
    pub ended_seal: Option<i64>,
}

impl Touched {
    /// What names the row.
    pub fn key(&self) -> Key {
        (self.decided_at, self.request_id)
    }
}

const ADD: &str = "WITH arrived AS ( \
      INSERT INTO log_arrivals (done_at, done_ids, open_at, open_ids) VALUES ($1, $2, $3, $4)), \
    counted AS ( \
      INSERT INTO rollup_minutes AS r (org_id, minute, server_id, server, method, target, decision, outcome, calls, request_bytes, \
        response_bytes, total_us, buckets) \
      SELECT n.org_id, to_timestamp(n.minute * 60), n.server_id, n.server, n.method, n.target, n.decision, n.outcome, n.calls, \
        n.request_bytes, n.response_bytes, n.total_us, n.buckets::bigint[] \
      FROM unnest($5::uuid[], $6::bigint[], $7::uuid[], $8::text[], $9::text[], $10::text[], $11::smallint[], $12::smallint[], \
        $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[]) \
        AS n (org_id, minute, server_id, server, method, target, decision, outcome, calls, request_bytes, response_bytes, total_us, \
        buckets) \
      ON CONFLICT (org_id, minute, server_id, server, method, target, decision, outcome) DO UPDATE SET \
        calls = r.calls + excluded.calls, request_bytes = r.request_bytes + excluded.request_bytes, \
        response_bytes = r.response_bytes + excluded.response_bytes, total_us = r.total_us + excluded.total_us, \
        buckets = add_buckets(r.buckets, excluded.buckets)) \
    INSERT INTO error_groups AS g (id, org_id, server_id, server, method, target, outcome, code, reason, upstream, shape, calls, \
      first_seen_at, last_seen_at, sample_id) \
    SELECT * FROM unnest($18::uuid[], $19::uuid[], $20::uuid[], $21::text[], $22::text[], $23::text[], $24::smallint[], $25::int[], \
      $26::text[], $27::text[], $28::bigint[], $29::bigint[], $30::timestamptz[], $31::timestamptz[], $32::uuid[]) \
    ON CONFLICT (id) DO UPDATE SET calls = g.calls + excluded.calls, \
      first_seen_at = least(g.first_seen_at, excluded.first_seen_at), last_seen_at = greatest(g.last_seen_at, excluded.last_seen_at), \
      sample_id = CASE WHEN excluded.last_seen_at >= g.last_seen_at THEN excluded.sample_id ELSE g.sample_id END";

/// Adds what a transaction's rows add up to. The last statement before its commit: what it locks, others wait for.
pub async fn add(connection: &mut PgConnection, account: &Account) -> Result<(), Error> {
    if account.is_empty() {
        return Ok(());
    }
    let (done_at, done_ids): (Vec<_>, Vec<_>) = account.done.iter().copied().unzip();
    let (open_at, open_ids): (Vec<_>, Vec<_>) = account.open.iter().copied().unzip();
    let (minutes, sums): (Vec<&Minute>, Vec<&Sums>) = account.minutes.iter().unzip();
    let (ids, errors): (Vec<Uuid>, Vec<&Errors>) = account.errors.iter().map(|(id, errors)| (*id, errors)).unzip();
    sqlx::query(ADD)
        .bind(done_at)
        .bind(done_ids)
        .bind(open_at)
        .bind(open_ids)
        .bind(minutes.iter().map(|it| it.org_id).collect::<Vec<_>>())
        .bind(minutes.iter().map(|it| it.minute).collect::<Vec<_>>())
        .bind(minutes.iter().map(|it| it.server_id).collect::<Vec<_>>())
        .bind(minutes.iter().map(|it| it.server.as_str()).collect::<Vec<_>>())
        .bind(minutes.iter().map(|it| it.method).collect::<Vec<_>>())
        .bind(minutes.iter().map(|it| it.target.as_str()).collect::<Vec<_>>())
        .bind(minutes.iter().map(|it| it.decision).collect::<Vec<_>>())
        .bind(minutes.iter().map(|it| it.outcome).collect::<Vec<_>>())
        .bind(sums.iter().map(|it| it.calls).collect::<Vec<_>>())
        .bind(sums.iter().map(|it| it.request_bytes).collect::<Vec<_>>())
        .bind(sums.iter().map(|it| it.response_bytes).collect::<Vec<_>>())
        .bind(sums.iter().map(|it| it.total_us).collect::<Vec<_>>())
        .bind(sums.iter().map(|it| array_literal(&it.buckets.map(|count| count.to_string()))).collect::<Vec<_>>())
        .bind(ids)
        .bind(errors.iter().map(|it| it.group.org_id).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.server_id).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.server.as_str()).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.method).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.target.as_str()).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.outcome).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.code).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.reason.as_str()).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.upstream.as_str()).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.group.shape).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.calls).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.first_seen_at).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.last_seen_at).collect::<Vec<_>>())
        .bind(errors.iter().map(|it| it.sample_id).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Rows that are completed at once, at most.
const SLICE: i64 = 1000;
/// A run of a node is over when it has shipped nothing for this long and a newer one has begun.
const QUIET: &str = "60 s";
/// And also when nobody has heard of its node for this long.
const SILENT: &str = "15 min";

const INTERRUPT: &str = "UPDATE request_logs l SET interrupted_at = now(), interrupted_seal = $4 FROM ( \
      SELECT r.decided_at, r.request_id FROM request_logs r WHERE r.outcome IS NULL AND r.interrupted_at IS NULL \
      AND (EXISTS (SELECT 1 FROM ship_cursor c WHERE c.node_id = r.node_id AND c.boot_id > r.boot_id) \
        OR NOT EXISTS (SELECT 1 FROM node_status s WHERE s.node_id = r.node_id AND s.last_seen_at > now() - $1::interval)) \
      AND NOT EXISTS (SELECT 1 FROM ship_cursor c WHERE c.node_id = r.node_id AND c.boot_id = r.boot_id \
        AND c.updated_at > now() - $2::interval) \
      ORDER BY r.decided_at, r.request_id LIMIT $3 FOR UPDATE SKIP LOCKED) gone \
    WHERE l.decided_at = gone.decided_at AND l.request_id = gone.request_id \
    RETURNING l.request_id, l.decided_at, l.org_id, l.server_id, l.server, l.method, l.target, l.decision, l.reason, l.outcome, \
      l.error_code, l.upstream, l.request_bytes, l.response_bytes, l.total_us, false AS was_interrupted, \
      l.decided_seal, l.ended_seal, l.interrupted_at";

/// A row that counts as interrupted now.
#[derive(Debug, sqlx::FromRow)]
struct Interrupted {
    #[sqlx(flatten)]
    row: Touched,
    interrupted_at: DateTime<Utc>,
}

impl Store {
    /// Puts calls on record as interrupted whose process run is gone. How many. Any number of replicas may do it, in turn.
    pub async fn interrupt_lost_calls(&self, names: &Names) -> Result<u64, Error> {
        let mut found = 0;
        loop {
            let (mut tx, cursor, head) = self.lock_lane(OWN).await?;
            let query = sqlx::query_as(INTERRUPT).bind(SILENT).bind(QUIET).bind(SLICE).bind(head.next_number);
            let rows: Vec<Interrupted> = query.fetch_all(&mut *tx).await?;
            let (rows, entries) = interruptions(rows, number(cursor.last_seq));
            let slice = i64::try_from(rows.len()).unwrap_or(SLICE);
            if let Some(last) = entries.last() {
                let run = Run { lane: OWN, first_seq: number(cursor.last_seq) + 1, last_seq: last.seq, chain_hash: &START };
                ingest::advance(&mut tx, &Seal::new(&head, &run, &entries), self.signer()).await?;
                add(&mut tx, &Account::of_interrupted(&rows, names)).await?;
                tx.commit().await?;
            }
            found += slice.unsigned_abs();
            if slice < SLICE {
                return Ok(found);
            }
        }
    }
}

/// What a seal says of rows that count as interrupted, in an order of its own.
fn interruptions(rows: Vec<Interrupted>, last_seq: i64) -> (Vec<Touched>, Vec<Entry>) {
    let entry = |(seq, Interrupted { row, interrupted_at })| {
        let hash = half::interrupted(Touched::key(&row), Some(interrupted_at));
        let entry = Entry { key: row.key(), half: Half::Interrupted, seq, org: row.org_id, hash };
        (row, entry)
    };
    (last_seq + 1..).zip(rows).map(entry).unzip()
}
