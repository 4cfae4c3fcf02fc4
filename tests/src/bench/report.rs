//! What was measured, as a table for people and as JSON for programs. Medians over the rounds; ratios to nginx are taken within a round,
//! so that what slows a whole round down does not count.

use std::fmt::Write as _;

use serde::Serialize;

use super::ingest::Ingested;
use super::load::Outcome;
use super::process::Priority;

/// The anchor that others are compared with.
pub const YARDSTICK: &str = "nginx";

/// One window of one anchor.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub anchor: &'static str,
    pub round: usize,
    /// `c=16`, `2000/s` and so on.
    pub load: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Processor time of the proxy per answer, in microseconds; absent where there is none.
    pub processor: Option<f64>,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub priority: Priority,
    pub samples: Vec<Sample>,
    pub memory: Vec<Memory>,
    pub syscalls: Vec<Syscalls>,
    pub streams: Vec<Streams>,
    pub rules: Vec<Rules>,
    pub allocations: Vec<Allocations>,
    pub ingested: Option<Ingested>,
}

/// System calls of a proxy.
#[derive(Debug, Clone, Serialize)]
pub struct Syscalls {
    pub anchor: &'static str,
    pub connections: usize,
    /// Per answer.
    pub each: f64,
    /// Those that count, per answer.
    pub calls: Vec<(String, f64)>,
}

/// Rules that a node looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Rules {
    pub anchor: &'static str,
    /// Per decision.
    pub each: f64,
}

/// What a node allocated.
#[derive(Debug, Clone, Serialize)]
pub struct Allocations {
    pub anchor: &'static str,
    /// `plain`, `sse` or `legacy`.
    pub work: &'static str,
    /// Allocations and growths per answer.
    pub each: f64,
}

/// Streams that say nothing, and what they cost.
#[derive(Debug, Clone, Serialize)]
pub struct Streams {
    pub anchor: &'static str,
    /// The clients' transport.
    pub kind: &'static str,
    /// Whether the proxy holds a stream of the server's for each, too.
    pub server_streams: bool,
    pub count: usize,
    /// Resident bytes of each in the proxy.
    pub each: f64,
    pub spoken: Spoken,
}

/// Something that was said to all streams, in microseconds; medians.
#[derive(Debug, Clone, Serialize)]
pub struct Spoken {
    /// Until it was at the first client,
    pub first: f64,
    /// and at the last one.
    pub last: f64,
    /// Of the proxy's processor, for each client.
    pub processor: f64,
}

/// Resident bytes of an anchor.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    pub anchor: &'static str,
    pub idle: u64,
    pub peak: u64,
    /// Audit frames that reached the sink; two per answer, but for what is still under way.
    pub shipped: u64,
}

/// A median with its quartiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        // Nearest rank: a value that was measured.
        let at = |percent: usize| values.get((values.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { median: at(50)?, low: at(25)?, high: at(75)? })
    }
}

impl Report {
    fn of(&self, anchor: &str, load: &str, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        let of = self.samples.iter().filter(|sample| sample.anchor == anchor && sample.load == load);
        Spread::of(of.filter_map(value).collect())
    }

    /// Processor time per answer against nginx in the same round.
    fn ratio(&self, anchor: &str, load: &str) -> Option<Spread> {
        self.against(anchor, load, YARDSTICK, load)
    }

    /// Processor time per answer against another anchor or load in the same round.
    fn against(&self, anchor: &str, load: &str, other: &str, other_load: &str) -> Option<Spread> {
        let of = self.samples.iter().filter(|sample| sample.anchor == anchor && sample.load == load);
        let against = |sample: &Sample| {
            let same = |it: &&Sample| it.anchor == other && it.load == other_load && it.round == sample.round;
            Some(sample.processor? / self.samples.iter().find(same)?.processor?)
        };
        Spread::of(of.filter_map(against).collect())
    }

    pub(super) fn new(priority: Priority) -> Self {
        let (samples, memory, syscalls, streams) = Default::default();
        let (rules, allocations) = Default::default();
        Self { priority, samples, memory, syscalls, streams, rules, allocations, ingested: None }
    }

