//! Exactly once: whatever connection is lost whenever, each frame is committed one time, in order, and then deleted here.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;

use mcp_gateway::proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use mcp_gateway::proto::node::v1::{
    AuditEvent, AuditFrame, Decided, RenewRequest, RenewResponse, ReportStatusRequest, ReportStatusResponse, audit_event::Event,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response};

use super::*;
use crate::audit::frame;
use crate::audit::spool::{Class, Limits};
use crate::node::testing::{Ca, ControlPlane};

/// What the control plane does with the next batch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    /// The connection breaks before it is committed.
    CutBefore,
    /// It is committed, and the connection breaks before the answer.
    CutAfter,
    /// The stream ends with an error, nothing is committed.
    Fail(Code),
    /// The cursor is lost: the database was restored from a backup.
    Forget,
}

/// What is committed: per lane, in order.
#[derive(Default)]
struct Ledger {
    lanes: BTreeMap<(String, u32), Vec<AuditFrame>>,
    /// Of lanes whose cursor was lost, how many frames had been committed before.
    forgotten: usize,
    script: VecDeque<Next>,
    largest_batch: usize,
}

type Cut = Box<dyn Fn() + Send + Sync>;

#[derive(Clone)]
struct Ingest {
    ledger: Arc<Mutex<Ledger>>,
    committed: watch::Sender<usize>,
    cut: Arc<Mutex<Option<Cut>>>,
}

impl Ledger {
    /// The cursor of a lane after the batch: what is known already is dropped, what leaves a gap is refused.
    fn commit(&mut self, request: ShipRequest) -> u64 {
        self.largest_batch = self.largest_batch.max(request.frames.len());
        let lane = self.lanes.entry((request.boot_id, request.lane)).or_default();
        for frame in request.frames {
            if frame.seq == lane.len() as u64 + 1 {
                lane.push(frame);
            }
        }
        lane.len() as u64
    }

    fn len(&self) -> usize {
        self.lanes.values().map(Vec::len).sum()
    }
}

impl Ingest {
    fn new(script: &[Next]) -> Self {
        let ledger = Ledger { script: script.iter().copied().collect(), ..Ledger::default() };
        Self { ledger: Arc::new(Mutex::new(ledger)), committed: watch::Sender::new(0), cut: Arc::default() }
    }

    fn take(&self, request: ShipRequest) -> Result<Option<ShipResponse>, Status> {
        let mut ledger = self.ledger.lock().unwrap();
        let (boot_id, lane) = (request.boot_id.clone(), request.lane);
        let next = ledger.script.pop_front();
        let cut = || self.cut.lock().unwrap().as_ref().unwrap()();
        match next {
            Some(Next::CutBefore) => {
                cut();
                return Ok(None);
            }
            Some(Next::Fail(code)) => return Err(Status::new(code, "on purpose")),
            Some(Next::Forget) => {
                ledger.forgotten = ledger.len();
                ledger.lanes.clear();
            }
            Some(Next::CutAfter) | None => {}
        }
        let acked_seq = ledger.commit(request);
        self.committed.send_replace(ledger.len());
        if next == Some(Next::CutAfter) {
            cut();
            return Ok(None);
        }
        Ok(Some(ShipResponse { boot_id, lane, acked_seq }))
    }
}

#[tonic::async_trait]
impl NodeService for Ingest {
    type ShipStream = Pin<Box<dyn Stream<Item = Result<ShipResponse, Status>> + Send>>;

    async fn ship(&self, request: Request<Streaming<ShipRequest>>) -> Result<Response<Self::ShipStream>, Status> {
        let ingest = self.clone();
        let answers = request.into_inner().map(move |request| request.and_then(|request| ingest.take(request)));
        Ok(Response::new(Box::pin(answers.filter_map(Result::transpose))))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn report_status(&self, _: Request<ReportStatusRequest>) -> Result<Response<ReportStatusResponse>, Status> {
        Ok(Response::new(ReportStatusResponse::default()))
    }
}

/// A control plane, a spool, and a shipper between them.
struct Rig {
    ingest: Ingest,
    control: ControlPlane,
    ca: Ca,
    dir: tempfile::TempDir,
}

impl Rig {
    async fn new(script: &[Next]) -> Self {
        let (ca, ingest) = (Ca::new(), Ingest::new(script));
        let control = ControlPlane::start(&ca, Routes::new(NodeServiceServer::new(ingest.clone()))).await;
        *ingest.cut.lock().unwrap() = Some(Box::new(control.cutter()));
        Self { ingest, control, ca, dir: tempfile::tempdir().unwrap() }
    }

