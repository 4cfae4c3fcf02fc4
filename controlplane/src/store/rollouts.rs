//! Rows of `rollouts`: canaries and candidates, and what nodes and callers make of them. Transitions happen inside a
//! [`super::change::Change`], after the organisation's row is locked.

use std::time::Duration;

use chrono::{DateTime, Utc};
use mcp_gateway::snapshot::Version;
use serde_json::Value;
use sqlx::{FromRow, PgConnection, Row as _, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::{Error, OnConstraint, Store};
use crate::{
    domain::{
        Labels, Meta, Organization, Policy, RateLimit, Server,
        bundle::OrgRows,
        rollout::{
            self, Halt, Reason, Rollout, State,
            canaries::Eligible,
            decide::{Canary, Facts, Tally},
        },
    },
    store::publish::canary_key,
};

/// A running rollout as publishers need it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Running {
    pub id: Uuid,
    pub org_id: Uuid,
    pub pool: String,
    pub revision: i64,
    pub canaries: Vec<Uuid>,
}

/// Calls that are counted for a ratio: the newest ones.
const CALLS: i64 = 20_000;
/// How long before a rollout calls say what is usual.
const EARLIER: &str = "1 hour";
/// The lock of the one replica that moves rollouts on; any fixed number.
const LOCK: i64 = 0x6d63_7067_775f_726f;

const COLUMNS: &str = "id, org_id, org_slug, pool, state, diff, labels, steps, step, bake_seconds, min_calls, canaries, step_epoch, \
    step_version, step_started_at, baking_since, halt_reason, halt_detail, actor, reason, revision, config_version, created_at, updated_at";

impl FromRow<'_, PgRow> for Rollout {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let state: String = row.try_get("state")?;
        let reason: String = row.try_get("halt_reason")?;
        let detail = row.try_get("halt_detail")?;
        let unsigned = |column| row.try_get(column).map(i64::unsigned_abs);
        let small = |column| row.try_get(column).map(i32::unsigned_abs);
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            org_slug: row.try_get("org_slug")?,
            pool: row.try_get("pool")?,
            state: State::of(&state).ok_or_else(|| sqlx::Error::Decode(format!("rollouts.state: {state:?}").into()))?,
            diff: row.try_get("diff")?,
            labels: row.try_get::<Json<Labels>, _>("labels")?.0,
            steps: row.try_get::<Json<_>, _>("steps")?.0,
            step: usize::try_from(small("step")?).unwrap_or_default(),
            bake: Duration::from_secs(small("bake_seconds")?.into()),
            min_calls: small("min_calls")?,
            canaries: row.try_get::<Vec<Uuid>, _>("canaries")?.into_iter().collect(),
            version: Version { epoch: unsigned("step_epoch")?, version: unsigned("step_version")? },
            step_started_at: row.try_get("step_started_at")?,
            baking_since: row.try_get("baking_since")?,
            halt: Reason::of(&reason).map(|reason| Halt { reason, detail }),
            actor: row.try_get("actor")?,
            reason: row.try_get("reason")?,
            meta: Meta {
                revision: row.try_get("revision")?,
                config_version: row.try_get("config_version")?,
                created_at: row.try_get("created_at")?,
                updated_at: row.try_get("updated_at")?,
            },
        })
    }
}

/// A query for whole rows: only ever literals of this file.
fn select(condition: &'static str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM rollouts WHERE {condition}"))
}

impl Store {
    /// How many rollouts are in each state.
    pub async fn count_rollouts(&self) -> Result<Vec<(String, i64)>, Error> {
        let query = sqlx::query_as("SELECT state, count(*) FROM rollouts GROUP BY state");
        Ok(query.fetch_all(&mut *self.connection().await?).await?)
    }

    /// The rollouts that are running.
    pub async fn running_rollouts(&self) -> Result<Vec<Rollout>, Error> {
        Ok(sqlx::query_as(select("state = 'running' ORDER BY id")).fetch_all(&mut *self.connection().await?).await?)
    }
}

