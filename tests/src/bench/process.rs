//! Processes under measurement: where they run, and what the kernel says that they cost.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use serde::Serialize;
use tokio::process::{Child, Command};

/// Linux counts processor time for user space in hundredths of a second (USER_HZ), whatever the kernel's own clock does.
const MICROSECONDS_PER_TICK: u64 = 10_000;

/// The processor for load, mock, control plane and database.
pub const AROUND: &str = "0";
/// The processor of whatever is measured, alone on it.
pub const MEASURED: &str = "1";

/// How neighbours are kept out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// `chrt --rr 1`: before every ordinary process; threads of one program take turns.
    Realtime,
    /// Nothing: neighbours take their share.
    Ordinary,
}

impl Priority {
    /// The best that is permitted.
    pub fn permitted() -> Self {
        let tried = std::process::Command::new("chrt").args(["--rr", "1", "true"]).stderr(Stdio::null()).status();
        if tried.is_ok_and(|status| status.success()) { Self::Realtime } else { Self::Ordinary }
    }
}

/// How processes of a run are started.
#[derive(Debug)]
pub struct Rig {
    pub priority: Priority,
    /// Serves the mock and drives the load.
    pub program: PathBuf,
}

impl Rig {
    /// With `program`, or this one.
    pub fn new(program: Option<PathBuf>, gentle: bool) -> anyhow::Result<Self> {
        let own = std::env::current_exe();
        let priority = if gentle { Priority::Ordinary } else { Priority::permitted() };
        Ok(Self { priority, program: program.map_or(own, Ok)? })
    }

    /// A binary of this workspace, beside that program.
    pub fn beside(&self, name: &str) -> anyhow::Result<PathBuf> {
        let found = self.program.with_file_name(name);
        anyhow::ensure!(found.exists(), "no {}: build it first", found.display());
        Ok(found)
    }

    /// `program`, to run on one processor.
    pub fn command(&self, processor: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", processor]);
        if self.priority == Priority::Realtime {
            command.args(["chrt", "--rr", "1"]);
        }
        command.arg(program).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// A process and its descendants, as `/proc` shows them. Dropped, all of them are killed: nginx's worker would outlive its master.
#[derive(Debug)]
pub struct Measured {
    pub child: Child,
}

impl Drop for Measured {
    fn drop(&mut self) {
        // Who has ended already needs no killing.
        for pid in self.pids().unwrap_or_default() {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            let _killed = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    }
}

impl Measured {
    /// Microseconds of processor time so far, in the programs and in the kernel.
    pub fn processor(&self) -> anyhow::Result<u64> {
        self.pids()?.into_iter().map(|pid| Ok(ticks(pid)? * MICROSECONDS_PER_TICK)).sum()
    }

    /// Resident bytes now, and the most so far.
    pub fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let mut sum = (0, 0);
        for pid in self.pids()? {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            sum.0 += kilobytes(&status, "VmRSS:")?;
            sum.1 += kilobytes(&status, "VmHWM:")?;
        }
        Ok((sum.0 * 1024, sum.1 * 1024))
    }

    /// The process and those that it started.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let mut pids = vec![self.child.id().context("the process has ended")?];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        Ok(pids)
    }
}

fn ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name, in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/<pid>/stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()?)
}

fn kilobytes(status: &str, key: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key} in a status"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
