//! The real thing for tests: a private Postgres, a database per test, and a control plane in this process.
//!
//! Compiled for tests and under the feature `testing`; never part of a release.
#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::print_stderr)] // a test may panic, and reads PATH

mod client;
mod postgres;

use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use client::Client;
pub use postgres::Postgres;

use crate::{
    app::{Addresses, App, Core, Error, Owner},
    config::Config,
    store::Store,
};

const TEMPLATE: &str = "mcpgw_template";

/// The Postgres of this test process, started by whoever asks first; it ends with the process.
pub fn postgres() -> &'static Postgres {
    static POSTGRES: std::sync::OnceLock<Postgres> = std::sync::OnceLock::new();
    POSTGRES.get_or_init(Postgres::start)
}

/// A fresh, migrated database. Gone with the process's Postgres.
pub async fn database() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    static TEMPLATE_MIGRATED: Mutex<bool> = Mutex::const_new(false);
    let server = postgres();
    let mut migrated = TEMPLATE_MIGRATED.lock().await; // held: one CREATE DATABASE from the template at a time
    if !*migrated {
        server.execute(&format!("CREATE DATABASE {TEMPLATE}")).await;
        let store = Store::new(&config(&server.url(TEMPLATE))).expect("the URL is one");
        store.migrate().await.expect("the migrations apply to an empty database");
        store.close().await;
        *migrated = true;
    }
    let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
    server.execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
    server.url(&name)
}

impl Postgres {
    /// Runs a statement outside any test's database.
    pub async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("Postgres accepts connections");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect(sql);
        connection.close().await.expect("closing works");
    }
}

/// The password that every test's owner has.
pub const OWNER_PASSWORD: &str = "the owner's password";

/// Settings for a control plane on free ports.
pub fn config(database_url: &str) -> Config {
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        database_url: SecretString::from(database_url),
        database_connections: 8,
        admin_listen: local,
        node_listen: local,
        http_listen: local,
        master_key: SecretString::from("bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU="),
        audit_checkpoint_key: SecretString::from("YSBrZXkgdGhhdCBzaWducyBjaGVja3BvaW50cyEhISE="),
        owner_password: SecretString::from(OWNER_PASSWORD),
        drain_seconds: 10,
        ..Config::default()
    }
}

/// A control plane that runs in this process until it is dropped or stopped.
pub struct Running {
    pub addresses: Addresses,
    pub core: Core,
    /// Whom the start created.
    pub owner: Option<Owner>,
    stop: CancellationToken,
    ended: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// Starts on a fresh database.
    pub async fn start() -> Self {
        Self::with(config(&database().await)).await
    }

    /// Starts and waits until it is open.
    pub async fn with(config: Config) -> Self {
        let (mut running, opened) = Self::unopened(config).await;
        running.owner = opened.wait().await.expect("the control plane opens");
        running
    }

    /// Starts without waiting for the database.
    pub async fn unopened(config: Config) -> (Self, crate::app::Opened) {
        let app = App::build(config).await.expect("the settings are good and the ports free");
        let (addresses, core, opened, stop) = (app.addresses(), app.core().clone(), app.opened(), CancellationToken::new());
        let ended = tokio::spawn(app.run(stop.clone()));
        (Self { addresses, core, owner: None, stop, ended: Some(ended) }, opened)
    }

    /// Stops and returns what the run returned.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        let ended = self.ended.take().expect("only taken here");
        ended.await.expect("the app does not panic")
    }

    /// Waits for an end that nobody asked for.
    pub async fn ended(mut self) -> Result<(), Error> {
        let ended = self.ended.take().expect("only taken here");
        ended.await.expect("the app does not panic")
    }

    /// A client without a credential.
    pub async fn anonymous(&self) -> Client {
        Client::connect(self.addresses.admin).await
    }

    /// The owner whom the start created: a platform administrator, signed in to the organisation `default`.
    pub async fn owner(&self) -> Client {
        self.anonymous().await.sign_in("owner@localhost", OWNER_PASSWORD, "default").await
    }

    /// A connection of the test's own to the app's database.
    pub async fn sql(&self) -> PgConnection {
        PgConnection::connect(self.core.config.database_url.expose_secret()).await.expect("Postgres accepts connections")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
