//! Watches the system calls of a running process with strace, or makes them fail: what a process asks of the kernel, and in which order.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

/// A running strace; dropped, it lets the process go.
pub struct Strace {
    child: Child,
    trace: NamedTempFile,
    _said: NamedTempFile,
}

impl Strace {
    /// Attaches to a process and all of its threads. `arguments` say what is of interest; descriptors are shown with what they are of.
    pub async fn attach(pid: u32, arguments: &[&str]) -> anyhow::Result<Self> {
        let (trace, said) = (NamedTempFile::new()?, NamedTempFile::new()?);
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "32"]).args(arguments).arg("-o").arg(trace.path()).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen()?).kill_on_drop(true);
        let mut child = command.spawn().context("strace: scripts/ensure-strace installs it")?;
        // It says so only there; no call of the process is missed after that.
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        while !std::fs::read_to_string(said.path())?.contains("attached") {
            if let Some(ended) = child.try_wait()? {
                anyhow::bail!("strace ended with {ended}: {}", std::fs::read_to_string(said.path())?);
            }
            turn.tick().await;
        }
        Ok(Self { child, trace, _said: said })
    }

    /// Lets the process go; a line per call, in the order in which they were seen.
    pub async fn detach(mut self) -> anyhow::Result<Vec<String>> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("strace has ended")?;
        kill_process(pid, Signal::INT)?;
        self.child.wait().await?;
        Ok(String::from_utf8_lossy(&std::fs::read(self.trace.path())?).lines().map(str::to_owned).collect())
    }
}
