//! Shipping over real streams on a real Postgres: every frame exactly once, whatever happens.

mod accounts;
mod gaps;

use mcp_gateway::proto::node::v1::{AuditEvent, AuditFrame, Decided, Ended, ShipRequest, ShipResponse, audit_event::Event};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use uuid::Uuid;

use super::lane::{START, link};
use crate::{
    nodes::client::Joined,
    testing::{Postgres, Running, config},
};

/// One lane of a node, as its spool holds it.
pub(crate) struct Lane {
    boot_id: Uuid,
    lane: u32,
    pub frames: Vec<AuditFrame>,
}

impl Lane {
    pub fn new(boot_id: Uuid, lane: u32) -> Self {
        Self { boot_id, lane, frames: Vec::new() }
    }

    pub fn push(&mut self, event: Event) {
        let previous_hash = self.frames.last().map_or(START.last_hash, link).to_vec().into();
        let payload = AuditEvent { event: Some(event) }.encode_to_vec().into();
        self.frames.push(AuditFrame { seq: self.frames.len() as u64 + 1, previous_hash, payload });
    }

    pub fn batch(&self, range: std::ops::Range<usize>) -> ShipRequest {
        ShipRequest { boot_id: self.boot_id.to_string(), lane: self.lane, frames: self.frames[range].to_vec() }
    }
}

/// In the year 2100: nothing of it expires while a test runs.
const AT: i64 = 4_102_444_800_000_000;

fn decided(n: u128) -> Event {
    let request_id = Uuid::from_u128(n).to_string();
    Event::Decided(Decided {
        request_id,
        decided_at_us: AT,
        class: 1,
        decision: 1,
        method: "tools/call".into(),
        name: "echo".into(),
        roles: vec!["a\"b".into(), "c,d".into()],
        ..Decided::default()
    })
}

fn ended(n: u128) -> Event {
    let request_id = Uuid::from_u128(n).to_string();
    Event::Ended(Ended {
        request_id,
        decided_at_us: AT,
        ended_at_us: AT + 1000,
        outcome: 1,
        status: 200,
        stage_us: vec![1, 2, 3],
        ..Ended::default()
    })
}

/// A shipping stream.
pub(crate) struct Shipping {
    say: mpsc::Sender<ShipRequest>,
    hear: Streaming<ShipResponse>,
}

impl Shipping {
    pub async fn of(joined: &Joined) -> Self {
        let (say, requests) = mpsc::channel(8);
        let hear = joined.service().await.ship(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Self { say, hear }
    }

    pub async fn ship(&mut self, request: ShipRequest) -> Result<u64, Code> {
        self.say.send(request).await.unwrap();
        match self.hear.message().await {
            Ok(response) => Ok(response.expect("an answer to every request").acked_seq),
            Err(status) => Err(status.code()),
        }
    }
}

/// Rows, those with an outcome, and those whose beginning is missing.
async fn rows(running: &Running) -> (i64, i64, i64) {
    let counts = "SELECT count(*), count(outcome), count(*) FILTER (WHERE decision = 0) FROM request_logs";
    sqlx::query_as(counts).fetch_one(&mut running.sql().await).await.unwrap()
}

#[tokio::test]
async fn every_frame_counts_once_however_often_it_is_sent() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let mut lane = Lane::new(Uuid::now_v7(), 0);
    for n in 1..=10 {
        lane.push(decided(n));
        lane.push(ended(n));
    }
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(lane.batch(0..0)).await, Ok(0), "a node may ask where it stands");
    assert_eq!(shipping.ship(lane.batch(0..5)).await, Ok(5));
    assert_eq!(rows(&running).await, (3, 2, 0));
    assert_eq!(shipping.ship(lane.batch(0..5)).await, Ok(5));
    assert_eq!(shipping.ship(lane.batch(3..12)).await, Ok(12));
    assert_eq!(shipping.ship(lane.batch(14..20)).await, Ok(12), "a gap is answered with what is before it");
    // Another stream, as after a lost connection.
    let mut again = Shipping::of(&joined).await;
    assert_eq!(again.ship(lane.batch(12..20)).await, Ok(20));
    assert_eq!(shipping.ship(lane.batch(12..20)).await, Ok(20));
    assert_eq!(rows(&running).await, (10, 10, 0));
    let (roles, stages, node): (Vec<String>, Vec<i64>, Uuid) =
        sqlx::query_as("SELECT roles, stage_us, node_id FROM request_logs LIMIT 1")
            .fetch_one(&mut running.sql().await)
            .await
            .unwrap();
    assert_eq!((roles, stages, node), (vec!["a\"b".to_owned(), "c,d".to_owned()], vec![1, 2, 3], joined.id()));
}

#[tokio::test]
async fn a_chain_that_does_not_hold_is_refused_whole() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let mut lane = Lane::new(Uuid::now_v7(), 0);
    (1..=4).for_each(|n| lane.push(decided(n)));
    let mut altered = lane.batch(0..4);
    altered.frames[1].payload = AuditEvent { event: Some(decided(9)) }.encode_to_vec().into();
    assert_eq!(Shipping::of(&joined).await.ship(altered).await, Err(Code::DataLoss));
    let mut skipping = lane.batch(0..4);
    skipping.frames.remove(2);
    assert_eq!(Shipping::of(&joined).await.ship(skipping).await, Err(Code::DataLoss));
    for bad in [
        ShipRequest { boot_id: "x".into(), ..lane.batch(0..4) },
        ShipRequest { lane: u32::MAX, ..lane.batch(0..4) },
        ShipRequest { frames: vec![AuditFrame::default(); 1001], ..lane.batch(0..4) },
    ] {
        assert_eq!(Shipping::of(&joined).await.ship(bad).await, Err(Code::InvalidArgument));
    }
    assert_eq!(rows(&running).await, (0, 0, 0));
    assert_eq!(Shipping::of(&joined).await.ship(lane.batch(0..4)).await, Ok(4));
}

