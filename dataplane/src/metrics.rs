//! What the data plane counts. One registry per process part, never a global, so that two planes can share a process.
//!
//! Owns names, labels and buckets; label values are bounded (servers, outcomes, reasons), never anything a caller chose.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use hashbrown::HashMap;
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::{Org, Server};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::audit::Spool;
use crate::limits;
use crate::live::Live;
use crate::xds::Stats;

/// Requests by where they went and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    /// `<organisation>/<server>`; empty when no server was found.
    server: String,
    /// As in audit records.
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfServer {
    server: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    /// `<organisation>/<limit>`.
    limit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verification {
    /// `verified` (a signature was checked) or `remembered`.
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Load {
    /// `applied` or `refused`.
    outcome: &'static str,
}

/// What is counted of one server, found once per request: its counters are not looked up again.
#[derive(Debug)]
pub struct OfOneServer {
    /// `<organisation>/<server>`; empty when no server was found.
    label: String,
    /// By outcome, from the first that ended so.
    ended: [OnceLock<Counter>; OUTCOMES.len()],
    seconds: OnceLock<Histogram>,
}

impl OfOneServer {
    fn labelled(label: String) -> Arc<Self> {
        Arc::new(Self { label, ended: Default::default(), seconds: OnceLock::new() })
    }

    fn is_of(&self, org: &str, server: &str) -> bool {
        self.label.split_once('/') == Some((org, server))
    }
}

/// All counters of a data plane.
pub struct Metrics {
    registry: Registry,
    requests: Family<Ended, Counter>,
    seconds: Family<OfServer, Histogram, fn() -> Histogram>,
    refusals: Family<Reason, Counter>,
    limited: Family<OfLimit, Counter>,
    decisions: Counter,
    rules_evaluated: Counter,
    tokens_verified: Counter,
    tokens_remembered: Counter,
    /// Those of each server, found by its id.
    servers: RwLock<HashMap<Arc<str>, Arc<OfOneServer>>>,
    nowhere: Arc<OfOneServer>,
    /// Requests that are being decided or answered.
    pub in_flight: Gauge,
    /// Streams that are open to clients.
    pub open_streams: Arc<AtomicU32>,
    /// What discovery has been doing.
    pub discovery: Arc<Stats>,
    /// How calls were decided that fall under rate limits.
    pub limits: Arc<limits::Stats>,
    /// Streams that were ended because their caller may no longer have them.
    pub streams_revoked: Counter,
    /// Streams that were ended because their client does not read.
    pub slow_readers: Counter,
    /// WebSockets that are open to clients.
    pub sockets: Gauge,
    /// Sessions that live in this node.
    pub sessions: Gauge,
    /// Owned sessions that went on with another session of their server's.
    pub sessions_healed: Counter,
    /// Requests that panicked.
    pub panics: Counter,
    /// Records that could not be written although their call went on.
    pub records_lost: Counter,
    /// Records given up to make room on a node that has nobody to ship them to.
    pub records_retired: Counter,
    static_loads: Family<Load, Counter>,
    sampled: Sampled,
}

/// Read from elsewhere when the page is asked for.
#[derive(Clone, Default)]
struct Sampled {
    config_epoch: Gauge<u64, AtomicU64>,
    config_version: Gauge<u64, AtomicU64>,
    config_quarantined: Gauge<u64, AtomicU64>,
    config_denied: Gauge<u64, AtomicU64>,
    spool_frames: Gauge<u64, AtomicU64>,
    spool_bytes: Gauge<u64, AtomicU64>,
    spool_oldest_ms: Gauge<u64, AtomicU64>,
    spool_shed: Gauge<u64, AtomicU64>,
    spool_full: Gauge<u64, AtomicU64>,
    spool_syncs: Gauge<u64, AtomicU64>,
    uncaptured: Gauge<u64, AtomicU64>,
    remembered: Gauge<u64, AtomicU64>,
    streams: Gauge<u64, AtomicU64>,
    drained: Gauge<u64, AtomicU64>,
    peers: Gauge<u64, AtomicU64>,
}

/// From 0.1 ms to about 100 s.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 21))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::with_prefix("mcpgw");
        let tokens: Family<Verification, Counter> = Family::default();
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(latency as fn() -> Histogram),
            refusals: Family::default(),
            limited: Family::default(),
            decisions: Counter::default(),
            rules_evaluated: Counter::default(),
            tokens_verified: tokens.get_or_create_owned(&Verification { how: "verified" }),
            tokens_remembered: tokens.get_or_create_owned(&Verification { how: "remembered" }),
            servers: RwLock::default(),
            nowhere: OfOneServer::labelled(String::new()),
            in_flight: Gauge::default(),
            open_streams: Arc::default(),
            discovery: Arc::default(),
            limits: Arc::default(),
            streams_revoked: Counter::default(),
            slow_readers: Counter::default(),
            sockets: Gauge::default(),
            sessions: Gauge::default(),
            sessions_healed: Counter::default(),
            panics: Counter::default(),
            records_lost: Counter::default(),
            records_retired: Counter::default(),
            static_loads: Family::default(),
            sampled: Sampled::default(),
            registry: Registry::default(),
        };
        all.register_collector(Box::new(metrics.discovery.clone()));
        metrics.limits.register(&mut all);
        let registry = all.sub_registry_with_prefix("dataplane");
        registry.register("requests", "Requests that ended, by server and outcome", metrics.requests.clone());
        registry.register_with_unit("request", "Time from head to end of answer", Unit::Seconds, metrics.seconds.clone());
        registry.register("refusals", "Refused requests by stage and reason", metrics.refusals.clone());
        registry.register("limited", "Calls refused by rate limits", metrics.limited.clone());
        registry.register("decisions", "Questions put to the policy", metrics.decisions.clone());
        registry.register("rules_evaluated", "Rules looked at to decide them", metrics.rules_evaluated.clone());
        registry.register("tokens", "Tokens recognised, by whether a signature was checked", tokens);
        registry.register("in_flight", "Requests being decided or answered", metrics.in_flight.clone());
        registry.register("streams_revoked", "Streams ended by revocation or policy", metrics.streams_revoked.clone());
        registry.register("slow_readers", "Streams ended because their client does not read", metrics.slow_readers.clone());
        registry.register("sessions", "Sessions that live in this node", metrics.sessions.clone());
        registry.register("sockets", "WebSockets open to clients", metrics.sockets.clone());
        registry.register(
            "sessions_healed",
            "Sessions that went on although their server lost its own",
            metrics.sessions_healed.clone(),
        );
        registry.register("panics", "Requests that panicked", metrics.panics.clone());
        registry.register("records_lost", "Records that could not be written", metrics.records_lost.clone());
        registry.register(
            "records_retired",
            "Records given up to make room without a control plane",
            metrics.records_retired.clone(),
        );
        registry.register("static_loads", "Loads of the documents of --static, by outcome", metrics.static_loads.clone());
        metrics.sampled.register(registry);
        Self { registry: all, ..metrics }
    }
}

