//! Brings the schema up to date, under sqlx's advisory lock so that replicas may start together; or says how far behind it is.

use sqlx::{
    PgPool,
    migrate::{Migrate, MigrateError, Migrator},
};

use super::{Error, Store};

/// The migrations this binary knows. Those of newer binaries are ignored: migrations expand before they contract.
static MIGRATOR: std::sync::LazyLock<Migrator> = std::sync::LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../migrations");
    migrator.set_ignore_missing(true);
    migrator
});

/// One migration and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub version: i64,
    pub description: String,
    pub applied: bool,
}

impl Store {
    /// Applies what is missing.
    pub async fn migrate(&self) -> Result<(), Error> {
        MIGRATOR.run(self.pool()).await.map_err(translate)
    }

    /// Every migration this binary knows, in order.
    pub async fn migrations(&self) -> Result<Vec<Migration>, Error> {
        let applied = applied(self.pool()).await?;
        let of = |m: &sqlx::migrate::Migration| Migration {
            version: m.version,
            description: m.description.to_string(),
            applied: applied.contains(&m.version),
        };
        Ok(MIGRATOR.iter().map(of).collect())
    }

    /// Refuses a schema that lacks a migration.
    pub async fn refuse_if_behind(&self) -> Result<(), Error> {
        let missing: Vec<String> =
            self.migrations().await?.iter().filter(|m| !m.applied).map(|m| format!("{} {}", m.version, m.description)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Settings(format!(
            "the database lacks migration(s) {}: run `mcpgw-controlplane migrate`, or start without --no-migrate",
            missing.join(", ")
        )))
    }
}

async fn applied(pool: &PgPool) -> Result<Vec<i64>, Error> {
    let mut connection = pool.acquire().await?;
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(Vec::new());
    }
    let listed = connection.list_applied_migrations("_sqlx_migrations").await.map_err(translate)?;
    Ok(listed.into_iter().map(|m| m.version).collect())
}

fn translate(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Error::from(error),
        other => Error::Settings(format!("migrating the database: {other}")),
    }
}
