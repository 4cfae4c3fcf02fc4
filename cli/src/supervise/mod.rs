//! Child processes that cannot outlive us: each runs under a small helper, this binary again as `mcpgw supervise`.
//! The helper lives only while a pipe from us is open, so even our SIGKILL ends the child and all its descendants.
//! Never knows what it starts. Used by standalone for its private Postgres.

pub mod helper;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, ChildStderr, ChildStdin, Command};

/// How much longer than the helper's own deadline its end may take.
const SLACK: Duration = Duration::from_secs(10);

/// What to run and how to end it.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Program and arguments; no shell.
    pub argv: Vec<OsString>,
    /// The whole environment of the child.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub dir: PathBuf,
    /// User and group to run as, if not our own.
    pub account: Option<(u32, u32)>,
    /// The signal that asks it to end.
    pub stop: helper::Stop,
    /// How long it may take to end before everything is killed.
    pub deadline: Duration,
}

/// A child that runs.
#[derive(Debug)]
pub struct Supervised {
    helper: Child,
    lifeline: Option<ChildStdin>,
    deadline: Duration,
}

impl Supervised {
    /// Starts the child. What it writes to stderr comes out of the returned pipe; the child ends when this value is
    /// dropped, and when this process ends, however it ends.
    pub fn start(recipe: &Recipe) -> anyhow::Result<(Self, ChildStderr)> {
        // Not `current_exe`: this name still works when the file was replaced while we run.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("mcpgw").env_clear().current_dir("/").arg("supervise");
        command.arg("--dir").arg(&recipe.dir);
        command.arg("--stop").arg(recipe.stop.name());
        command.arg("--deadline").arg(format!("{}s", recipe.deadline.as_secs()));
        for (name, value) in &recipe.env {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        if let Some((user, group)) = recipe.account {
            command.arg("--uid").arg(user.to_string()).arg("--gid").arg(group.to_string());
        }
        command.arg("--").args(&recipe.argv);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut helper = command.spawn().context("cannot start `mcpgw supervise`")?;
        let lifeline = helper.stdin.take();
        let stderr = helper.stderr.take().context("the helper has no stderr pipe")?;
        Ok((Self { helper, lifeline, deadline: recipe.deadline }, stderr))
    }

    /// Returns when the child and all its descendants have ended by themselves.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.helper.wait().await
    }

    /// Asks the child to end, and kills what is left after the deadline.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.lifeline.take());
        let wait = tokio::time::timeout(self.deadline + SLACK, self.helper.wait());
        match wait.await {
            Ok(status) => status.map(drop).context("waiting for `mcpgw supervise`"),
            Err(_late) => self.helper.kill().await.context("`mcpgw supervise` does not end"),
        }
    }
}
