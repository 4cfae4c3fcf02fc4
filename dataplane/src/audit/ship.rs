//! Brings the spool's frames to the control plane: in order per lane, in acknowledged batches, from all runs of this node.
//! Owns what is in flight. Nothing is deleted before it is acknowledged; a lost connection or control plane only delays.

#[cfg(test)]
mod tests;
mod track;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_gateway::proto::node::v1::node_service_client::NodeServiceClient;
use mcp_gateway::proto::node::v1::{ShipRequest, ShipResponse};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::spool::{Lane, LaneId, ReadError, Reader, Spool};
use crate::node::uplink::{Uplink, UplinkError, whole};
use track::{Answer, Track};

/// Batches without an answer, over all lanes.
const WINDOW: usize = 4;
/// Frames of a batch.
const MAX_FRAMES: usize = 1000;
/// Bytes of a batch, with room for what goes around the frames.
const MAX_BYTES: usize = (1 << 20) - 1024;
/// Frames that come within this time share a batch: one commit instead of many.
const LINGER: Duration = Duration::from_millis(50);
/// How often a control plane is asked how far it is with a lane of which everything is acknowledged: its database may have lost it since.
const ASKS: Duration = Duration::from_secs(60);
/// Until the control plane must have accepted the stream, or committed a batch.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the end of the process waits for frames to be committed.
const GRACE: Duration = Duration::from_secs(3);
/// Waits between streams: drawn from up to the first, doubling up to the second.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Ships one spool.
pub struct Shipper {
    spool: Arc<Spool>,
    uplink: Arc<Uplink>,
    waits: (Duration, Duration),
    asks: Duration,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("{}", whole(.0))]
    Failed(#[from] Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Silent,
    #[error("{0}")]
    Read(#[from] ReadError),
}

/// One stream's view of the spool.
struct Session<'a> {
    spool: &'a Arc<Spool>,
    lanes: BTreeMap<LaneId, Shipping>,
    outbound: mpsc::Sender<ShipRequest>,
    /// How many batches may be in flight.
    window: usize,
    /// Where the next turn begins: no lane starves the others.
    turn: Option<LaneId>,
    progressed: bool,
    /// How often lanes are asked about that have nothing to ship.
    asks: Duration,
}

struct Shipping {
    lane: Arc<Lane>,
    /// Away while another thread reads.
    reader: Option<Reader>,
    track: Track,
    /// A lane of an earlier run may long be committed: one frame asks how far.
    probing: bool,
    /// Everything is acknowledged, but the control plane is to be asked whether it still knows.
    asking: bool,
}

impl Shipper {
    pub fn new(spool: Arc<Spool>, uplink: Arc<Uplink>) -> Self {
        Self { spool, uplink, waits: WAITS, asks: ASKS }
    }

    /// Runs until `stop`, and a moment longer if frames wait. What is not shipped by then is shipped by the next run.
    pub async fn run(self, stop: CancellationToken) {
        let shipping = self.ship();
        tokio::pin!(shipping);
        tokio::select! {
            () = stop.cancelled() => {}
            () = &mut shipping => {}
        }
        let rest = async {
            tokio::select! {
                () = self.spool.drained() => {}
                () = &mut shipping => {}
            }
        };
        if timeout(GRACE, rest).await.is_err() {
            let frames = self.spool.backlog().frames;
            tracing::warn!(spool.frames = frames, "{frames} audit records stay in the spool for the next start");
        }
    }

    async fn ship(&self) {
        let mut failures = 0;
        // After a refusal one batch at a time, to see whose it is.
        let mut window = WINDOW;
        loop {
            while self.spool.lanes().iter().all(|lane| lane.pending() == 0 && !lane.may_be_forgotten()) {
                self.spool.appended().await;
            }
            let (lost, progressed, suspect) = self.session(window).await;
            if progressed {
                failures = 0;
            }
            match (&lost, suspect) {
                (Lost::Failed(status), Some(lane)) if is_refusal(status) => {
                    if window == 1 {
                        self.abandon(lane, &format!("the control plane refuses its frames: {}", status.message())).await;
                        window = WINDOW;
                    } else {
                        window = 1;
                    }
                }
                _ => window = WINDOW,
            }
            let ceiling = self.waits.0.saturating_mul(1 << failures.min(16)).min(self.waits.1);
            let wait = ceiling.mul_f64(rand::random_range(0.1..1.0));
            failures += 1;
            match self.spool.backlog().frames {
                0 => tracing::debug!("nothing waits in the spool; the control plane is asked again in {wait:?}: {lost}"),
                frames => {
                    tracing::warn!(spool.frames = frames, "audit records wait in the spool, shipping goes on in {wait:?}: {lost}")
                }
            }
            sleep(wait).await;
        }
    }

