//! The benchmark of requests: a load generator, a fast mock, nginx as the yardstick, and real nodes with little and with everything to
//! do, in interleaved rounds. Measures; judges nothing. Run by `mcpgw-bench`.

mod anchors;
mod beside;
mod control;
pub mod counted;
mod held;
pub mod hold;
pub mod ingest;
pub mod load;
pub mod mock;
mod process;
mod report;
mod setup;
mod wire;
pub mod work;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use anchors::Anchor;
use load::{Outcome, Pace, Window};
use process::{AROUND, Rig};
pub use report::Report;
use report::{Memory, Sample};
use setup::Duty;
use work::Work;

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
    /// Only these anchors (direct, nginx, off, on-1, on, on-10000; nginx is always measured) and parts (requests, syscalls, streams,
    /// rules, allocations, ingest; an anchor alone means its requests)
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Connections of the closed loop
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    pub connections: Vec<usize>,
    /// Requests per second of the open loop; 0: none
    #[arg(long, default_value_t = 2000)]
    pub rate: u32,
    /// Idle streams of each transport to open at once; 0: none
    #[arg(long, default_value_t = 1000)]
    pub streams: usize,
    /// Leave out answers that are streams, legacy sessions, and what crosses eras
    #[arg(long)]
    pub plain: bool,
    /// The program that serves the mock and drives the load; default: this one
    #[arg(long, hide = true)]
    pub program: Option<PathBuf>,
    /// Take no precedence over other processes
    #[arg(long)]
    pub gentle: bool,
}

/// A handful of requests to every kind of anchor, by `program`: a test that the rig works.
pub async fn smoke(program: PathBuf) -> anyhow::Result<Report> {
    run(Options {
        rounds: 1,
        seconds: 0.1,
        quick: false,
        only: ["direct", "off", "on", "requests", "streams", "rules", "allocations", "ingest"].map(str::to_owned).to_vec(),
        connections: vec![2],
        rate: 200,
        streams: 5,
        plain: false,
        program: Some(program),
        gentle: true,
    })
    .await
}

/// Connections of the open loop.
const OPEN_CONNECTIONS: usize = 32;
/// Connections of what is measured in one way only.
const USUAL_CONNECTIONS: usize = 16;
/// Descriptors beside those of silent streams, of which a proxy has two each.
const SPARE_DESCRIPTORS: u64 = 500;
const PARTS: [&str; 6] = ["requests", "syscalls", "streams", "rules", "allocations", "ingest"];

impl Options {
    /// Whether this part of a run is wanted: all of them, unless some or an anchor is named.
    fn part(&self, name: &str) -> bool {
        let named = |only: &String| PARTS.contains(&only.as_str());
        match (self.only.is_empty(), self.only.iter().any(named)) {
            (true, _) => true,
            (false, false) => name == "requests",
            (false, true) => self.only.iter().any(|only| only == name),
        }
    }

    fn anchor(&self, name: &str) -> bool {
        let mut anchors = self.only.iter().filter(|only| !PARTS.contains(&only.as_str())).peekable();
        anchors.peek().is_none() || anchors.any(|only| only == name)
    }

    fn check(&self) -> anyhow::Result<()> {
        let known = |name: &&String| PARTS.contains(&name.as_str()) || ANCHORS.contains(&name.as_str());
        match self.only.iter().find(|name| !known(name)) {
            Some(unknown) => anyhow::bail!("--only {unknown}: there are {} and {}", ANCHORS.join(", "), PARTS.join(", ")),
            None => Ok(()),
        }
    }
}

const NODES: [(&str, Duty); 4] = [
    ("off", Duty::Bare),
    ("on-1", Duty::Full { policies: 1 }),
    ("on", Duty::Full { policies: 1000 }),
    ("on-10000", Duty::Full { policies: 10_000 }),
];
const ANCHORS: [&str; 6] = ["direct", "nginx", "off", "on-1", "on", "on-10000"];

/// Measures everything that was asked for.
pub async fn run(mut options: Options) -> anyhow::Result<Report> {
    options.check()?;
    crate::fleet::install_crypto();
    crate::scale::raise_descriptors(2 * options.streams as u64 + SPARE_DESCRIPTORS)?;
    if options.quick {
        (options.rounds, options.seconds) = (3, 1.0);
    }
    let began = Instant::now();
    let rig = Rig::new(options.program.clone(), options.gentle)?;
    let mut report = Report::new(rig.priority);
    if PARTS[..5].iter().any(|part| options.part(part)) {
        let (_mock, upstream) = anchors::mock(&rig).await?;
        let anchors = start(&options, &rig, &upstream).await?;
        measure(&options, &rig, &anchors, &mut report, began).await?;
        drop(anchors);
        if options.part("streams") && options.streams > 0 {
            report.streams = held::run(&options, &rig, &upstream, began).await?;
        }
        if options.part("allocations") {
            progress(began.elapsed(), "allocations");
            allocations(&options, &rig, &upstream, &mut report).await?;
        }
    }
    if options.part("ingest") {
        progress(began.elapsed(), "ingest");
        report.ingested = Some(ingest::run(options.seconds * 10.0).await?);
    }
    Ok(report)
}

