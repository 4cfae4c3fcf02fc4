//! How many audit frames a control plane commits: the real one, on a Postgres that writes to disk what it acknowledges, fed through the
//! real Ship call by one generated node as fast as it takes them. A call is two frames and one row.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mcp_gateway::proto::node::v1::{AuditEvent, AuditFrame, Decided, Ended, ShipRequest, audit_event::Event};
use mcpgw_controlplane::ingest::lane::{START, link};
use mcpgw_controlplane::nodes::client::Joined;
use mcpgw_controlplane::testing::{Postgres, config};
use prost::Message as _;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use crate::fleet::Control;

/// What one request may carry.
const FRAMES: usize = 1000;
/// Requests under way, as a node has them.
const WINDOW: usize = 4;
/// Beside its payload a frame in a spool has 49 bytes.
const FRAME_HEAD: u64 = 49;
/// The spool whose time is told.
const SPOOL: u64 = 8 << 30;

/// What was committed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ingested {
    pub seconds: f64,
    pub frames: u64,
    pub rows: u64,
    /// Of a frame as it lies in a spool.
    pub frame_bytes: f64,
    /// Of a row in the database, with its indexes.
    pub row_bytes: f64,
}

/// Ships for `seconds`.
pub async fn run(seconds: f64) -> anyhow::Result<Ingested> {
    let postgres = tokio::task::spawn_blocking(Postgres::durable).await?;
    postgres.execute("CREATE DATABASE ingest").await;
    let control = Control::with(config(&postgres.url("ingest"))).await?;
    let joined = Joined::to(&control.running, "default").await;
    let (say, requests) = mpsc::channel(WINDOW);
    let mut hear = joined.service().await.ship(ReceiverStream::new(requests)).await?.into_inner();
    let mut lane = Lane::new();
    let mut under_way = VecDeque::new();
    let began = Instant::now();
    let mut ingested = Ingested::default();
    let mut bytes = 0;
    loop {
        while under_way.len() < WINDOW && began.elapsed().as_secs_f64() < seconds {
            let request = lane.next();
            bytes += request.frames.iter().map(|frame| FRAME_HEAD + frame.payload.len() as u64).sum::<u64>();
            under_way.push_back(lane.seq);
            say.send(request).await?;
        }
        let Some(expected) = under_way.pop_front() else { break };
        let answer = hear.message().await?.ok_or_else(|| anyhow::anyhow!("the stream ended"))?;
        anyhow::ensure!(answer.acked_seq == expected, "committed up to {}, not {expected}", answer.acked_seq);
    }
    ingested.seconds = began.elapsed().as_secs_f64();
    ingested.frames = lane.seq;
    ingested.frame_bytes = bytes as f64 / lane.seq as f64;
    let mut sql = control.running.sql().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM request_logs WHERE outcome IS NOT NULL").fetch_one(&mut sql).await?;
    let size = "SELECT (pg_total_relation_size('request_logs') + coalesce((SELECT sum(pg_total_relation_size(relid)) \
                FROM pg_partition_tree('request_logs') WHERE relid <> 'request_logs'::regclass), 0))::bigint";
    let size: i64 = sqlx::query_scalar(size).fetch_one(&mut sql).await?;
    ingested.rows = rows.unsigned_abs();
    ingested.row_bytes = size as f64 / rows as f64;
    anyhow::ensure!(ingested.rows * 2 == ingested.frames, "{rows} rows of {} frames", ingested.frames);
    control.running.stop().await?;
    Ok(ingested)
}

impl Ingested {
    /// For how long the default spool takes what arrives at the rate that was committed, when nothing is shipped.
    fn spool_time(&self) -> Duration {
        let per_second = self.frames as f64 / self.seconds * self.frame_bytes;
        Duration::from_secs_f64(SPOOL as f64 / per_second)
    }

    /// For people.
    pub fn table(&self) -> String {
        let minutes = self.spool_time().as_secs() / 60;
        let calls = self.rows as f64 / self.seconds;
        let days = SPOOL as f64 / (100.0 * 2.0 * self.frame_bytes) / 86_400.0;
        format!(
            "ingest         {:.0} frames/s committed and acknowledged = {calls:.0} calls/s (rows), over {:.1} s, {} rows\n\
             \x20              a frame takes {:.0} bytes of spool, a row {:.0} bytes of database\n\
             \x20              8 GiB of spool last {} h {:02} min at that rate without a control plane; {days:.1} days at 100 calls/s\n",
            self.frames as f64 / self.seconds,
            self.seconds,
            self.rows,
            self.frame_bytes,
            self.row_bytes,
            minutes / 60,
            minutes % 60,
        )
    }
}

/// A lane of the node, with records as large as real ones.
struct Lane {
    boot: Uuid,
    organization: String,
    server: String,
    seq: u64,
    hash: [u8; 32],
}

impl Lane {
    fn new() -> Self {
        let id = || Uuid::now_v7().to_string();
        Self { boot: Uuid::now_v7(), organization: id(), server: id(), seq: START.last_seq, hash: START.last_hash }
    }

    fn next(&mut self) -> ShipRequest {
        let mut frames = Vec::with_capacity(FRAMES);
        while frames.len() < FRAMES {
            let (request_id, at) = (Uuid::now_v7(), now());
            for event in [self.decided(request_id, at), ended(request_id, at)] {
                let payload = AuditEvent { event: Some(event) }.encode_to_vec().into();
                self.seq += 1;
                let frame = AuditFrame { seq: self.seq, previous_hash: self.hash.to_vec().into(), payload };
                self.hash = link(&frame);
                frames.push(frame);
            }
        }
        ShipRequest { boot_id: self.boot.to_string(), lane: 0, frames }
    }

    fn decided(&self, request_id: Uuid, at: i64) -> Event {
        Event::Decided(Decided {
            request_id: request_id.to_string(),
            decided_at_us: at,
            class: 1,
            org_id: self.organization.clone(),
            server_id: self.server.clone(),
            server: "mock".into(),
            subject: format!("0190a000-0000-7000-8000-{:012}", self.seq % 64),
            roles: vec!["engineer".into(), "role-3".into()],
            groups: vec!["group-2".into()],
            via: 1,
            credential_id: self.organization.clone(),
            client_address: "192.0.2.1".into(),
            method: "tools/call".into(),
            name: "echo".into(),
            client_protocol_version: "2026-07-28".into(),
            client_transport: "streamable_http".into(),
            client_era: "modern".into(),
            server_transport: "streamable_http".into(),
            server_era: "modern".into(),
            decision: 1,
            rule_id: self.server.clone(),
            rule: "calls".into(),
            mode: "enforce".into(),
            config_epoch: 1,
            config_version: 7,
            org_digest: vec![7; 32].into(),
            request_bytes: 307,
            arguments_digest: vec![9; 32].into(),
            ..Decided::default()
        })
    }
}

fn ended(request_id: Uuid, at: i64) -> Event {
    Event::Ended(Ended {
        request_id: request_id.to_string(),
        decided_at_us: at,
        ended_at_us: at + 1000,
        outcome: 1,
        status: 200,
        response_bytes: 253,
        upstream: "http://127.0.0.1:9000".into(),
        decide_us: 40,
        upstream_us: 900,
        total_us: 1000,
        stage_us: vec![1, 2, 3, 4, 5, 6],
        ..Ended::default()
    })
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