    /// One stream. Also says whether anything was committed, and which lane's batch was the oldest without an answer.
    async fn session(&self, window: usize) -> (Lost, bool, Option<Arc<Lane>>) {
        let link = match self.uplink.link().await {
            Ok(link) => link,
            Err(error) => return (error.into(), false, None),
        };
        let (outbound, requests) = mpsc::channel(4 * WINDOW);
        let mut session = Session {
            spool: &self.spool,
            lanes: BTreeMap::new(),
            outbound,
            window,
            turn: None,
            progressed: false,
            asks: self.asks,
        };
        let Err(lost) = session.run(NodeServiceClient::new(link.channel.clone()), requests).await;
        self.uplink.discard(&link).await;
        let suspect = session.lanes.into_values().find(|shipping| shipping.track.in_flight() > 0).map(|shipping| shipping.lane);
        (lost, session.progressed, suspect)
    }

    async fn abandon(&self, lane: Arc<Lane>, reason: &str) {
        abandon(&self.spool, lane, reason.to_owned()).await;
    }
}

impl Session<'_> {
    async fn run(
        &mut self,
        mut client: NodeServiceClient<Channel>,
        requests: mpsc::Receiver<ShipRequest>,
    ) -> Result<std::convert::Infallible, Lost> {
        // Sent before the call: a server may want to see something before it answers at all.
        self.ask();
        self.fill().await?;
        let answer = timeout(DEADLINE, client.ship(ReceiverStream::new(requests))).await.or(Err(Lost::Silent))??;
        let mut answers: Streaming<ShipResponse> = answer.into_inner();
        let mut send_at: Option<Instant> = None;
        let mut answer_by = Instant::now() + DEADLINE;
        let mut ask_at = Instant::now() + self.asks;
        loop {
            let (spool, waiting) = (self.spool, self.in_flight() > 0);
            tokio::select! {
                answer = answers.message() => {
                    self.answered(answer?.ok_or(Lost::Closed)?).await?;
                    answer_by = Instant::now() + DEADLINE;
                    let full = self.lanes.values().any(|shipping| shipping.unsent() >= MAX_FRAMES as u64);
                    let soon = Instant::now() + if full { Duration::ZERO } else { LINGER };
                    let unsent = self.lanes.values().any(Shipping::has_something);
                    send_at = if unsent { Some(send_at.map_or(soon, |at| at.min(soon))) } else { send_at };
                }
                () = spool.appended(), if send_at.is_none() => send_at = Some(Instant::now() + LINGER),
                () = sleep_until(send_at.unwrap_or(answer_by)), if send_at.is_some() => {
                    send_at = None;
                    if !waiting {
                        answer_by = Instant::now() + DEADLINE;
                    }
                    self.fill().await?;
                }
                () = sleep_until(ask_at) => {
                    ask_at = Instant::now() + self.asks;
                    if !waiting {
                        answer_by = Instant::now() + DEADLINE;
                    }
                    self.spool.forget_kept();
                    self.ask();
                    self.fill().await?;
                }
                () = sleep_until(answer_by), if waiting => return Err(Lost::Silent),
            }
        }
    }

    /// Has the control plane asked about lanes that it may have forgotten something of.
    fn ask(&mut self) {
        self.know_lanes();
        for shipping in self.lanes.values_mut() {
            shipping.asking = shipping.lane.pending() == 0 && shipping.lane.may_be_forgotten();
        }
    }

    fn know_lanes(&mut self) {
        let lanes = self.spool.lanes();
        self.lanes.retain(|id, _| lanes.iter().any(|lane| lane.id == *id));
        for lane in lanes {
            self.lanes.entry(lane.id).or_insert_with(|| Shipping::new(lane));
        }
    }

    /// Sends until the window is full or nothing is left; each lane in turn.
    async fn fill(&mut self) -> Result<(), Lost> {
        self.know_lanes();
        while self.in_flight() < self.window {
            let ready = |shipping: &Shipping| {
                let alone = shipping.track.in_flight() == 0;
                (shipping.unsent() > 0 && (alone || !shipping.probing)) || (shipping.asking && alone)
            };
            let after = self.turn.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let mut turns = self.lanes.range((after, std::ops::Bound::Unbounded)).chain(&self.lanes);
            let Some(id) = turns.find(|(_, shipping)| ready(shipping)).map(|(id, _)| *id) else { return Ok(()) };
            self.turn = Some(id);
            self.send(id).await?;
        }
        Ok(())
    }

    async fn send(&mut self, id: LaneId) -> Result<(), Lost> {
        let Some(shipping) = self.lanes.get_mut(&id) else { return Ok(()) };
        if std::mem::take(&mut shipping.asking) && shipping.unsent() == 0 {
            let acked = shipping.lane.acked();
            shipping.track.sent(acked + 1, acked, None, None);
            return self.say(ShipRequest { boot_id: id.boot.to_string(), lane: id.number, frames: Vec::new() });
        }
        let Some(mut reader) = shipping.reader.take() else { return Ok(()) };
        let frames = if shipping.probing { 1 } else { MAX_FRAMES };
        let read = spawn_blocking(move || {
            let batch = reader.read(frames, MAX_BYTES);
            (reader, batch)
        });
        let (reader, batch) = read.await.expect("reading does not panic, and nobody aborts it");
        shipping.reader = Some(reader);
        let batch = match batch {
            Ok(batch) => batch,
            Err(error @ ReadError::Io { .. }) => return Err(error.into()),
            Err(error @ (ReadError::Damaged { .. } | ReadError::Missing { .. })) => {
                return self.give_up(id, error.to_string()).await;
            }
        };
        let (Some(first), Some(last)) = (batch.frames.first(), batch.frames.last()) else { return Ok(()) };
        shipping.track.sent(first.seq, last.seq, batch.first_at_us, batch.last_at_us);
        self.say(ShipRequest { boot_id: id.boot.to_string(), lane: id.number, frames: batch.frames })
    }

    fn say(&self, request: ShipRequest) -> Result<(), Lost> {
        match self.outbound.try_send(request) {
            // If the stream is gone, its answers say why.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            // The channel holds more than a window: the connection takes nothing any more.
            Err(TrySendError::Full(_)) => Err(Lost::Silent),
        }
    }

    async fn answered(&mut self, answer: ShipResponse) -> Result<(), Lost> {
        let id = Uuid::parse_str(&answer.boot_id).ok().map(|boot| LaneId { boot, number: answer.lane });
        let Some(shipping) = id.and_then(|id| self.lanes.get_mut(&id)) else {
            return Ok(()); // a lane that was given up, or nothing of ours
        };
        let (lane, id) = (Arc::clone(&shipping.lane), shipping.lane.id);
        match shipping.track.answered(answer.acked_seq) {
            Answer::Committed { seq, next_at_us } => {
                shipping.committed(seq);
                self.progressed = true;
                self.spool.acknowledge(&lane, seq, next_at_us);
                if lane.is_finished() {
                    self.lanes.remove(&id);
                }
            }
            Answer::GoBack { seq } => {
                tracing::warn!(audit.boot = %id.boot, audit.lane = id.number, "the control plane has audit frames up to {seq}; sending again from there");
                shipping.probing = false;
                shipping.seek(seq + 1);
                if seq < lane.acked() {
                    tracing::error!(
                        audit.boot = %id.boot, audit.lane = id.number,
                        "the control plane has lost frames that it had acknowledged up to {}: its database came back without them",
                        lane.acked()
                    );
                    self.spool.rewind(&lane, seq);
                }
                if lane.segment_of(seq + 1).is_none() {
                    return self
                        .give_up(id, format!("the control plane has frames up to {seq}, later ones are deleted here"))
                        .await;
                }
            }
            Answer::Stale | Answer::Unasked => {}
        }
        Ok(())
    }

    async fn give_up(&mut self, id: LaneId, reason: String) -> Result<(), Lost> {
        if let Some(shipping) = self.lanes.remove(&id) {
            abandon(self.spool, shipping.lane, reason).await;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.lanes.values().map(|shipping| shipping.track.in_flight()).sum()
    }
}