/// Whether the caller's transaction is the one that looks at rollouts now: no other replica's does until it ends.
pub async fn lead(connection: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(LOCK).fetch_one(connection).await?)
}

/// A rollout of an organisation.
pub async fn get(connection: &mut PgConnection, org: Uuid, id: Uuid) -> Result<Option<Rollout>, Error> {
    Ok(sqlx::query_as(select("org_id = $1 AND id = $2")).bind(org).bind(id).fetch_optional(connection).await?)
}

/// A rollout, locked until the transaction ends. Its organisation's row is locked before.
pub async fn lock(connection: &mut PgConnection, org: Uuid, id: Uuid) -> Result<Option<Rollout>, Error> {
    Ok(sqlx::query_as(select("org_id = $1 AND id = $2 FOR UPDATE")).bind(org).bind(id).fetch_optional(connection).await?)
}

/// Rollouts of an organisation before a position, newest first.
pub async fn page(connection: &mut PgConnection, org: Uuid, before: Option<Uuid>, limit: i64) -> Result<Vec<Rollout>, Error> {
    let query = sqlx::query_as(select("org_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"));
    Ok(query.bind(org).bind(before).bind(limit).fetch_all(connection).await?)
}

/// The name of the organisation's rollout that is not over yet.
pub async fn open_of(connection: &mut PgConnection, org: Uuid) -> Result<Option<String>, Error> {
    let query =
        sqlx::query_as("SELECT org_slug, id FROM rollouts WHERE org_id = $1 AND state IN ('running', 'halted')").bind(org);
    let found: Option<(String, Uuid)> = query.fetch_optional(connection).await?;
    Ok(found.map(|(slug, id)| rollout::name(&slug, id)))
}

/// Adds a rollout with its candidate.
pub async fn insert(connection: &mut PgConnection, new: &Rollout, candidate: &Value) -> Result<Rollout, Error> {
    let query = sqlx::AssertSqlSafe(format!(
        "INSERT INTO rollouts (id, org_id, org_slug, pool, state, candidate, diff, labels, steps, bake_seconds, min_calls, canaries, \
         actor, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING {COLUMNS}"
    ));
    sqlx::query_as(query)
        .bind(new.id)
        .bind(new.org_id)
        .bind(&new.org_slug)
        .bind(&new.pool)
        .bind(new.state.as_str())
        .bind(Json(candidate))
        .bind(&new.diff)
        .bind(Json(&new.labels))
        .bind(Json(&new.steps))
        .bind(i32::try_from(new.bake.as_secs()).unwrap_or(i32::MAX))
        .bind(new.min_calls.cast_signed())
        .bind(new.canaries.iter().copied().collect::<Vec<_>>())
        .bind(&new.actor)
        .bind(&new.reason)
        .fetch_one(connection)
        .await
        .on_constraint("rollouts_one_open", || {
            Error::Precondition(format!(
                "pool {} has a rollout that is not over: one goes after another; wait for it, or abort it",
                new.pool
            ))
        })
}

/// Writes what a transition changes of a rollout that the caller has locked. A new step begins now; a candidate that is over is forgotten.
pub async fn update(connection: &mut PgConnection, row: &Rollout, new_step: bool) -> Result<Rollout, Error> {
    let query = sqlx::AssertSqlSafe(format!(
        "UPDATE rollouts SET state = $2, step = $3, canaries = $4, baking_since = $5, halt_reason = $6, halt_detail = $7, \
         step_started_at = CASE WHEN $8 THEN clock_timestamp() ELSE step_started_at END, \
         candidate = CASE WHEN $9 THEN candidate END, revision = revision + 1, updated_at = now() WHERE id = $1 RETURNING {COLUMNS}"
    ));
    let query = sqlx::query_as(query)
        .bind(row.id)
        .bind(row.state.as_str())
        .bind(i32::try_from(row.step).unwrap_or(i32::MAX))
        .bind(row.canaries.iter().copied().collect::<Vec<_>>())
        .bind(row.baking_since)
        .bind(row.halt.as_ref().map_or("", |halt| halt.reason.as_str()))
        .bind(row.halt.as_ref().map_or("", |halt| halt.detail.as_str()))
        .bind(new_step)
        .bind(row.state.is_open());
    Ok(query.fetch_one(connection).await?)
}

