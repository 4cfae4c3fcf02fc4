//! Tells the control plane how the node is, again and again. Losing it changes nothing here.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use mcp_gateway::proto::node::v1::node_service_client::NodeServiceClient;
use mcp_gateway::proto::node::v1::{FoundServer, LimitUsage, ReportStatusRequest};
use mcp_gateway::snapshot::{Server, Snapshot};
use tokio_util::sync::CancellationToken;

use super::BUILD;
use super::uplink::{Uplink, whole};
use crate::audit::Spool;
use crate::limits::{Limits, Usage};
use crate::live::Live;
use crate::upstream::era::Eras;
use crate::upstream::{Finding, Findings};
use crate::xds::Stats;

/// Until the control plane must have answered.
const DEADLINE: Duration = Duration::from_secs(5);

/// Counts of rate limits in a report.
const MOST_USAGE: usize = 200;
/// Servers in a report that something was found out about.
const MOST_FOUND: usize = 1000;
/// Of a subject, in a report.
const MOST_CHARACTERS: usize = 256;

/// Where a report's content comes from.
pub struct Report {
    pub live: Arc<Live>,
    pub spool: Arc<Spool>,
    pub discovery: Arc<Stats>,
    /// Open client streams; whoever opens and closes them counts.
    pub open_streams: Arc<AtomicU32>,
    /// Told how many nodes there are, and asked how full their counts are.
    pub limits: Arc<Limits>,
    /// Asked what was found out about servers.
    pub findings: Findings,
    /// Where other nodes reach this one; empty: nowhere.
    pub advertise: String,
    /// Between two reports, give or take 20 %.
    pub every: Duration,
}

impl Report {
    /// Runs until `stop`.
    pub async fn run(self, uplink: Arc<Uplink>, stop: CancellationToken) {
        loop {
            // The first at once: what is answered is needed as long as nothing is known.
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.send(&uplink) => {}
            }
            let wait = self.every.mul_f64(rand::random_range(0.8..1.2));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn send(&self, uplink: &Uplink) {
        let link = match uplink.link().await {
            Ok(link) => link,
            Err(error) => return tracing::debug!("no status report: {error}"),
        };
        let answer = tokio::time::timeout(DEADLINE, NodeServiceClient::new(link.channel.clone()).report_status(self.now())).await;
        match answer {
            Ok(Ok(answer)) => self.limits.live_nodes(answer.into_inner().live_nodes),
            Ok(Err(status)) => tracing::debug!("the status report failed: {}", whole(&status)),
            Err(_) => uplink.discard(&link).await,
        }
    }

    fn now(&self) -> ReportStatusRequest {
        let backlog = self.spool.backlog();
        let snapshot = self.live.snapshot();
        let snapshot = snapshot.as_deref();
        let version = snapshot.map(|snapshot| snapshot.version()).unwrap_or_default();
        let quarantined = snapshot.map_or(0, |snapshot| snapshot.quarantined().len());
        ReportStatusRequest {
            epoch: version.epoch,
            version: version.version,
            digest: snapshot.map(|snapshot| snapshot.digest().as_bytes().to_vec()).unwrap_or_default().into(),
            build: BUILD.to_owned(),
            spool_frames: backlog.frames,
            spool_oldest_ms: backlog.oldest_ms,
            open_streams: self.open_streams.load(Relaxed),
            stale_seconds: self.discovery.stale_seconds(),
            quarantined: u32::try_from(quarantined).unwrap_or(u32::MAX),
            advertise: self.advertise.clone(),
            limit_usage: snapshot.map(|snapshot| usage(&self.limits, snapshot)).unwrap_or_default(),
            found_servers: snapshot.map(|snapshot| found(&self.findings, snapshot)).unwrap_or_default(),
        }
    }
}

/// How full the fullest counts are. Of what the configuration does not have any more nobody asks.
fn usage(limits: &Limits, config: &Snapshot) -> Vec<LimitUsage> {
    let told = |usage: Usage| {
        let org = config.org(&usage.org)?;
        org.all_limits().find(|limit| *limit.id == *usage.limit)?;
        let server = match usage.server.as_str() {
            "" => String::new(),
            id => config.server(id).filter(|(owner, _)| owner.id == org.id)?.1.slug.to_string(),
        };
        Some(LimitUsage {
            org_id: usage.org,
            limit_id: usage.limit,
            subject: readable(&usage.caller),
            server,
            pattern: readable(&usage.pattern),
            seconds: u32::try_from(usage.seconds).unwrap_or(u32::MAX),
            limit: usage.admits,
            used: usage.used,
            reset_ms: usage.reset.div_ceil(1000),
            mode: usage.mode.as_str().to_owned(),
            refused: usage.refused,
        })
    };
    limits.usage(MOST_USAGE).into_iter().filter_map(told).collect()
}

/// What was found out about servers that are registered; of too many, what was found out last.
fn found(findings: &Findings, config: &Snapshot) -> Vec<FoundServer> {
    let servers = config.orgs().flat_map(|org| org.servers());
    let mut found: Vec<_> = servers.filter_map(|server| Some((server, findings.of(server)?))).collect();
    if found.len() > MOST_FOUND {
        found.sort_unstable_by_key(|(_, finding)| Reverse(finding.at));
        found.truncate(MOST_FOUND);
    }
    let told = |(server, finding): (&Arc<Server>, Finding)| FoundServer {
        server_id: server.id.to_string(),
        transport: finding.transport.unwrap_or_default().into(),
        era: finding.eras.map(Eras::registered).unwrap_or_default().into(),
        found_at_ms: finding.at.duration_since(UNIX_EPOCH).map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
    };
    found.into_iter().map(told).collect()
}

/// What an issuer or an administrator named, as much of it as a line can hold and without what would break the line.
fn readable(text: &str) -> String {
    text.chars().take(MOST_CHARACTERS).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::node::v1::Decided;
    use uuid::Uuid;

    use super::*;
    use crate::audit::{self, Class};
    use crate::node::testing::{Ca, Desk};
    use crate::upstream::Upstreams;
    use crate::upstream::link::Found;

    #[tokio::test]
    async fn a_report_says_what_the_node_runs_and_what_waits_in_its_spool() {
        let ca = Arc::new(Ca::new());
        let desk = Desk::new(&ca);
        let control = desk.open().await;
        let (uplink, _identity) = control.uplink(ca.identity());
        let dir = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::open(dir.path(), Uuid::now_v7(), 1, audit::Limits::default()).unwrap());
        let recorded = spool.append_decided(Class::Audit, &mut Decided::default()).unwrap();
        spool.write_now(&recorded.ticket).unwrap();
        let live = Arc::new(Live::new().unwrap());
        let discovery = Arc::new(Stats::default());
        discovery.restored(Duration::from_secs(500));
        let (open_streams, advertise) = (Arc::new(AtomicU32::new(3)), "10.0.0.1:9000".to_owned());
        let limits = Arc::new(Limits::new(10));
        let upstreams = Upstreams::new(Duration::from_secs(1), &Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let findings = Findings::new(upstreams, Found::default());
        let every = Duration::from_secs(10);
        Report { live, spool, discovery, open_streams, limits, findings, advertise, every }.send(&uplink).await;
        let report = desk.report.borrow().clone().expect("a report");
        assert_eq!(report.advertise, "10.0.0.1:9000");
        assert_eq!((report.epoch, report.version, report.digest.len()), (0, 0, 0), "nothing applied yet");
        assert!(report.stale_seconds >= 500, "as old as it was before the restart");
        assert_eq!((report.spool_frames, report.open_streams, report.build.as_str()), (1, 3, BUILD));
    }
}
