//! The control plane under measurement: the built binary as a process of its own, so that its memory and processor time are its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use mcpgw_controlplane::testing::OWNER_PASSWORD;
use tokio::process::{Child, Command};

use super::report::Phase;
use crate::fleet::{Call, Http};
use crate::program::{beside, own_addresses};

const PROGRAM: &str = "mcpgw-controlplane";
/// As in the tests: nothing is secret here.
const MASTER_KEY: &str = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU=";
/// Until a started control plane must be ready.
const START: Duration = Duration::from_secs(60);
/// How often something is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(20);
/// Linux counts processor time for user space in hundredths of a second (USER_HZ), whatever the kernel's own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// See the module. Dropped, it is killed.
pub(super) struct ControlPlane {
    program: PathBuf,
    settings: Vec<String>,
    addresses: [SocketAddr; 3],
    log: tempfile::NamedTempFile,
    child: Child,
    http: Http,
}

/// A phase that has begun.
pub(super) struct Begun {
    at: Instant,
    processor: f64,
}

impl ControlPlane {
    pub(super) async fn start(program: Option<&Path>, database: &str) -> anyhow::Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => beside(PROGRAM)?,
        };
        // The same addresses after a restart, so they are chosen here.
        let addresses @ [admin, nodes, http] = own_addresses();
        let settings = [
            ("database_url", database.to_owned()),
            ("master_key", MASTER_KEY.to_owned()),
            ("owner_password", OWNER_PASSWORD.to_owned()),
            ("admin_listen", admin.to_string()),
            ("node_listen", nodes.to_string()),
            ("http_listen", http.to_string()),
            ("access_token_seconds", "3600".to_owned()),
            ("log", "warn".to_owned()),
        ];
        let settings: Vec<String> =
            settings.iter().flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")]).collect();
        let log = tempfile::NamedTempFile::new()?;
        let child = spawn(&program, &settings, &log)?;
        let mut this = Self { program, settings, addresses, log, child, http: Http::default() };
        this.ready().await?;
        Ok(this)
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(super) fn nodes(&self) -> SocketAddr {
        self.addresses[1]
    }

    /// Killed without a warning, and started again at once.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        self.child = spawn(&self.program, &self.settings, &self.log)?;
        Ok(())
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        while self.get("/ready").await.is_none_or(|(status, _)| status != StatusCode::OK) {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
                bail!("{} is not ready ({ended:?}); its log:\n{log}", self.program.display());
            }
            pause().await;
        }
        Ok(())
    }

    /// Returns once `version` is published.
    pub(super) async fn published(&self, version: u64, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        while self.metric("published_version").await.is_none_or(|published| published < version) {
            if Instant::now() > end {
                bail!("version {version} was not published within {} s", patience.as_secs());
            }
            pause().await;
        }
        Ok(())
    }

    async fn metric(&self, name: &str) -> Option<u64> {
        let (_, page) = self.get("/metrics").await?;
        let name = format!("mcpgw_controlplane_{name} ");
        String::from_utf8_lossy(&page).lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
    }

    async fn get(&self, path: &str) -> Option<(StatusCode, Bytes)> {
        let url = format!("http://{}{path}", self.addresses[2]);
        let answer = self.http.send(Call { url, method: Method::GET, headers: Vec::new(), body: Bytes::new() }).await.ok()?;
        Some((answer.status, answer.body))
    }

    /// Resident memory in bytes (`VmRSS`).
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc/<pid>/status")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    pub(super) fn begin(&self) -> anyhow::Result<Begun> {
        Ok(Begun { at: Instant::now(), processor: self.processor()? })
    }

    pub(super) fn end(&self, begun: Begun) -> anyhow::Result<Phase> {
        let processor_seconds = self.processor()? - begun.processor;
        Ok(Phase { seconds: begun.at.elapsed().as_secs_f64(), processor_seconds })
    }

    /// Seconds of processor time so far, in the program and in the kernel.
    fn processor(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(self.proc("stat")?)?;
        // The second field is the name, in parentheses, and may hold anything.
        let (_, rest) = stat.rsplit_once(')').context("no name in /proc/<pid>/stat")?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        Ok(ticks.sum::<Result<u32, _>>().map(f64::from)? / TICKS_PER_SECOND)
    }

    fn proc(&self, file: &str) -> anyhow::Result<PathBuf> {
        let pid = self.child.id().context("the control plane has ended")?;
        Ok(PathBuf::from(format!("/proc/{pid}/{file}")))
    }
}

fn spawn(program: &Path, settings: &[String], log: &tempfile::NamedTempFile) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.reopen()?).kill_on_drop(true);
    command.spawn().with_context(|| program.display().to_string())
}

async fn pause() {
    tokio::time::sleep(LOOK).await;
}