    /// For people.
    pub fn table(&self) -> String {
        let ingested = self.ingested.as_ref().map(Ingested::table).unwrap_or_default();
        format!("{}{}{ingested}", self.requests(), self.around())
    }

    fn requests(&self) -> String {
        if self.samples.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "{:<14} {:<9} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9}  {}\n",
            "anchor", "load", "answers/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "CPU us", "x nginx (quartiles)"
        );
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for sample in &self.samples {
            if !rows.contains(&(sample.anchor, &sample.load)) {
                rows.push((sample.anchor, &sample.load));
            }
        }
        for (anchor, load) in rows {
            let median =
                |value: fn(&Sample) -> f64| self.of(anchor, load, |sample| Some(value(sample))).map_or(0.0, |of| of.median);
            let processor =
                self.of(anchor, load, |sample| sample.processor).map_or("-".to_owned(), |of| format!("{:.1}", of.median));
            let ratio = self.ratio(anchor, load);
            let ratio = ratio.map_or("-".to_owned(), |of| format!("{:.2} ({:.2} to {:.2})", of.median, of.low, of.high));
            let _infallible = writeln!(
                text,
                "{anchor:<14} {load:<9} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>9.0} {processor:>9}  {ratio}",
                median(|sample| sample.outcome.answers as f64 / sample.outcome.seconds),
                median(|sample| sample.outcome.p50),
                median(|sample| sample.outcome.p90),
                median(|sample| sample.outcome.p99),
                median(|sample| sample.outcome.p999),
            );
        }
        for (anchor, load, same) in self.across() {
            let Some(ratio) = self.against(anchor, load, anchor, same) else { continue };
            let Spread { median, low, high } = ratio;
            let _infallible =
                writeln!(text, "{anchor:<14} {load:<9} CPU of a call, x {same}: {median:.2} ({low:.2} to {high:.2})");
        }
        text.push('\n');
        text
    }

    /// What crosses eras, and the same client within its own.
    fn across(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let mut anchors: Vec<&'static str> = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.load == "to-legacy") {
            if !anchors.contains(&sample.anchor) {
                anchors.push(sample.anchor);
            }
        }
        anchors.into_iter().flat_map(|anchor| [(anchor, "to-legacy", "modern"), (anchor, "to-modern", "legacy")]).collect()
    }

    fn around(&self) -> String {
        let mut text = String::new();
        for memory in &self.memory {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let (idle, peak) = (megabytes(memory.idle), megabytes(memory.peak));
            let (anchor, shipped) = (memory.anchor, memory.shipped);
            let _infallible =
                writeln!(text, "{anchor:<14} resident: {idle:.1} MB idle, {peak:.1} MB at most; {shipped} audit frames shipped");
        }
        for streams in &self.streams {
            let Streams { anchor, kind, count, spoken, .. } = streams;
            let (each, alone) = (streams.each / 1e3, if streams.server_streams { "" } else { ", server without one" });
            let (first, last, processor) = (spoken.first / 1e3, spoken.last / 1e3, spoken.processor);
            let said = format!("a broadcast {first:.1} ms to the first, {last:.1} to the last, {processor:.1} us CPU each");
            let _infallible = writeln!(text, "{anchor:<14} {count} idle streams, {kind}{alone}: {each:.1} kB each; {said}");
        }
        for Rules { anchor, each } in &self.rules {
            let _infallible = writeln!(text, "{anchor:<14} rules evaluated per decision: {each:.2}");
        }
        for Allocations { anchor, work, each } in &self.allocations {
            let _infallible = writeln!(text, "{anchor:<14} allocations per answer, {work}: {each:.1}");
        }
        for syscalls in &self.syscalls {
            let calls: Vec<String> = syscalls.calls.iter().map(|(name, each)| format!("{name} {each:.2}")).collect();
            let (anchor, connections, each, calls) = (syscalls.anchor, syscalls.connections, syscalls.each, calls.join(", "));
            let _infallible = writeln!(text, "{anchor:<14} system calls per answer, c={connections}: {each:.1} ({calls})");
        }
        text
    }
}