impl Sampled {
    fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("config_epoch", "Epoch of the configuration in force", &self.config_epoch),
            ("config_version", "Version of the configuration in force", &self.config_version),
            (
                "config_quarantined_organizations",
                "Organisations that are not served as the configuration in force says",
                &self.config_quarantined,
            ),
            (
                "config_denied_organizations",
                "Those of them that have no last good configuration to be served from",
                &self.config_denied,
            ),
            ("audit_spool_frames", "Audit frames that wait to be acknowledged", &self.spool_frames),
            ("audit_spool_bytes", "Bytes of the audit spool", &self.spool_bytes),
            ("audit_spool_oldest_ms", "Age of the oldest frame that waits, in milliseconds", &self.spool_oldest_ms),
            ("audit_spool_shed", "Access records dropped for want of room", &self.spool_shed),
            ("tokens_remembered", "Verified tokens that are remembered", &self.remembered),
            ("streams", "Streams open to clients", &self.streams),
            ("endpoints_drained", "Endpoints that get no calls because an operator said so", &self.drained),
            ("peers", "Nodes of the pool whose addresses are known", &self.peers),
            ("audit_spool_full", "Audit records refused for want of room", &self.spool_full),
            (
                "audit_spool_syncs",
                "How often records were brought to the disk for organisations that wait for that",
                &self.spool_syncs,
            ),
            ("audit_uncaptured", "Captured arguments and results given up for want of room", &self.uncaptured),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }
}

impl Metrics {
    /// Where requests that meet no server are counted.
    pub fn nowhere(&self) -> Arc<OfOneServer> {
        self.nowhere.clone()
    }

    /// What is counted of a server; servers are renamed, ids stay.
    pub fn of_server(&self, org: &Org, server: &Server) -> Arc<OfOneServer> {
        let known = self.servers.read().unwrap_or_else(PoisonError::into_inner).get(&server.id).cloned();
        known.filter(|known| known.is_of(&org.slug, &server.slug)).unwrap_or_else(|| {
            let counters = OfOneServer::labelled(format!("{}/{}", org.slug, server.slug));
            self.servers.write().unwrap_or_else(PoisonError::into_inner).insert(server.id.clone(), counters.clone());
            counters
        })
    }

    /// A request to a server ended.
    pub fn ended(&self, server: &OfOneServer, outcome: Outcome, seconds: f64) {
        let place = OUTCOMES.iter().position(|known| *known == outcome).unwrap_or_default();
        let ended = || Ended { server: server.label.clone(), outcome: outcome_label(outcome) };
        server.ended[place].get_or_init(|| self.requests.get_or_create_owned(&ended())).inc();
        let seconds_of = || self.seconds.get_or_create_owned(&OfServer { server: server.label.clone() });
        server.seconds.get_or_init(seconds_of).observe(seconds);
    }

