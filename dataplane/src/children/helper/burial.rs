//! Reaps what has ended and kills what has not: nothing that descends from the helper stays behind.
//! Never starts anything. Called by the helper's loop.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix;
use tokio::time::{Instant, timeout_at};

/// How long the kernel may take to bury what was killed.
const BURIAL: Duration = Duration::from_secs(10);

/// Reaps everything that has ended; the program's status if it is among them.
pub(super) fn reap(program: Pid) -> anyhow::Result<Option<ExitStatus>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => ended = Some(ExitStatus::from_raw(status.as_raw())),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(Errno::INTR) => {}
            Err(error) => bail!("cannot wait for children: {error}"),
        }
    }
}

/// Kills our children until there are none. Orphans of the killed become our children, so this reaches every descendant;
/// and no number can be reused under us, because nobody else reaps them.
pub(super) async fn bury(program: Pid, children: &mut unix::Signal) -> anyhow::Result<Option<ExitStatus>> {
    let mut ended = None;
    let deadline = Instant::now() + BURIAL;
    loop {
        // Before looking: what ended meanwhile has sent its signal already.
        ended = reap(program)?.or(ended);
        let living = children_of_ours()?;
        if living.is_empty() {
            return Ok(ended);
        }
        for child in living {
            let _ = kill_process(child, Signal::KILL);
        }
        if timeout_at(deadline, children.recv()).await.is_err() {
            bail!("some descendants cannot be killed");
        }
    }
}

/// Our direct children. `/proc/self/task/*/children` would be shorter, but not every kernel has it.
fn children_of_ours() -> anyhow::Result<Vec<Pid>> {
    let own = rustix::process::getpid();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("no /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|it| it.parse().ok()).and_then(Pid::from_raw) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if parent_in(&stat) == Some(own.as_raw_nonzero().get()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The fourth field of `/proc/{pid}/stat` (proc(5)); the second may contain anything, even parentheses.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parent_in;

    #[test]
    fn the_parent_is_found_whatever_the_process_is_called() {
        assert_eq!(parent_in("12 (postgres) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("12 (a ) R 9 (b) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("garbage"), None);
    }
}