    fn spool(&self) -> Arc<Spool> {
        let limits = Limits { max_bytes: 8 << 20, segment_bytes: 4096 };
        Arc::new(Spool::open(self.dir.path(), Uuid::now_v7(), 2, limits).unwrap())
    }

    /// Ships until everything in the spool is acknowledged.
    async fn ship(&self, spool: &Arc<Spool>) {
        self.ship_until(spool, spool.drained()).await;
    }

    async fn ship_until(&self, spool: &Arc<Spool>, end: impl Future<Output = ()>) {
        let (uplink, _identity) = self.control.uplink(self.ca.identity());
        let waits = (Duration::from_millis(1), Duration::from_millis(5));
        let asks = Duration::from_millis(100);
        let shipper = Shipper { waits, asks, ..Shipper::new(Arc::clone(spool), uplink) };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(shipper.run(stop.clone()));
        timeout(Duration::from_secs(60), end).await.expect("everything is acknowledged in the end");
        stop.cancel();
        tasks.join_all().await;
    }

    /// Every frame once, in order, each lane an unbroken chain: the ids that were committed.
    fn committed(&self) -> Vec<u64> {
        let ledger = self.ingest.ledger.lock().unwrap();
        for lane in ledger.lanes.values() {
            assert!(lane.first().is_none_or(|first| first.previous_hash == [0; 32][..]));
            for pair in lane.windows(2) {
                assert_eq!(pair[1].previous_hash, frame::chain(&pair[0].previous_hash, &pair[0].payload)[..]);
            }
        }
        let mut ids: Vec<u64> = ledger.lanes.values().flatten().map(id).collect();
        ids.sort_unstable();
        ids
    }
}

fn id(frame: &AuditFrame) -> u64 {
    match prost::Message::decode(&frame.payload[..]) {
        Ok(AuditEvent { event: Some(Event::Decided(decided)) }) => decided.request_id.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn append(spool: &Spool, ids: std::ops::RangeInclusive<u64>) {
    let append = |id: u64| {
        let mut decided = Decided { request_id: id.to_string(), ..Decided::default() };
        let recorded = spool.append_decided(Class::Audit, &mut decided).unwrap();
        spool.write_now(&recorded.ticket).unwrap();
    };
    // From two threads, so that two lanes are used.
    std::thread::scope(|scope| {
        for parity in 0..2 {
            let mine = ids.clone().filter(move |id| id % 2 == parity);
            scope.spawn(move || mine.for_each(append));
        }
    });
}

#[tokio::test]
async fn each_frame_is_committed_once_whenever_the_connection_is_lost() {
    use Next::{CutAfter, CutBefore, Fail};
    let scripts: [&[Next]; 5] = [
        &[],
        &[CutBefore, CutBefore, CutAfter],
        &[CutAfter, CutAfter, CutBefore, CutAfter],
        &[Fail(Code::Unavailable), CutAfter, Fail(Code::Internal), CutBefore],
        &[Fail(Code::ResourceExhausted), Fail(Code::Unavailable), Fail(Code::Unavailable)],
    ];
    for script in scripts {
        let rig = Rig::new(script).await;
        let spool = rig.spool();
        append(&spool, 1..=5000);
        rig.ship(&spool).await;
        assert_eq!(rig.committed(), (1..=5000).collect::<Vec<_>>(), "{script:?}");
        assert!(rig.ingest.ledger.lock().unwrap().largest_batch <= MAX_FRAMES);
        assert_eq!(spool.backlog().frames, 0);
        assert_eq!(spool.counters().acked.load(std::sync::atomic::Ordering::Relaxed), 5000);
    }
}

#[tokio::test]
async fn frames_of_a_killed_run_are_shipped_by_the_next_one() {
    let rig = Rig::new(&[]).await;
    let first = rig.spool();
    append(&first, 1..=500);
    rig.ship(&first).await;
    append(&first, 501..=600);
    drop(first); // killed: these were never shipped, and of the others nobody here knows that they were
    let second = rig.spool();
    append(&second, 601..=700);
    rig.ship(&second).await;
    assert_eq!(rig.committed(), (1..=700).collect::<Vec<_>>());
    assert!(second.lanes().iter().any(|lane| !lane.is_live()), "the run before is done, and kept for a while");
    second.forget_all_kept();
    assert!(second.lanes().iter().all(|lane| lane.is_live()), "the run before is gone");
}

#[tokio::test]
async fn an_earlier_run_asks_with_one_frame_how_far_it_is() {
    let rig = Rig::new(&[]).await;
    let first = rig.spool();
    append(&first, 1..=100);
    rig.ship(&first).await;
    drop(first);
    rig.ingest.ledger.lock().unwrap().largest_batch = 0;
    rig.ship(&rig.spool()).await;
    assert_eq!(rig.ingest.ledger.lock().unwrap().largest_batch, 1);
}

#[tokio::test]
async fn a_control_plane_that_lost_its_cursor_gets_what_is_still_here() {
    let rig = Rig::new(&[]).await;
    let spool = rig.spool();
    append(&spool, 1..=2000);
    rig.ship(&spool).await;
    spool.forget_all_kept();
    let deleted = spool.lanes().iter().all(|lane| lane.segment_of(1).is_none());
    assert!(deleted, "acknowledged segments are gone");
    append(&spool, 2001..=2010);
    rig.ingest.ledger.lock().unwrap().script.push_back(Next::Forget);
    rig.ship(&spool).await;
    let ids = rig.committed();
    assert!((2001..=2010).all(|id| ids.contains(&id)), "{ids:?}");
    let mut unique = ids.clone();
    unique.dedup();
    assert_eq!(ids, unique);
}

/// Nothing new happens at the node meanwhile: it asks by itself.
#[tokio::test]
async fn a_control_plane_that_lost_its_last_seconds_gets_them_again() {
    let rig = Rig::new(&[]).await;
    let spool = rig.spool();
    append(&spool, 1..=2000);
    rig.ship(&spool).await;
    rig.ingest.ledger.lock().unwrap().script.push_back(Next::Forget);
    let mut committed = rig.ingest.committed.subscribe();
    let again = async {
        committed.changed().await.unwrap();
        committed.wait_for(|count| *count == 2000).await.unwrap();
    };
    rig.ship_until(&spool, again).await;
    assert_eq!(rig.committed(), (1..=2000).collect::<Vec<_>>());
}

/// Also while a stream goes on, which a database that fails over does not end.
#[tokio::test]
async fn an_open_stream_asks_now_and_then() {
    let rig = Rig::new(&[]).await;
    let spool = rig.spool();
    append(&spool, 1..=500);
    let mut committed = rig.ingest.committed.subscribe();
    let forgets = async {
        committed.wait_for(|count| *count == 500).await.unwrap();
        rig.ingest.ledger.lock().unwrap().script.push_back(Next::Forget);
        committed.changed().await.unwrap();
        committed.wait_for(|count| *count == 500).await.unwrap();
    };
    rig.ship_until(&spool, forgets).await;
    assert_eq!(rig.committed(), (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lane_that_is_refused_is_given_up_and_the_others_go_on() {
    let refusal = Next::Fail(Code::InvalidArgument);
    let rig = Rig::new(&[refusal, refusal]).await;
    let spool = rig.spool();
    append(&spool, 1..=100);
    rig.ship(&spool).await;
    assert_eq!(rig.committed(), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn frames_appended_while_shipping_follow() {
    let rig = Rig::new(&[Next::CutAfter]).await;
    let spool = rig.spool();
    append(&spool, 1..=10);
    let mut committed = rig.ingest.committed.subscribe();
    let appending = async {
        committed.wait_for(|count| *count > 0).await.unwrap();
        append(&spool, 11..=500);
    };
    tokio::join!(rig.ship(&spool), appending);
    rig.ship(&spool).await;
    assert_eq!(rig.committed(), (1..=500).collect::<Vec<_>>());
}
