//! The benchmark of requests: a load generator, a fast mock, nginx as the yardstick, and real nodes with little and with everything to
//! do, in interleaved rounds. Measures; judges nothing. Run by `mcpgw-bench`.

mod anchors;
mod control;
pub mod load;
pub mod mock;
mod process;
mod report;
mod setup;
mod wire;
pub mod work;

use std::time::{Duration, Instant};

use anyhow::Context as _;

use anchors::Anchor;
use load::{Outcome, Pace, Window};
use process::{AROUND, Priority};
pub use report::Report;
use report::{Memory, Sample};
use setup::Duty;

/// How long and what.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Interleaved rounds; figures are medians over them
    #[arg(long, default_value_t = 9)]
    pub rounds: usize,
    /// Seconds of every window of load
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Three rounds of short windows
    #[arg(long)]
    pub quick: bool,
    /// Only these anchors (nginx is the yardstick): direct, nginx, off, on-1, on, on-10000
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Connections of the closed loop
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    pub connections: Vec<usize>,
    /// Requests per second of the open loop; 0: none
    #[arg(long, default_value_t = 2000)]
    pub rate: u32,
}

/// Connections of the open loop.
const OPEN_CONNECTIONS: usize = 32;

/// Measures everything that was asked for.
pub async fn run(mut options: Options) -> anyhow::Result<Report> {
    crate::fleet::install_crypto();
    if options.quick {
        (options.rounds, options.seconds) = (3, 1.0);
    }
    let began = Instant::now();
    let priority = Priority::permitted();
    let (_mock, upstream) = anchors::mock(priority).await?;
    let anchors = start(&options, priority, &upstream).await?;
    let mut report = Report { priority, samples: Vec::new(), memory: Vec::new() };
    for anchor in &anchors {
        window(anchor, priority, 1, 0.2, Pace::Closed).await.with_context(|| anchor.name)?;
    }
    for anchor in &anchors {
        if let Some(process) = &anchor.process {
            report.memory.push(Memory { anchor: anchor.name, idle: process.memory()?.0, peak: 0, shipped: 0 });
        }
    }
    for round in 0..options.rounds {
        progress(began.elapsed(), &format!("round {} of {}", round + 1, options.rounds));
        for (load, connections, pace) in loads(&options) {
            for anchor in &anchors {
                let (outcome, processor) = window(anchor, priority, connections, options.seconds, pace)
                    .await
                    .with_context(|| format!("{} at {load}", anchor.name))?;
                let load = load.clone();
                report.samples.push(Sample { anchor: anchor.name, round, load, outcome, processor });
            }
        }
    }
    for memory in &mut report.memory {
        let anchor = anchors.iter().find(|anchor| anchor.name == memory.anchor);
        if let Some(process) = anchor.and_then(|anchor| anchor.process.as_ref()) {
            memory.peak = process.memory()?.1;
        }
        let desk = anchor.and_then(|anchor| anchor.desk.as_ref());
        memory.shipped = desk.map_or(0, |desk| desk.shipped.load(std::sync::atomic::Ordering::Relaxed));
    }
    Ok(report)
}

async fn start(options: &Options, priority: Priority, upstream: &str) -> anyhow::Result<Vec<Anchor>> {
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut anchors = Vec::new();
    if wanted("direct") {
        anchors.push(Anchor::direct(upstream));
    }
    anchors.push(Anchor::nginx(priority, upstream).await?);
    let nodes = [
        ("off", Duty::Bare),
        ("on-1", Duty::Full { policies: 1 }),
        ("on", Duty::Full { policies: 1000 }),
        ("on-10000", Duty::Full { policies: 10_000 }),
    ];
    for (name, duty) in nodes {
        if wanted(name) {
            anchors.push(Anchor::node(name, duty, priority, upstream).await.with_context(|| name)?);
        }
    }
    Ok(anchors)
}

fn loads(options: &Options) -> Vec<(String, usize, Pace)> {
    let closed = options.connections.iter().map(|count| (format!("c={count}"), *count, Pace::Closed));
    let open = (options.rate > 0).then(|| (format!("{}/s", options.rate), OPEN_CONNECTIONS, Pace::Open(options.rate)));
    closed.chain(open).collect()
}

/// One window of load on one anchor, by a process of its own; microseconds of the proxy's processor time per answer.
async fn window(
    anchor: &Anchor,
    priority: Priority,
    connections: usize,
    seconds: f64,
    pace: Pace,
) -> anyhow::Result<(Outcome, Option<f64>)> {
    let window = Window { work: anchor.work.clone(), connections, seconds, pace };
    let file = tempfile::NamedTempFile::new()?;
    serde_json::to_writer(&file, &window)?;
    let processor = |anchor: &Anchor| anchor.process.as_ref().map(process::Measured::processor).transpose();
    let before = processor(anchor)?;
    let output = priority.command(AROUND, std::env::current_exe()?).arg("load").arg(file.path()).output().await?;
    let spent = processor(anchor)?.zip(before).map(|(after, before)| after - before);
    anyhow::ensure!(output.status.success(), "the load ended early: {}", String::from_utf8_lossy(&output.stderr));
    let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
    anyhow::ensure!(outcome.answers > 0, "no answers");
    let each = spent.map(|spent| spent as f64 / outcome.answers as f64);
    Ok((outcome, each))
}

fn progress(at: Duration, what: &str) {
    use std::io::Write as _;
    // Nobody may be listening; the run goes on.
    let _written = writeln!(std::io::stderr(), "{:>6.1} s  {what}", at.as_secs_f64());
}
