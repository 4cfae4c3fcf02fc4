//! What is counted beside the rounds: system calls of a request, by strace; rules that are looked at for it; and allocations.

use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

use super::anchors::Anchor;
use super::load::{Pace, Window};
use super::process::Rig;
use super::report::{Allocations, Rules, Syscalls};
use super::work::Work;

/// Seconds under strace.
const TRACED: f64 = 2.0;
/// Seconds of a window in which something is counted.
const COUNTED: f64 = 1.0;
/// Connections meanwhile.
const CONNECTIONS: usize = 16;

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
    let (outcome, _) = super::window(rig, anchor, &closed(&anchor.work, connections, TRACED)).await?;
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

/// How many rules a node looks at for a decision.
pub async fn rules(rig: &Rig, anchor: &Anchor) -> anyhow::Result<Option<Rules>> {
    if anchor.admin.is_none() {
        return Ok(None);
    }
    let counters = async || {
        let decisions = anchor.metric("mcpgw_dataplane_decisions_total").await?;
        anyhow::Ok((decisions, anchor.metric("mcpgw_dataplane_rules_evaluated_total").await?))
    };
    let before = counters().await?;
    super::window(rig, anchor, &closed(&anchor.work, CONNECTIONS, COUNTED)).await?;
    let after = counters().await?;
    let each = (after.1 - before.1) as f64 / (after.0 - before.0) as f64;
    Ok(Some(Rules { anchor: anchor.name, each }))
}

/// How often a node allocates for an answer, on its own and for what it does beside answering (shipping, above all).
pub async fn allocations(rig: &Rig, anchor: &mut Anchor, work: &'static str) -> anyhow::Result<Allocations> {
    let name = anchor.name;
    let of = match work {
        "sse" => anchor.work.of("progress"),
        "legacy" => anchor.work.legacy(),
        _ => anchor.work.clone(),
    };
    // What is only allocated once is not counted.
    super::window(rig, anchor, &closed(&of, CONNECTIONS, COUNTED / 2.0)).await?;
    let mut counter = anchor.counter.take().context("a node that counts")?;
    let before = counter.allocations().await?;
    let (outcome, _) = super::window(rig, anchor, &closed(&of, CONNECTIONS, COUNTED)).await?;
    let after = counter.allocations().await?;
    anchor.counter = Some(counter);
    Ok(Allocations { anchor: name, work, each: (after - before) as f64 / outcome.answers as f64 })
}

fn closed(work: &Work, connections: usize, seconds: f64) -> Window {
    Window { work: work.clone(), connections, seconds, pace: Pace::Closed }
}
