//! Child processes of tests. `run` waits for one that ends by itself; `Service` holds one that serves until it is
//! dropped. Both have deadlines, and no child outlives its handle.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What a process left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended
    pub status: ExitStatus,
    /// Standard output
    pub stdout: String,
    /// Standard error
    pub stderr: String,
}

impl Output {
    /// The output of a process that has to succeed; its own words otherwise.
    pub fn succeeded(self, what: &str) -> anyhow::Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{what} ended with {}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Runs `command` to its end, at most for `deadline`.
pub async fn run(command: &mut Command, deadline: Duration) -> anyhow::Result<Output> {
    let what = format!("{:?}", command.as_std().get_program());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(deadline, command.output())
        .await
        .with_context(|| format!("{what} did not end within {deadline:?}"))?
        .with_context(|| format!("cannot run {what}"))?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A child process that serves until this handle is dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    drains: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts `command` and waits until a line on its output or error stream satisfies `ready`.
    pub async fn start(command: &mut Command, ready: impl Fn(&str) -> bool, deadline: Duration) -> anyhow::Result<Self> {
        let what = format!("{:?}", command.as_std().get_program());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().with_context(|| format!("cannot run {what}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let (mut stdout, mut stderr) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
        let mut said = String::new();
        let waiting = async {
            loop {
                let line = tokio::select! {
                    Ok(Some(line)) = stdout.next_line() => line,
                    Ok(Some(line)) = stderr.next_line() => line,
                    status = child.wait() => bail!("{what} ended with {:?}:\n{said}", status?),
                };
                said.push_str(&line);
                said.push('\n');
                if ready(&line) {
                    return Ok(());
                }
            }
        };
        let waited = timeout(deadline, waiting).await;
        waited.with_context(|| format!("{what} was not ready within {deadline:?}"))??;
        // A full pipe would stop the child, so its later words are read and forgotten.
        let drains = vec![drain(stdout.into_inner()), drain(stderr.into_inner())];
        Ok(Self { child, drains })
    }

    /// The process id, for tests that stop or inspect the child.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the child and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for drain in &self.drains {
            drain.abort();
        }
    }
}

fn drain(mut from: impl AsyncRead + Send + Unpin + 'static) -> JoinHandle<()> {
    let draining = async move {
        let mut buffer = [0; 4096];
        while matches!(from.read(&mut buffer).await, Ok(1..)) {}
    };
    // Ended by Drop of the service that owns it.
    #[allow(clippy::disallowed_methods)]
    let task = tokio::spawn(draining);
    task
}
