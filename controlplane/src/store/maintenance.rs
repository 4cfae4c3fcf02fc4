//! Clean-up: partitions ahead of time, and what is too old to keep. Called by `maintenance`, by one replica at a time.

use chrono::NaiveDate;
use sqlx::PgConnection;

use super::{Error, Store, captures, logs};

/// Any fixed number: the lock of the one replica that cleans up.
const LOCK: i64 = 0x6d63_7067_775f_6d61;
/// Rows deleted in one statement, at most: no statement runs for minutes.
const SLICE: i64 = 10_000;
/// How long the log of changes is kept beyond what publishers need.
const CHANGE_LOG: &str = "90 days";

/// A connection that holds the lock of maintenance, taken out of the pool: however it ends, the lock goes with it.
pub struct Leader {
    connection: PgConnection,
}

impl Store {
    /// None: another replica cleans up.
    pub async fn lead_maintenance(&self) -> Result<Option<Leader>, Error> {
        let mut connection = self.connection().await?.detach();
        let won: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut connection).await?;
        Ok(won.then_some(Leader { connection }))
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

    /// Deletes request logs that are older than their organisation keeps them. How many rows.
    pub async fn expire_request_logs(&mut self) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let slice = sqlx::query(
                "DELETE FROM request_logs l USING ( \
                   SELECT old.decided_at, old.request_id FROM organizations o, LATERAL ( \
                     SELECT r.decided_at, r.request_id FROM request_logs r WHERE r.org_id = o.id \
                     AND r.decided_at < now() - make_interval(days => o.request_log_retention_days) LIMIT $1) old LIMIT $1) old \
                 WHERE l.decided_at = old.decided_at AND l.request_id = old.request_id",
            )
            .bind(SLICE)
            .execute(&mut self.connection)
            .await?
            .rows_affected();
            deleted += slice;
            if slice < SLICE.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }

    /// Drops day partitions of `request_logs` that no organisation keeps any more. Their names.
    pub async fn drop_old_partitions(&mut self) -> Result<Vec<String>, Error> {
        let old: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE i.inhparent = 'request_logs'::regclass AND c.relname ~ '^request_logs_[0-9]{8}$' \
             AND to_date(right(c.relname, 8), 'YYYYMMDD') < \
               (now() AT TIME ZONE 'UTC')::date - 1 - greatest(90, (SELECT max(request_log_retention_days) FROM organizations)) \
             ORDER BY 1",
        )
        .fetch_all(&mut self.connection)
        .await?;
        for name in &old {
            if NaiveDate::parse_from_str(name.trim_start_matches("request_logs_"), "%Y%m%d").is_err() {
                continue;
            }
            // The name is letters and digits, as the query and the line above have seen.
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {name}"))).execute(&mut self.connection).await?;
        }
        Ok(old)
    }

    /// Deletes what expired: answers to repeated requests, sessions, join tokens, cursors of runs long gone, the order of arrival,
    /// rollups, groups of errors beyond the newest of an organisation, captured payloads, the log of changes.
    pub async fn expire_rest(&mut self) -> Result<u64, Error> {
        const EXPIRED: [&str; 7] = [
            "DELETE FROM idempotent_answers WHERE created_at < now() - interval '1 day'",
            "DELETE FROM sessions WHERE expires_at < now() - interval '1 day'",
            "DELETE FROM join_tokens WHERE expires_at < now() - interval '30 days'",
            "DELETE FROM ship_cursor WHERE updated_at < now() - interval '90 days'",
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