impl Shipping {
    fn new(lane: Arc<Lane>) -> Self {
        let probing = !lane.is_live();
        Self { reader: Some(Reader::new(Arc::clone(&lane))), lane, track: Track::default(), probing, asking: false }
    }

    /// Whether there is a reason to send.
    fn has_something(&self) -> bool {
        self.asking || self.unsent() > 0
    }

    fn unsent(&self) -> u64 {
        self.reader.as_ref().map_or(0, |reader| (self.lane.written() + 1).saturating_sub(reader.next()))
    }

    /// The control plane may be further than what was sent to it now.
    fn committed(&mut self, seq: u64) {
        self.probing = false;
        if self.reader.as_ref().is_some_and(|reader| reader.next() <= seq) {
            self.seek(seq + 1);
        }
    }

    fn seek(&mut self, next: u64) {
        if let Some(reader) = &mut self.reader {
            reader.seek(next);
        }
    }
}

async fn abandon(spool: &Arc<Spool>, lane: Arc<Lane>, reason: String) {
    let spool = Arc::clone(spool);
    let moved = spawn_blocking(move || spool.abandon(&lane, &reason)).await.expect("moving frames does not panic");
    if let Err(error) = moved {
        tracing::error!("an audit lane could not be moved, it is tried again: {error}");
    }
}

/// Whether the control plane understood and said no, rather than being away.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::DataLoss | Code::FailedPrecondition | Code::OutOfRange)
}