async fn measure(options: &Options, rig: &Rig, anchors: &[Anchor], report: &mut Report, began: Instant) -> anyhow::Result<()> {
    for anchor in anchors {
        let warm_up = Window { work: anchor.work.clone(), connections: 1, seconds: 0.2, pace: Pace::Closed };
        window(rig, anchor, &warm_up).await.with_context(|| anchor.name)?;
        if let Some(process) = &anchor.process {
            report.memory.push(Memory { anchor: anchor.name, idle: process.memory()?.0, peak: 0, shipped: 0 });
        }
    }
    if options.part("requests") {
        rounds(options, rig, anchors, report, began).await?;
    }
    for memory in &mut report.memory {
        let anchor = anchors.iter().find(|anchor| anchor.name == memory.anchor);
        if let Some(process) = anchor.and_then(|anchor| anchor.process.as_ref()) {
            memory.peak = process.memory()?.1;
        }
        let desk = anchor.and_then(|anchor| anchor.desk.as_ref());
        memory.shipped = desk.map_or(0, |desk| desk.shipped.load(std::sync::atomic::Ordering::Relaxed));
    }
    if options.part("rules") {
        progress(began.elapsed(), "rules");
        for anchor in anchors {
            report.rules.extend(beside::rules(rig, anchor).await.with_context(|| anchor.name)?);
        }
    }
    if options.part("syscalls") {
        progress(began.elapsed(), "system calls");
        for (anchor, connections) in anchors.iter().flat_map(|anchor| [(anchor, 1), (anchor, 64)]) {
            report.syscalls.extend(beside::syscalls(rig, anchor, connections).await.with_context(|| anchor.name)?);
        }
    }
    Ok(())
}

async fn rounds(options: &Options, rig: &Rig, anchors: &[Anchor], report: &mut Report, began: Instant) -> anyhow::Result<()> {
    for round in 0..options.rounds {
        progress(began.elapsed(), &format!("round {} of {}", round + 1, options.rounds));
        for Load { name, connections, pace, work } in loads(options) {
            // Only a gateway gets across.
            for anchor in anchors.iter().filter(|anchor| !ACROSS.contains(&name.as_str()) || anchor.desk.is_some()) {
                let load = Window { work: work(&anchor.work), connections, seconds: options.seconds, pace };
                let measured = window(rig, anchor, &load).await;
                let (outcome, processor) = measured.with_context(|| format!("{} at {name}", anchor.name))?;
                report.samples.push(Sample { anchor: anchor.name, round, load: name.clone(), outcome, processor });
            }
        }
    }
    Ok(())
}

/// Nodes of their own, one after the other: counting costs time.
async fn allocations(options: &Options, rig: &Rig, upstream: &str, report: &mut Report) -> anyhow::Result<()> {
    for (name, duty) in NODES.into_iter().filter(|(name, _)| ["off", "on"].contains(name) && options.anchor(name)) {
        let mut anchor = Anchor::counting(name, duty, rig, &format!("{upstream}/mcp")).await.with_context(|| name)?;
        let works: &[&'static str] = if options.plain { &["plain"] } else { &["plain", "sse", "legacy"] };
        for work in works {
            report.allocations.push(beside::allocations(rig, &mut anchor, work).await.with_context(|| name)?);
        }
    }
    Ok(())
}

async fn start(options: &Options, rig: &Rig, upstream: &str) -> anyhow::Result<Vec<Anchor>> {
    let mut anchors = Vec::new();
    if options.anchor("direct") {
        anchors.push(Anchor::direct(upstream));
    }
    anchors.push(Anchor::nginx(rig, upstream).await?);
    for (name, duty) in NODES {
        if options.anchor(name) {
            anchors.push(Anchor::node(name, duty, rig, &format!("{upstream}/mcp")).await.with_context(|| name)?);
        }
    }
    Ok(anchors)
}

/// Loads that cross eras: a modern client's of a legacy server, and a legacy client's of a modern one.
const ACROSS: [&str; 2] = ["to-legacy", "to-modern"];

/// A way to ask.
struct Load {
    name: String,
    connections: usize,
    pace: Pace,
    work: fn(&Work) -> Work,
}

fn loads(options: &Options) -> Vec<Load> {
    let usual = |name: String, connections, pace| Load { name, connections, pace, work: Work::clone };
    let closed = options.connections.iter().map(|count| usual(format!("c={count}"), *count, Pace::Closed));
    let open = (options.rate > 0).then(|| usual(format!("{}/s", options.rate), OPEN_CONNECTIONS, Pace::Open(options.rate)));
    let of = |name: &str, work| Load { name: name.to_owned(), connections: USUAL_CONNECTIONS, pace: Pace::Closed, work };
    let others = [
        of("sse", |work| work.of("progress")),
        // A modern client as the two after it: `c=16` by one caller.
        of("modern", |work| Work { tokens: work.legacy().tokens, ..work.clone() }),
        of("legacy", Work::legacy),
        of(ACROSS[0], |work| Work { tokens: work.legacy().tokens, ..work.across() }),
        of(ACROSS[1], |work| work.legacy().across()),
    ];
    closed.chain(open).chain(others.into_iter().filter(|_| !options.plain)).collect()
}

/// One window of load on one anchor, by a process of its own; microseconds of the proxy's processor time per answer.
async fn window(rig: &Rig, anchor: &Anchor, window: &Window) -> anyhow::Result<(Outcome, Option<f64>)> {
    let file = tempfile::NamedTempFile::new()?;
    serde_json::to_writer(&file, window)?;
    let processor = |anchor: &Anchor| anchor.process.as_ref().map(process::Measured::processor).transpose();
    let before = processor(anchor)?;
    let output = rig.command(AROUND, &rig.program).arg("load").arg(file.path()).output().await?;
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
