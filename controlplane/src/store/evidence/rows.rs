//! Rows of the logs as they are verified: every column that is hashed.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

use super::{Error, Period};
use crate::{
    evidence::{record::Record, signer::Signature},
    ingest::record::Key,
};

/// A row of `request_logs`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Stored {
    pub request_id: Uuid,
    pub decided_at: DateTime<Utc>,
    pub node_id: Uuid,
    pub boot_id: Uuid,
    pub lane: i32,
    pub seq: i64,
    pub class: i16,
    pub org_id: Option<Uuid>,
    pub server_id: Option<Uuid>,
    pub server: String,
    pub subject: String,
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    pub via: i16,
    pub credential_id: String,
    pub client_address: String,
    pub method: String,
    pub target: String,
    pub client_protocol_version: String,
    pub client_transport: String,
    pub client_era: String,
    pub server_transport: String,
    pub server_era: String,
    pub decision: i16,
    pub rule_id: String,
    pub rule: String,
    pub mode: String,
    pub reason: String,
    pub config_epoch: i64,
    pub config_version: i64,
    pub org_digest: Vec<u8>,
    pub request_bytes: i64,
    pub arguments_digest: Vec<u8>,
    pub session: String,
    pub shadow_rule_id: String,
    pub shadow_decision: i16,
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: Option<i16>,
    pub status: i32,
    pub error_code: i32,
    pub response_bytes: i64,
    pub upstream: String,
    pub decide_us: i64,
    pub upstream_us: i64,
    pub total_us: i64,
    pub stage_us: Vec<i64>,
    pub events: i64,
    pub interrupted_at: Option<DateTime<Utc>>,
}

impl Stored {
    pub fn key(&self) -> Key {
        (self.decided_at, self.request_id)
    }
}

/// The rows with these keys, in no order.
pub async fn of(connection: &mut PgConnection, keys: &[Key]) -> Result<Vec<Stored>, Error> {
    let (Some(first), Some(last)) = (keys.iter().map(|key| key.0).min(), keys.iter().map(|key| key.0).max()) else {
        return Ok(Vec::new());
    };
    let (at, ids): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    // The time is also compared alone: that is what picks partitions.
    let query = "SELECT r.* FROM unnest($1::timestamptz[], $2::uuid[]) AS k (at, id) \
                 JOIN request_logs r ON r.decided_at = k.at AND r.request_id = k.id WHERE r.decided_at >= $3 AND r.decided_at <= $4";
    Ok(sqlx::query_as(query).bind(at).bind(ids).bind(first).bind(last).fetch_all(connection).await?)
}

/// Which seals a row says it is covered by.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claim {
    pub decided_at: DateTime<Utc>,
    pub request_id: Uuid,
    pub is_decided: bool,
    pub is_ended: bool,
    pub is_interrupted: bool,
    pub decided_seal: Option<i64>,
    pub ended_seal: Option<i64>,
    pub interrupted_seal: Option<i64>,
}

/// At most `limit` rows of a period behind a key, oldest first. Of one organisation, or of all and none.
pub async fn claims(
    connection: &mut PgConnection,
    (from, to): Period,
    after: Option<Key>,
    org: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Claim>, Error> {
    let mut query = QueryBuilder::new(
        "SELECT decided_at, request_id, decision <> 0 AS is_decided, outcome IS NOT NULL AS is_ended, \
         interrupted_at IS NOT NULL AS is_interrupted, decided_seal, ended_seal, interrupted_seal FROM request_logs WHERE decided_at >= ",
    );
    query.push_bind(after.map_or(from, |(at, _)| at)).push(" AND decided_at < ").push_bind(to);
    if let Some((at, id)) = after {
        query.push(" AND (decided_at, request_id) > (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    if let Some(org) = org {
        query.push(" AND org_id = ").push_bind(org);
    }
    query.push(" ORDER BY decided_at, request_id LIMIT ").push_bind(limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// An administrative record, as it is verified.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct KeptRecord {
    /// None: from before there was a chain.
    pub number: Option<i64>,
    pub id: Uuid,
    pub occurred_at: DateTime<Utc>,
    pub org_id: Option<Uuid>,
    pub org_slug: String,
    pub actor: String,
    pub action: String,
    pub resource: String,
    pub outcome: String,
    pub config_version: i64,
    pub detail: String,
    pub client_address: String,
    pub arrival: i64,
    pub previous_hash: Option<Vec<u8>>,
    pub hash: Option<Vec<u8>>,
    key_id: Option<String>,
    signature: Option<Vec<u8>>,
}

impl KeptRecord {
    pub fn record(&self, number: i64) -> Record<'_> {
        Record {
            number,
            id: self.id,
            occurred_at: self.occurred_at,
            org_id: self.org_id,
            org_slug: &self.org_slug,
            actor: &self.actor,
            action: &self.action,
            resource: &self.resource,
            outcome: &self.outcome,
            config_version: self.config_version,
            detail: &self.detail,
            client_address: &self.client_address,
            arrival: self.arrival,
            previous_hash: self.previous_hash.as_deref().unwrap_or_default(),
        }
    }

    pub fn signature(&self) -> Signature {
        Signature { key_id: self.key_id.clone().unwrap_or_default(), bytes: self.signature.clone().unwrap_or_default() }
    }
}

const RECORD: &str = "SELECT number, id, occurred_at, org_id, org_slug, actor, action, resource, outcome, config_version, \
    detail::text AS detail, client_address, arrival, previous_hash, hash, key_id, signature FROM audit_logs";

/// At most `limit` administrative records behind a number, in order.
pub async fn records(connection: &mut PgConnection, (after, id): (i64, Uuid), limit: i64) -> Result<Vec<KeptRecord>, Error> {
    let query = format!("{RECORD} WHERE (number, id) > ($1, $2) ORDER BY number, id LIMIT $3");
    let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(after).bind(id).bind(limit);
    Ok(query.fetch_all(connection).await?)
}

/// Administrative records without a number since there is a chain: at most `limit`.
pub async fn unnumbered(connection: &mut PgConnection, since: DateTime<Utc>, limit: i64) -> Result<Vec<KeptRecord>, Error> {
    let query = format!("{RECORD} WHERE number IS NULL AND occurred_at >= $1 ORDER BY occurred_at, id LIMIT $2");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(since).bind(limit).fetch_all(connection).await?)
}
