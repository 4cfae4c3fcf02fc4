//! What was measured: a table for people, JSON for programs. Sizes in bytes; 1 kB is 1000 bytes.

use std::io::Write as _;
use std::time::Duration;

use mcp_gateway::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use mcp_gateway::type_url;
use serde::Serialize;

use super::Options;

/// How long something took, and what it cost the control plane.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Phase {
    pub seconds: f64,
    /// Processor time of the control plane's process, in user space and in the kernel.
    pub processor_seconds: f64,
}

/// What passed on one stream up to its confirmation. Messages: encoded, with gRPC's five bytes each. Socket: everything beneath TLS,
/// its handshake with both certificates included.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Traffic {
    pub messages_received: u64,
    pub messages_sent: u64,
    pub socket_received: u64,
    pub socket_sent: u64,
}

/// What one change was on one stream: resources by kind, and bytes of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    pub bundles: u64,
    pub manifests: u64,
    pub others: u64,
    pub responses: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latencies {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub most: f64,
}

/// One run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub streams: usize,
    pub organizations: u32,
    pub servers: u32,
    pub policies: u32,
    pub keys: u32,
    /// Covered resources of a node.
    pub resources: usize,
    pub first_load: Phase,
    pub attach: Phase,
    pub change: Phase,
    pub reconnect: Phase,
    pub restart: Phase,
    /// The median node's.
    pub attach_traffic: Traffic,
    /// The largest of any node.
    pub reconnect_traffic: Traffic,
    /// The largest of any node.
    pub restart_traffic: Traffic,
    pub memory_without_streams: u64,
    pub memory_with_streams: u64,
    pub memory_after_restart: u64,
    /// Milliseconds from commit to applied, of each node and change.
    #[serde(skip)]
    pub propagation: Vec<f64>,
    /// Of each node and change.
    #[serde(skip)]
    pub changes: Vec<Change>,
    /// Milliseconds that one node compiled: the whole at first, then each change.
    #[serde(skip)]
    pub compilations: Vec<f64>,
    /// Responses that any node refused.
    pub refused: u64,
}

impl Latencies {
    fn of(milliseconds: &[f64]) -> Self {
        let mut sorted = milliseconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        // Nearest rank: a value that was measured.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default()
        };
        Self { p50: at(50), p90: at(90), p99: at(99), most: at(100) }
    }
}

impl Traffic {
    fn messages(&self) -> u64 {
        self.messages_received + self.messages_sent
    }

    fn socket(&self) -> u64 {
        self.socket_received + self.socket_sent
    }

    pub(super) fn median(mut sessions: Vec<Self>) -> Self {
        sessions.sort_by_key(Self::socket);
        sessions.get(sessions.len() / 2).cloned().unwrap_or_default()
    }

    pub(super) fn largest(sessions: Vec<Self>) -> Self {
        sessions.into_iter().max_by_key(Self::messages).unwrap_or_default()
    }
}

impl Change {
    pub(super) fn count(&mut self, response: &DeltaDiscoveryResponse, size: u64) {
        let touched = (response.resources.len() + response.removed_resources.len()) as u64;
        match response.type_url.as_str() {
            type_url::ORG_BUNDLE => self.bundles += touched,
            type_url::MANIFEST => self.manifests += touched,
            _ => self.others += touched,
        }
        self.responses += 1;
        self.bytes_received += size;
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            bundles: self.bundles - before.bundles,
            manifests: self.manifests - before.manifests,
            others: self.others - before.others,
            responses: self.responses - before.responses,
            bytes_received: self.bytes_received - before.bytes_received,
            bytes_sent: self.bytes_sent - before.bytes_sent,
        }
    }
}

impl Report {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            streams: options.streams,
            organizations: options.organizations,
            servers: options.servers,
            policies: options.policies,
            keys: options.keys,
            ..Self::default()
        }
    }

    pub fn latencies(&self) -> Latencies {
        Latencies::of(&self.propagation)
    }

    /// Bytes of the control plane's memory that one stream accounts for, when it has been open for a while.
    pub fn memory_per_stream(&self) -> u64 {
        self.memory_with_streams.saturating_sub(self.memory_without_streams) / (self.streams.max(1) as u64)
    }

    pub fn json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["propagation_milliseconds"] = serde_json::to_value(self.latencies()).unwrap_or_default();
        value["compile_milliseconds_at_first"] = self.compilations.first().copied().into();
        value["compile_milliseconds_of_a_change"] = serde_json::to_value(Latencies::of(self.later())).unwrap_or_default();
        value["memory_per_stream"] = self.memory_per_stream().into();
        value["change_of_a_node"] = serde_json::to_value(self.largest_change()).unwrap_or_default();
        value
    }

    /// Compilations of changes.
    fn later(&self) -> &[f64] {
        self.compilations.get(1..).unwrap_or_default()
    }

    fn largest_change(&self) -> Change {
        self.changes.iter().max_by_key(|change| change.bytes_received).cloned().unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let Latencies { p50, p90, p99, most } = self.latencies();
        let change = self.largest_change();
        let phase = |phase: &Phase| format!("{:.1} s, {:.1} s of processor", phase.seconds, phase.processor_seconds);
        let traffic = |traffic: &Traffic| {
            format!(
                "{} received + {} sent in messages; {} + {} on the socket",
                bytes(traffic.messages_received),
                bytes(traffic.messages_sent),
                bytes(traffic.socket_received),
                bytes(traffic.socket_sent)
            )
        };
        let fleet = format!(
            "{} streams; {} organisations, {} servers, {} policies, {} keys; {} resources",
            self.streams, self.organizations, self.servers, self.policies, self.keys, self.resources
        );
        let later = Latencies::of(self.later());
        let first = self.compilations.first().copied().unwrap_or_default();
        let compiled = format!("p50 {:.1} ms, most {:.1} ms; the whole at first {first:.0} ms", later.p50, later.most);
        let counted = format!("{} bundle, {} manifest, {} others", change.bundles, change.manifests, change.others);
        let rows = [
            ("installation", fleet),
            ("first load, read to published", phase(&self.first_load)),
            ("whole fleet attaches, empty-handed", phase(&self.attach)),
            ("  a node", traffic(&self.attach_traffic)),
            (
                "change of one organisation, commit to applied",
                format!("p50 {p50:.0} ms, p90 {p90:.0} ms, p99 {p99:.0} ms, most {most:.0} ms"),
            ),
            (
                "  a node, at most",
                format!("{} received, {} sent: {counted}", bytes(change.bytes_received), bytes(change.bytes_sent)),
            ),
            ("  compiling one in a node", compiled),
            ("  all changes, one after the other", phase(&self.change)),
            ("whole fleet reconnects, unchanged", phase(&self.reconnect)),
            ("  a node, at most", traffic(&self.reconnect_traffic)),
            ("control plane killed and restarted, all back", phase(&self.restart)),
            ("  a node, at most", traffic(&self.restart_traffic)),
            ("memory without streams", bytes(self.memory_without_streams)),
            (
                "memory with all streams",
                format!("{}: {} per stream", bytes(self.memory_with_streams), bytes(self.memory_per_stream())),
            ),
            ("memory after the restart, all back", bytes(self.memory_after_restart)),
            ("responses that nodes refused", self.refused.to_string()),
        ];
        rows.iter().map(|(what, value)| format!("{what:<47} {value}\n")).collect()
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

pub(super) fn progress(at: Duration, what: &str) {
    // Nobody may be listening; the run goes on.
    let _written = writeln!(std::io::stderr(), "{:>6.1} s  {what}", at.as_secs_f64());
}
