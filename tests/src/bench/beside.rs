//! What is measured beside the rounds: system calls of a request, counted by strace, and what a silent stream takes in memory.

use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::anchors::Anchor;
use super::load::{Pace, Window};
use super::process::{AROUND, Measured, Rig};
use super::report::{Streams, Syscalls};

/// Seconds under strace.
const TRACED: f64 = 2.0;

/// System calls of the proxy per answer at `connections`; strace stops the process at each, so that times are worth nothing meanwhile.
pub async fn syscalls(rig: &Rig, anchor: &Anchor, connections: usize) -> anyhow::Result<Option<Syscalls>> {
    let Some(process) = &anchor.process else { return Ok(None) };
    let (summary, said) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(summary.path()).stdin(Stdio::null()).stderr(said.reopen()?).kill_on_drop(true);
    for pid in process.pids()? {
        command.args(["-p", &pid.to_string()]);
    }
    let Ok(mut strace) = command.spawn() else { return Ok(None) };
    while !std::fs::read_to_string(said.path())?.contains("attached") {
        if strace.try_wait()?.is_some() {
            return Ok(None); // it is not permitted to trace here
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (outcome, _) = super::window(rig, anchor, &anchor.work, connections, TRACED, Pace::Closed).await?;
    let pid = strace.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).context("strace has ended")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    strace.wait().await?;
    let text = std::fs::read_to_string(summary.path())?;
    let mut calls: Vec<(String, f64)> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let count: f64 = fields.get(3)?.parse().ok()?;
            Some(((*fields.last()?).to_owned(), count / outcome.answers as f64))
        })
        .collect();
    let total = calls.iter().position(|(name, _)| name == "total").map_or(0.0, |at| calls.remove(at).1);
    calls.retain(|(_, each)| *each >= 0.01);
    Ok(Some(Syscalls { anchor: anchor.name, connections, each: total, calls }))
}

/// Resident bytes that each of `count` streams without an event costs the proxy.
pub async fn streams(rig: &Rig, anchor: &Anchor, count: usize) -> anyhow::Result<Option<Streams>> {
    let Some(process) = &anchor.process else { return Ok(None) };
    let before = process.memory()?.0;
    let window = Window { work: anchor.work.legacy(), connections: count, seconds: 0.0, pace: Pace::Closed };
    let file = tempfile::NamedTempFile::new()?;
    serde_json::to_writer(&file, &window)?;
    let mut command = rig.command(AROUND, &rig.program);
    let mut holder = Measured { child: command.arg("hold").arg(file.path()).stdout(Stdio::piped()).spawn()? };
    let output = holder.child.stdout.take().context("it is piped")?;
    let line = BufReader::new(output).lines().next_line().await?;
    anyhow::ensure!(line.as_deref() == Some("open"), "the streams could not be opened");
    let after = process.memory()?.0;
    let each = after.saturating_sub(before) as f64 / count as f64;
    Ok(Some(Streams { anchor: anchor.name, count, each }))
}