#[tokio::test]
async fn an_end_may_overtake_its_beginning_on_another_lane() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let boot = Uuid::now_v7();
    let (mut begins, mut ends) = (Lane::new(boot, 0), Lane::new(boot, 1));
    begins.push(decided(1));
    ends.push(ended(1));
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(ends.batch(0..1)).await, Ok(1));
    assert_eq!(rows(&running).await, (1, 1, 1));
    assert_eq!(shipping.ship(begins.batch(0..1)).await, Ok(1));
    assert_eq!(rows(&running).await, (1, 1, 0));
}

/// A node that gives up a damaged lane writes the rest of it into another, also what is on its way at that moment.
#[tokio::test]
async fn what_is_shipped_again_on_another_lane_ends_the_row_that_was_begun() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let boot = Uuid::now_v7();
    let (mut given_up, mut again) = (Lane::new(boot, 0), Lane::new(boot, 1));
    given_up.push(decided(1));
    for event in [decided(1), ended(1), decided(2), ended(2)] {
        again.push(event);
    }
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(given_up.batch(0..1)).await, Ok(1));
    assert_eq!(rows(&running).await, (1, 0, 0));
    assert_eq!(shipping.ship(again.batch(0..4)).await, Ok(4));
    assert_eq!(rows(&running).await, (2, 2, 0));
}

#[tokio::test]
async fn a_node_cannot_touch_the_rows_of_another() {
    let running = Running::start().await;
    let (one, two) = (Joined::to(&running, "default").await, Joined::to(&running, "default").await);
    let (mut honest, mut hostile) = (Lane::new(Uuid::now_v7(), 0), Lane::new(Uuid::now_v7(), 0));
    honest.push(decided(1));
    hostile.push(ended(1));
    hostile.push(Event::Decided(Decided {
        method: "forged".into(),
        ..match decided(1) {
            Event::Decided(decided) => decided,
            Event::Ended(_) | Event::Captured(_) | Event::Gap(_) => unreachable!(),
        }
    }));
    assert_eq!(Shipping::of(&one).await.ship(honest.batch(0..1)).await, Ok(1));
    assert_eq!(Shipping::of(&two).await.ship(hostile.batch(0..2)).await, Ok(2));
    let row: (Uuid, String, Option<i16>) =
        sqlx::query_as("SELECT node_id, method, outcome FROM request_logs").fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(row, (one.id(), "tools/call".to_owned(), None));
}

#[tokio::test]
async fn hostile_text_and_unreadable_frames_stop_nothing() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let mut lane = Lane::new(Uuid::now_v7(), 0);
    let Event::Decided(plain) = decided(1) else { unreachable!() };
    lane.push(Event::Decided(Decided {
        method: "\0\0".into(),
        name: "x".repeat(100_000),
        groups: vec!["{\\\",\0}".into(); 3],
        config_version: u64::MAX,
        org_id: "'; DROP TABLE request_logs; --".into(),
        ..plain.clone()
    }));
    lane.push(Event::Decided(Decided { request_id: "nobody".into(), ..plain.clone() }));
    lane.push(Event::Decided(Decided { decided_at_us: i64::MIN, ..plain }));
    lane.push(decided(2));
    assert_eq!(Shipping::of(&joined).await.ship(lane.batch(0..4)).await, Ok(4));
    assert_eq!(rows(&running).await, (2, 0, 0));
    let groups: Vec<String> = sqlx::query_scalar("SELECT groups FROM request_logs WHERE method <> 'tools/call'")
        .fetch_one(&mut running.sql().await)
        .await
        .unwrap();
    assert_eq!(groups, vec!["{\\\",\u{fffd}}"; 3]);
}

#[tokio::test]
async fn without_a_database_nothing_is_acknowledged_and_nothing_is_lost() {
    let server = Postgres::start();
    server.execute("CREATE DATABASE own").await;
    let running = Running::with(config(&server.url("own"))).await;
    let joined = Joined::to(&running, "default").await;
    let mut lane = Lane::new(Uuid::now_v7(), 0);
    (1..=4).for_each(|n| lane.push(decided(n)));
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(lane.batch(0..2)).await, Ok(2));
    server.down();
    assert_eq!(shipping.ship(lane.batch(2..4)).await, Err(Code::Unavailable));
    server.up();
    let mut again = Shipping::of(&joined).await;
    assert_eq!(again.ship(lane.batch(0..4)).await, Ok(4));
    assert_eq!(rows(&running).await, (4, 0, 0));
    drop(running);
}

/// Also prints what one stream commits per second, in this build, on this machine; `--nocapture` shows it. Not a promise.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_sends_ahead_of_the_answers_loses_nothing() {
    const CALLS: u32 = 5_000;
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let mut lane = Lane::new(Uuid::now_v7(), 0);
    for n in 1..=u128::from(CALLS) {
        lane.push(decided(n));
        lane.push(ended(n));
    }
    let mut shipping = Shipping::of(&joined).await;
    let started = std::time::Instant::now();
    for start in (0..lane.frames.len()).step_by(1000) {
        shipping.say.send(lane.batch(start..start + 1000)).await.unwrap();
        if start > 3000 {
            shipping.hear.message().await.unwrap();
        }
    }
    while shipping.hear.message().await.unwrap().unwrap().acked_seq < lane.frames.len() as u64 {}
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} frames/s, {:.0} rows/s", 2.0 * f64::from(CALLS) / seconds, f64::from(CALLS) / seconds);
    assert_eq!(rows(&running).await, (CALLS.into(), CALLS.into(), 0));
}