/// Notes that every connected canary runs the candidate. No transition: nothing of it reaches nodes.
pub async fn begin_to_bake(connection: &mut PgConnection, row: &Rollout) -> Result<(), Error> {
    let query = "UPDATE rollouts SET baking_since = clock_timestamp() \
        WHERE id = $1 AND revision = $2 AND state = 'running' AND baking_since IS NULL";
    sqlx::query(query).bind(row.id).bind(row.meta.revision).execute(connection).await?;
    Ok(())
}

/// What the version that was just taken means for a rollout: its step begins with it, or its canaries go back with it. The scope that
/// nodes are moved to gets at least this version, whatever its content.
pub async fn remember_version(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    let moved: (String, String) = sqlx::query_as(
        "UPDATE rollouts r SET config_version = h.version, \
         step_epoch = CASE WHEN r.state = 'running' THEN h.epoch ELSE r.step_epoch END, \
         step_version = CASE WHEN r.state = 'running' THEN h.version ELSE r.step_version END \
         FROM config_head h WHERE r.id = $1 RETURNING r.pool, r.state",
    )
    .bind(id)
    .fetch_one(&mut *connection)
    .await?;
    let (pool, state) = moved;
    let key = if state == State::Running.as_str() { canary_key(&pool) } else { pool };
    sqlx::query(
        "INSERT INTO config_scope (pool, epoch, version, digest, committed_at, floor_epoch, floor_version) \
         SELECT $1, 0, 0, '', h.committed_at, h.epoch, h.version FROM config_head h \
         ON CONFLICT (pool) DO UPDATE SET floor_epoch = excluded.floor_epoch, floor_version = excluded.floor_version",
    )
    .bind(key)
    .execute(connection)
    .await?;
    Ok(())
}

/// The rollouts that are running.
pub async fn running(connection: &mut PgConnection) -> Result<Vec<Running>, Error> {
    let query = "SELECT id, org_id, pool, revision, canaries FROM rollouts WHERE state = 'running' ORDER BY id";
    Ok(sqlx::query_as(query).fetch_all(connection).await?)
}

/// An organisation as it is in the caller's transaction.
#[derive(Debug)]
pub struct Captured {
    pub pool: String,
    /// The form of `rollouts.candidate`.
    pub rows: Value,
}

/// From here on changes can be taken back.
pub async fn mark(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("SAVEPOINT candidate").execute(connection).await?;
    Ok(())
}

/// Takes back what was changed since [`mark`].
pub async fn take_back(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("ROLLBACK TO SAVEPOINT candidate").execute(connection).await?;
    Ok(())
}

/// The organisation as it is in the caller's transaction, to be kept as a candidate.
pub async fn capture(connection: &mut PgConnection, org: Uuid) -> Result<Captured, Error> {
    let captured = sqlx::query_as(
        "SELECT o.pool, jsonb_build_object('organization', to_jsonb(o), \
         'servers', coalesce((SELECT jsonb_agg(to_jsonb(s) ORDER BY s.id) FROM mcp_servers s WHERE s.org_id = o.id), '[]'), \
         'policies', coalesce((SELECT jsonb_agg(to_jsonb(p) ORDER BY p.id) FROM policies p WHERE p.org_id = o.id), '[]'), \
         'limits', coalesce((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.id) FROM rate_limits l WHERE l.org_id = o.id), '[]')) \
         FROM organizations o WHERE o.id = $1",
    );
    let (pool, rows): (String, Json<Value>) = captured.bind(org).fetch_one(connection).await?;
    Ok(Captured { pool, rows: rows.0 })
}

