//! Clean-up: partitions ahead of time, and what is too old to keep. Called by `maintenance`, by one replica at a time.

use std::sync::Arc;

use sqlx::PgConnection;

use super::{Error, Store, captures, evidence::expiry, logs};
use crate::evidence::{Signer, purge::Log};

/// Any fixed number: the lock of the one replica that cleans up.
const LOCK: i64 = 0x6d63_7067_775f_6d61;
/// How long the log of changes is kept beyond what publishers need.
const CHANGE_LOG: &str = "90 days";

/// A connection that holds the lock of maintenance, taken out of the pool: however it ends, the lock goes with it.
pub struct Leader {
    connection: PgConnection,
    signer: Arc<Signer>,
}

impl Store {
    /// None: another replica cleans up.
    pub async fn lead_maintenance(&self) -> Result<Option<Leader>, Error> {
        let mut connection = self.connection().await?.detach();
        let won: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut connection).await?;
        Ok(won.then(|| Leader { connection, signer: Arc::clone(&self.signer) }))
    }
}

impl Leader {
    /// Makes the partitions of the next days.
    pub async fn create_partitions(&mut self, days_ahead: i32) -> Result<(), Error> {
        sqlx::query("SELECT create_log_partitions((now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + $1)")
            .bind(days_ahead)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Deletes request logs that are older than their organisation keeps them, and the evidence that is about nothing else. What goes is put
    /// on record before. How many rows.
    pub async fn expire_request_logs(&mut self) -> Result<u64, Error> {
        let Self { connection, signer } = self;
        let (before, _) = expiry::horizon(connection, Log::Requests).await?;
        let expired = expiry::expired(connection, Log::Requests).await?;
        if !expired.is_empty() {
            expiry::announce(connection, expired.clone(), signer).await?;
        }
        expiry::drop_partitions(connection, Log::Requests, before).await?;
        let mut deleted = 0;
        for expired in &expired {
            deleted += expiry::delete_requests(connection, expired).await?;
        }
        expiry::delete_seals(connection, before, signer).await?;
        expiry::forget(connection, before).await?;
        Ok(deleted)
    }

    /// Deletes administrative records that are older than their organisation keeps them; their numbers stay on record. How many.
    pub async fn expire_audit_logs(&mut self) -> Result<u64, Error> {
        let Self { connection, signer } = self;
        let (before, _) = expiry::horizon(connection, Log::Audit).await?;
        let mut deleted = 0;
        for expired in expiry::expired(connection, Log::Audit).await? {
            deleted += expiry::delete_records(connection, expired, signer).await?;
        }
        expiry::drop_partitions(connection, Log::Audit, before).await?;
        Ok(deleted)
    }

    /// How many rows of each log are in its default partition.
    pub async fn misplaced(&mut self) -> Result<[(Log, i64); 2], Error> {
        let requests = expiry::misplaced(&mut self.connection, Log::Requests).await?;
        Ok([(Log::Requests, requests), (Log::Audit, expiry::misplaced(&mut self.connection, Log::Audit).await?)])
    }

    /// Deletes what expired: answers to repeated requests, sessions, join tokens, the order of arrival, rollups, groups of errors beyond
    /// the newest of an organisation, captured payloads, the log of changes.
    pub async fn expire_rest(&mut self) -> Result<u64, Error> {
        const EXPIRED: [&str; 7] = [
            "DELETE FROM idempotent_answers WHERE created_at < now() - interval '1 day'",
            "DELETE FROM sessions WHERE expires_at < now() - interval '1 day'",
            "DELETE FROM join_tokens WHERE expires_at < now() - interval '30 days'",
            "DELETE FROM record_gaps WHERE until_at < now() - interval '400 days'",
            "DELETE FROM rollup_minutes WHERE minute < now() - interval '30 days'",
            "DELETE FROM error_groups WHERE last_seen_at < now() - interval '30 days'",
            "DELETE FROM error_groups WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER \
             (PARTITION BY org_id ORDER BY last_seen_at DESC) AS place FROM error_groups) placed WHERE place > 10000)",
        ];
        let mut deleted = logs::follow::forget(&mut self.connection).await?;
        deleted += captures::expire(&mut self.connection).await?;
        for statement in EXPIRED {
            deleted += sqlx::query(statement).execute(&mut self.connection).await?.rows_affected();
        }
        let log = sqlx::query("DELETE FROM config_change WHERE committed_at < now() - $1::interval").bind(CHANGE_LOG);
        Ok(deleted + log.execute(&mut self.connection).await?.rows_affected())
    }
}
