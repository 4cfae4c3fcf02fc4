//! The private Postgres of standalone: initialised on first use, on a unix socket that only its user reaches, and gone
//! when we are. Never used when a database is named. Called by `standalone` and `mcpgw postgres`.

mod account;
mod binaries;
mod cluster;
mod leftover;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStderr;
use tracing::{debug, info, warn};

use cluster::Cluster;
use mcpgw_dataplane::children::Supervised;

/// How long Postgres may take until it accepts connections: it may have to recover first.
const START: Duration = Duration::from_secs(120);
/// Lines of its log that an error repeats.
const LAST_LINES: usize = 8;
const READY: &str = "database system is ready to accept connections";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    child: Supervised,
    log: Lines<BufReader<ChildStderr>>,
    url: String,
}

impl Postgres {
    /// Starts the server of the data directory `home`; initialises it if there is none yet. The caller holds the lock of
    /// `home`.
    pub async fn start(home: &Path, pg_bin: Option<&Path>) -> anyhow::Result<Self> {
        let cluster = Cluster::prepare(home, pg_bin).await?;
        leftover::end(&cluster.data).await?;
        let (child, stderr) = Supervised::start(&cluster.server())?;
        let log = BufReader::new(stderr).lines();
        let mut starting = Self { child, log, url: cluster.url() };
        match tokio::time::timeout(START, starting.until_ready()).await {
            Ok(ready) => ready?,
            Err(_late) => bail!("Postgres is not ready after {} s", START.as_secs()),
        }
        info!(data = %cluster.data.display(), "the private Postgres is ready");
        Ok(starting)
    }

    /// Where it is, as `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Passes its log on until it ends, which it does not do by itself.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        while let Some(line) = self.log.next_line().await? {
            pass_on(&line);
        }
        self.child.ended().await.context("waiting for Postgres")
    }

    /// Ends it: open transactions are rolled back, connections closed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // Its log has to be read to the end, or it would wait for us to read it. That it closes connections is no news.
        let log = async {
            while let Ok(Some(line)) = self.log.next_line().await {
                debug!(target: "postgres", "{line}");
            }
        };
        let ((), stopped) = tokio::join!(log, self.child.stop());
        Ok(stopped?)
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let mut last = Vec::new();
        while let Some(line) = self.log.next_line().await? {
            pass_on(&line);
            if line.contains(READY) {
                return Ok(());
            }
            last.push(line);
            if last.len() > LAST_LINES {
                last.remove(0);
            }
        }
        bail!("Postgres did not start:\n  {}", last.join("\n  "))
    }
}

fn pass_on(line: &str) {
    let grave = ["WARNING:", "ERROR:", "FATAL:", "PANIC:"].iter().any(|it| line.contains(it));
    if grave { warn!(target: "postgres", "{line}") } else { debug!(target: "postgres", "{line}") }
}

/// Creates the data directory: for its owner only, but for root such that the account of Postgres can pass through.
pub fn create_home(home: &Path) -> anyhow::Result<PathBuf> {
    cluster::create_home(home)
}
