//! What an earlier run may have left in the data directory: a lock file without its server, or a server without its parent.
//! Ends such a server; never touches one of other data. Called by `postgres` before every start.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tracing::warn;

/// How long a left-over server may take for its fast shutdown.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// Makes sure that no server runs on `data`, and that no lock file says so.
pub async fn end(data: &Path) -> anyhow::Result<()> {
    let lock = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&lock) else { return Ok(()) };
    let pid = text.lines().next().and_then(|it| it.trim().parse().ok()).and_then(Pid::from_raw);
    // A descriptor, because the number may be anybody's by now.
    let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok().map(|fd| (pid, fd)));
    match process {
        Some((pid, process)) if serves(pid, data) => stop(pid, process).await,
        // The number belongs to somebody else by now, where Postgres itself would refuse to start.
        Some(_) => fs::remove_file(&lock).with_context(|| format!("cannot remove the stale {}", lock.display())),
        // Postgres sees for itself that nobody is there.
        None => Ok(()),
    }
}

/// Whether a process is the server of `data`: a postmaster works in its data directory.
fn serves(pid: Pid, data: &Path) -> bool {
    let directory = fs::read_link(format!("/proc/{pid}/cwd"));
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    directory.is_ok_and(|it| data.canonicalize().is_ok_and(|data| it == data)) && program.trim().starts_with("post")
}

async fn stop(pid: Pid, process: OwnedFd) -> anyhow::Result<()> {
    warn!(%pid, "an earlier run left its Postgres behind; ending it");
    pidfd_send_signal(&process, Signal::INT).context("cannot signal the Postgres that an earlier run left behind")?;
    let ended = tokio::task::spawn_blocking(move || has_ended(&process)).await;
    if ended.context("waiting for the Postgres that an earlier run left behind was interrupted")?? {
        return Ok(());
    }
    bail!("Postgres (process {pid}), left behind by an earlier run, does not end: look at it, or kill it")
}

/// Waits for a process, of which we are not the parent, to end.
fn has_ended(process: &OwnedFd) -> anyhow::Result<bool> {
    // Readable means ended.
    let mut waiting = [PollFd::new(process, PollFlags::IN)];
    let deadline = Timespec::try_from(SHUTDOWN)?;
    Ok(poll(&mut waiting, Some(&deadline)).context("cannot wait for a process")? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_of_somebody_elses_number_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("postmaster.pid");
        // Our own number: a living process that serves no data.
        fs::write(&lock, format!("{}\n/somewhere\n", std::process::id())).unwrap();
        end(dir.path()).await.unwrap();
        assert!(!lock.exists());
    }

    #[tokio::test]
    async fn no_lock_and_a_lock_of_nobody_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        end(dir.path()).await.unwrap();
        let lock = dir.path().join("postmaster.pid");
        fs::write(&lock, "4194304\n").unwrap();
        end(dir.path()).await.unwrap();
        assert!(lock.exists());
    }
}
