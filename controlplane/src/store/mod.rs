//! Postgres: the only SQL of this crate, one file per noun, and [`change`], the one transaction per change.
//!
//! Never judges a request and never speaks gRPC. Called by `api`, `keys`, `publish`, `nodes`, `ingest` and `maintenance`.

use std::{str::FromStr, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{config::Config, evidence::Signer};

pub mod accounts;
pub mod api_keys;
pub mod audit;
pub mod captures;
pub mod change;
pub mod config_versions;
pub mod endpoints;
mod error;
pub mod evidence;
pub mod found;
pub mod gaps;
pub mod holds;
pub mod ingest;
pub mod join_tokens;
pub mod keys;
pub mod limit_usage;
pub mod logs;
pub mod maintenance;
pub mod memberships;
pub mod migrate;
pub mod node_status;
pub mod nodes;
pub mod organizations;
pub mod orgs;
pub mod policies;
pub mod publish;
pub mod rate_limits;
pub mod rollouts;
mod rows;
pub mod servers;
pub mod sessions;
pub mod stats;
pub mod users;

pub use error::{Error, OnConstraint};
pub use sqlx::PgConnection as Connection;

/// The database, through a pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    signer: Arc<Signer>,
}

impl Store {
    /// Opens nothing yet: the first use connects, and a database that is away is an error of that use.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(config.database_url.expose_secret())
            .ok() // the cause may show the password
            .ok_or_else(|| Error::Settings("database_url is not a postgres:// URL".into()))?
            .application_name("mcpgw-controlplane")
            .options([
                ("statement_timeout", format!("{}s", config.database_statement_seconds)),
                ("lock_timeout", format!("{}s", config.database_acquire_seconds)),
                ("idle_in_transaction_session_timeout", "60s".into()),
                ("client_min_messages", "warning".into()),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(config.database_connections)
            .acquire_timeout(Duration::from_secs(config.database_acquire_seconds))
            .idle_timeout(Duration::from_secs(300))
            .connect_lazy_with(options);
        let key = config.audit_checkpoint_key.expose_secret();
        let signer = Signer::parse(key).map_err(|why| Error::Settings(format!("audit_checkpoint_key: {why}")))?;
        Ok(Self { pool, signer: Arc::new(signer) })
    }

    /// For queries of this module's files; others go through their functions.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// What signs evidence; its key is not in the database.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// A connection for a run of reads.
    pub async fn connection(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, Error> {
        Ok(self.pool.acquire().await?)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Begins a part of a transaction that is undone by dropping it.
pub async fn begin_within(connection: &mut Connection) -> Result<sqlx::Transaction<'_, sqlx::Postgres>, Error> {
    Ok(sqlx::Connection::begin(connection).await?)
}

/// Waits for whoever else holds this name, and holds it until the end of the transaction.
pub async fn hold(connection: &mut Connection, name: &str) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").bind(name).execute(connection).await?;
    Ok(())
}