    /// A request was refused.
    pub fn refused(&self, reason: &str) {
        self.refusals.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// The policy was asked, and looked at this many rules.
    pub fn decided(&self, rules: u32) {
        self.decisions.inc();
        self.rules_evaluated.inc_by(rules.into());
    }

    /// A rate limit refused a call.
    pub fn limited(&self, org: &str, limit: &str) {
        self.limited.get_or_create(&OfLimit { limit: format!("{org}/{limit}") }).inc();
    }

    /// The documents of `--static` were read.
    pub fn static_load(&self, applied: bool) {
        let outcome = if applied { "applied" } else { "refused" };
        self.static_loads.get_or_create(&Load { outcome }).inc();
    }

    /// A token was recognised.
    pub fn token(&self, remembered: bool) {
        let counter = if remembered { &self.tokens_remembered } else { &self.tokens_verified };
        counter.inc();
    }

    /// The page of `/metrics`, in the OpenMetrics text format.
    pub fn page(&self, live: &Live, spool: &Spool, remembered_tokens: u64) -> String {
        if let Some(snapshot) = live.snapshot() {
            self.sampled.config_epoch.set(snapshot.version().epoch);
            self.sampled.config_version.set(snapshot.version().version);
            let quarantined = snapshot.quarantined();
            self.sampled.config_quarantined.set(quarantined.len() as u64);
            let denied = quarantined.values().filter(|quarantine| quarantine.serving.is_none());
            self.sampled.config_denied.set(denied.count() as u64);
        }
        let backlog = spool.backlog();
        self.sampled.spool_frames.set(backlog.frames);
        self.sampled.spool_bytes.set(backlog.bytes);
        self.sampled.spool_oldest_ms.set(backlog.oldest_ms);
        self.sampled.spool_shed.set(spool.counters().shed.load(Ordering::Relaxed));
        self.sampled.spool_full.set(spool.counters().full.load(Ordering::Relaxed));
        self.sampled.spool_syncs.set(spool.syncs());
        self.sampled.uncaptured.set(spool.counters().uncaptured.load(Ordering::Relaxed));
        self.sampled.remembered.set(remembered_tokens);
        self.sampled.streams.set(self.open_streams.load(Ordering::Relaxed).into());
        self.sampled.drained.set(live.drained().len() as u64);
        self.sampled.peers.set(live.peers().len() as u64);
        let mut page = String::new();
        if text::encode(&mut page, &self.registry).is_err() {
            // Writing to a String cannot fail; should it ever, the scraper must see that the page is not whole.
            let _ = writeln!(page, "# encoding failed");
        }
        page
    }
}

/// All outcomes.
const OUTCOMES: [Outcome; 8] = [
    Outcome::Unspecified,
    Outcome::Ok,
    Outcome::Denied,
    Outcome::Error,
    Outcome::UpstreamFailed,
    Outcome::Cancelled,
    Outcome::Unknown,
    Outcome::GatewayFailed,
];

/// The label of an outcome, as in audit listings.
pub fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "unspecified",
        Outcome::Ok => "ok",
        Outcome::Denied => "denied",
        Outcome::Error => "error",
        Outcome::UpstreamFailed => "upstream_failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Unknown => "unknown",
        Outcome::GatewayFailed => "gateway_failed",
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::audit::Limits;

    #[test]
    fn the_page_says_how_the_configuration_is_and_how_it_came() {
        let (metrics, live, dir) = (Metrics::default(), Live::new().unwrap(), tempfile::tempdir().unwrap());
        let spool = Spool::open(dir.path(), Uuid::now_v7(), 1, Limits::default()).unwrap();
        metrics.discovery.nacks.fetch_add(3, Ordering::Relaxed);
        metrics.discovery.compile_us.store(1500, Ordering::Relaxed);
        let page = metrics.page(&live, &spool, 0);
        for expected in [
            "# TYPE mcpgw_config_stale_seconds gauge",
            "mcpgw_config_stale_seconds 0",
            "mcpgw_dataplane_config_quarantined_organizations 0",
            "mcpgw_dataplane_config_denied_organizations 0",
            "mcpgw_dataplane_config_version 0",
            "mcpgw_dataplane_config_swaps_total 0",
            "mcpgw_dataplane_config_compile_seconds 0.0015",
            "mcpgw_dataplane_config_saved_total 0",
            "mcpgw_dataplane_config_save_failures_total 0",
            "mcpgw_dataplane_discovery_connected 0",
            "mcpgw_dataplane_discovery_streams_total 0",
            "mcpgw_dataplane_discovery_lost_total 0",
            "mcpgw_dataplane_discovery_refused_total 3",
            "mcpgw_limit_decisions_total{mode=\"share\",outcome=\"admitted\"} 0",
            "mcpgw_limit_redis_away 0",
            "mcpgw_limit_redis_seconds_count 0",
        ] {
            assert!(page.lines().any(|line| line == expected), "{expected}:\n{page}");
        }
        assert_eq!(page.matches("# EOF").count(), 1, "{page}");
    }
}
