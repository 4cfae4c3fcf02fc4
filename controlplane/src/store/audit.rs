//! Rows of `audit_logs`: what administrators did and who signed in. Only ever added to, each numbered and with the hash of the one before.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Store, change::Actor};
use crate::evidence::{Signer, record::Record};

/// One entry to write.
#[derive(Debug)]
pub struct Entry<'a> {
    pub org_id: Option<Uuid>,
    pub org_slug: String,
    pub actor: &'a Actor,
    /// Such as `server.create` or `auth.login`.
    pub action: &'a str,
    pub resource: &'a str,
    /// `ok` or `denied`.
    pub outcome: &'a str,
    /// 0: none.
    pub config_version: i64,
    /// Never a secret.
    pub detail: &'a serde_json::Value,
}

impl Store {
    /// Records what no transaction belongs to, such as a refused sign-in.
    pub async fn record(&self, entry: &Entry<'_>) -> Result<(), Error> {
        let mut tx = self.pool().begin().await?;
        insert(&mut tx, entry, self.signer()).await?;
        Ok(tx.commit().await?)
    }
}

const HEAD: &str = "SELECT number + 1, hash, now(), arrive('audit_arrival_numbers'), $1::jsonb::text FROM audit_chain FOR UPDATE";

const INSERT: &str = "WITH moved AS (UPDATE audit_chain SET number = $12, hash = $14) \
    INSERT INTO audit_logs (id, org_id, org_slug, actor, action, resource, outcome, config_version, detail, client_address, occurred_at, \
    number, previous_hash, hash, arrival, key_id, signature) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11, $12, $13, $14, $15, $16, $17)";

/// Writes an entry in the caller's transaction. The last but one statement of it: others wait for the chain from here to the commit.
pub async fn insert(connection: &mut PgConnection, entry: &Entry<'_>, signer: &Signer) -> Result<(), Error> {
    let (number, previous_hash, occurred_at, arrival, detail): (i64, Vec<u8>, _, i64, String) =
        sqlx::query_as(HEAD).bind(entry.detail).fetch_one(&mut *connection).await?;
    let record = Record {
        number,
        id: Uuid::now_v7(),
        occurred_at,
        org_id: entry.org_id,
        org_slug: &entry.org_slug,
        actor: &entry.actor.name,
        action: entry.action,
        resource: entry.resource,
        outcome: entry.outcome,
        config_version: entry.config_version,
        detail: &detail,
        client_address: &entry.actor.address,
        arrival,
        previous_hash: &previous_hash,
    };
    let hash = record.hash();
    let signature = signer.sign(&hash);
    sqlx::query(INSERT)
        .bind(record.id)
        .bind(record.org_id)
        .bind(record.org_slug)
        .bind(record.actor)
        .bind(record.action)
        .bind(record.resource)
        .bind(record.outcome)
        .bind(record.config_version)
        .bind(record.detail)
        .bind(record.client_address)
        .bind(record.occurred_at)
        .bind(record.number)
        .bind(record.previous_hash)
        .bind(hash.as_slice())
        .bind(record.arrival)
        .bind(signature.key_id)
        .bind(signature.bytes)
        .execute(connection)
        .await?;
    Ok(())
}