/// Leaves out the credentials that are those of the servers as they are: whatever becomes of these meanwhile holds.
pub async fn without_stored_credentials(connection: &mut PgConnection, org: Uuid, mut rows: Value) -> Result<Value, Error> {
    let stored = "SELECT id::text, '\\x' || encode(credential_wrapped, 'hex') FROM mcp_servers \
        WHERE org_id = $1 AND credential_wrapped IS NOT NULL";
    let stored: Vec<(String, String)> = sqlx::query_as(stored).bind(org).fetch_all(connection).await?;
    for server in rows.get_mut("servers").and_then(Value::as_array_mut).into_iter().flatten() {
        let is_its_own = stored.iter().any(|(id, wrapped)| server["id"] == *id && server["credential_wrapped"] == *wrapped);
        if is_its_own {
            server["credential_wrapped"] = Value::Null;
        }
    }
    Ok(rows)
}

/// The organisation as it is to become; none: there is no such rollout, or it is over.
pub async fn candidate(connection: &mut PgConnection, id: Uuid) -> Result<Option<OrgRows>, Error> {
    let organization: Option<Organization> = sqlx::query_as(
        "SELECT o.* FROM rollouts r, jsonb_populate_record(NULL::organizations, r.candidate -> 'organization') o \
         WHERE r.id = $1 AND r.candidate IS NOT NULL",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(organization) = organization else { return Ok(None) };
    let servers: Vec<Server> = sqlx::query_as(
        "SELECT c.id, c.org_id, c.slug, c.display_name, c.transport, c.era, c.endpoints, c.allow_anonymous, c.disabled, \
         c.credential_header, coalesce(c.credential_wrapped, own.credential_wrapped) AS credential_wrapped, c.credential_set_at, \
         c.call_timeout_ms, c.max_body_bytes, c.stdio, coalesce(c.client_transports, '[]') AS client_transports, \
         coalesce(c.legacy_sessions, 0::smallint) AS legacy_sessions, c.revision, c.config_version, c.created_at, c.updated_at \
         FROM rollouts r CROSS JOIN jsonb_populate_recordset(NULL::mcp_servers, r.candidate -> 'servers') c \
         LEFT JOIN mcp_servers own ON own.id = c.id WHERE r.id = $1 ORDER BY c.id",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    let policies: Vec<Policy> = sqlx::query_as(
        "SELECT c.* FROM rollouts r CROSS JOIN jsonb_populate_recordset(NULL::policies, r.candidate -> 'policies') c \
         WHERE r.id = $1 ORDER BY c.id",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    // A candidate of a version that knew no limits leaves them as they are.
    let limits: Vec<RateLimit> = sqlx::query_as(
        "SELECT c.* FROM rollouts r CROSS JOIN jsonb_populate_recordset(NULL::rate_limits, coalesce(r.candidate -> 'limits', \
         (SELECT jsonb_agg(to_jsonb(l)) FROM rate_limits l WHERE l.org_id = r.org_id))) c WHERE r.id = $1 ORDER BY c.id",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    Ok(Some(OrgRows { organization, servers, policies, limits }))
}

/// The nodes that a rollout may choose: those of the pool with all of these labels.
pub async fn eligible(connection: &mut PgConnection, pool: &str, labels: &Labels) -> Result<Vec<Eligible>, Error> {
    let query = sqlx::query_as(
        "SELECT n.id, coalesce(s.connected AND s.last_seen_at > now() - interval '45 seconds', false) \
         FROM nodes n LEFT JOIN node_status s ON s.node_id = n.id WHERE n.revoked_at IS NULL AND n.pool = $1 AND n.labels @> $2 ORDER BY n.id",
    );
    let rows: Vec<(Uuid, bool)> = query.bind(pool).bind(Json(labels)).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(id, connected)| Eligible { id, connected }).collect())
}

/// What is seen of a rollout now.
pub async fn facts(connection: &mut PgConnection, rollout: &Rollout) -> Result<Facts, Error> {
    let canaries: Vec<Uuid> = rollout.canaries.iter().copied().collect();
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *connection).await?;
    let rows: Vec<super::nodes::Node> = super::nodes::some(&mut *connection, &canaries).await?;
    let canary = |node: super::nodes::Node| Canary {
        id: node.id,
        connected: node.connected,
        applied: node.applied,
        refused: node.refused,
        problems: node.problems,
    };
    // Node clocks may be a little behind the database's. What canaries decided under the candidate says its version.
    let (canary_calls, control_calls) = tallies(&mut *connection, rollout, &canaries).await?;
    let earlier_calls = earlier(connection, rollout).await?;
    Ok(Facts { now, canaries: rows.into_iter().map(canary).collect(), canary_calls, control_calls, earlier_calls })
}

/// Ended badly: denied, answered with an error, and failed at the server or here.
const BAD: &str = "count(*) FILTER (WHERE outcome IN (2, 3, 4, 7))";

async fn tallies(connection: &mut PgConnection, rollout: &Rollout, canaries: &[Uuid]) -> Result<(Tally, Tally), Error> {
    let query = sqlx::AssertSqlSafe(format!(
        "SELECT canary, count(*), {BAD} FROM (SELECT node_id = ANY ($3) AS canary, outcome, config_epoch, config_version \
         FROM request_logs WHERE org_id = $1 AND decided_at > $2 - interval '1 minute' AND outcome IS NOT NULL \
         ORDER BY decided_at DESC LIMIT {CALLS}) recent \
         WHERE NOT canary OR (config_epoch, config_version) >= ($4, $5) GROUP BY canary"
    ));
    let rows: Vec<(bool, i64, i64)> = sqlx::query_as(query)
        .bind(rollout.org_id)
        .bind(rollout.step_started_at)
        .bind(canaries)
        .bind(rollout.version.epoch.cast_signed())
        .bind(rollout.version.version.cast_signed())
        .fetch_all(connection)
        .await?;
    let of = |canary| {
        let row = rows.iter().find(|row| row.0 == canary);
        row.map_or_else(Tally::default, |(_, calls, bad)| Tally { calls: calls.unsigned_abs(), bad: bad.unsigned_abs() })
    };
    Ok((of(true), of(false)))
}

async fn earlier(connection: &mut PgConnection, rollout: &Rollout) -> Result<Tally, Error> {
    let query = sqlx::AssertSqlSafe(format!(
        "SELECT count(*), {BAD} FROM (SELECT outcome FROM request_logs WHERE org_id = $1 AND decided_at < $2 \
         AND decided_at > $2 - $3::interval AND outcome IS NOT NULL ORDER BY decided_at DESC LIMIT {CALLS}) earlier"
    ));
    let query = sqlx::query_as(query).bind(rollout.org_id).bind(rollout.meta.created_at).bind(EARLIER);
    let (calls, bad): (i64, i64) = query.fetch_one(connection).await?;
    Ok(Tally { calls: calls.unsigned_abs(), bad: bad.unsigned_abs() })
}

/// New credentials in candidates, as sealed: the rollout, the place in its list, the server.
pub async fn sealed_credentials(connection: &mut PgConnection) -> Result<Vec<(Uuid, i32, Uuid, Vec<u8>)>, Error> {
    let query = "SELECT r.id, (s.place - 1)::int, (s.server ->> 'id')::uuid, decode(substr(s.server ->> 'credential_wrapped', 3), 'hex') \
        FROM rollouts r CROSS JOIN jsonb_array_elements(r.candidate -> 'servers') WITH ORDINALITY AS s (server, place) \
        WHERE r.candidate IS NOT NULL AND s.server ->> 'credential_wrapped' IS NOT NULL ORDER BY r.id, s.place";
    Ok(sqlx::query_as(query).fetch_all(connection).await?)
}

/// Replaces a sealed credential of a candidate by the same one under another key.
pub async fn reseal(connection: &mut PgConnection, id: Uuid, place: i32, wrapped: &[u8]) -> Result<(), Error> {
    let query = "UPDATE rollouts SET candidate = \
        jsonb_set(candidate, ARRAY['servers', $2::text, 'credential_wrapped'], to_jsonb($3::bytea)), revision = revision + 1 WHERE id = $1";
    sqlx::query(query).bind(id).bind(place).bind(wrapped).execute(connection).await?;
    Ok(())
}
