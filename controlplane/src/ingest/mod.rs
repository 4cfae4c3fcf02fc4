//! Audit frames of the nodes into `request_logs`, each exactly once, acknowledged once they are committed.
//!
//! Owns the receiving end of NodeService.Ship. Never acknowledges what is not committed, and never lets one unreadable frame stop a
//! lane. Called by [`crate::nodes::service`].

pub mod account;
pub mod lane;
pub mod metrics;
pub mod names;
pub mod record;
#[cfg(test)]
pub(crate) mod tests;

use futures_util::Stream;
use mcp_gateway::proto::node::v1::{AuditFrame, ShipRequest, ShipResponse};
use tonic::{Status, Streaming};
use tracing::{error, warn};
use uuid::Uuid;

use self::{
    account::Account,
    lane::{Broken, Run},
    metrics::Metrics,
    record::number,
};
use crate::{
    app::Core,
    evidence::seal,
    nodes::{identity::Identity, peer},
    store::{
        self, accounts, captures, gaps,
        ingest::{LaneId, write},
    },
};

/// Frames in one request.
const MAX_FRAMES: usize = 1000;
/// How often a batch is tried that met another one's locks.
const TRIES: usize = 4;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    core: Core,
    metrics: Metrics,
}

/// Why a batch is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Request(&'static str),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::Request(_) => Self::invalid_argument(error.to_string()),
            // The node's records are not what the node wrote: somebody must look.
            Error::Broken(_) => Self::data_loss(error.to_string()),
            Error::Store(error) => peer::status(error),
        }
    }
}

impl Ingest {
    pub fn new(core: &Core) -> Self {
        Self { core: core.clone(), metrics: Metrics::register(&core.metrics) }
    }

    /// Takes what a node ships, one batch after the other: the transport holds the rest back.
    pub fn receive(
        &self,
        identity: Identity,
        requests: Streaming<ShipRequest>,
    ) -> impl Stream<Item = Result<ShipResponse, Status>> + Send + 'static {
        let stop = self.core.tasks.stop_token().clone();
        let state = (self.clone(), identity, requests, stop);
        futures_util::stream::try_unfold(state, |(ingest, identity, mut requests, stop)| async move {
            let request = tokio::select! {
                request = requests.message() => request?,
                () = stop.cancelled() => return Err(Status::unavailable("this replica is stopping: another one takes over")),
            };
            let Some(request) = request else { return Ok(None) };
            peer::refuse_removed(&ingest.core, &identity)?;
            let response = ingest.take(&identity, request).await?;
            Ok(Some((response, (ingest, identity, requests, stop))))
        })
    }

    /// Takes one batch: committed when this returns, or not at all.
    pub async fn take(&self, identity: &Identity, request: ShipRequest) -> Result<ShipResponse, Error> {
        let boot_id = Uuid::try_parse(&request.boot_id).ok().ok_or(Error::Request("boot_id: expected a UUID"))?;
        let lane = i32::try_from(request.lane).ok().ok_or(Error::Request("lane: expected a small number"))?;
        if request.frames.len() > MAX_FRAMES {
            return Err(Error::Request("frames: expected at most 1000"));
        }
        let id = LaneId { node_id: identity.node_id, boot_id, lane };
        let mut tries = 1;
        let acked_seq = loop {
            match self.commit(id, &request.frames).await {
                Err(Error::Store(store::Error::Contended)) if tries < TRIES => tries += 1,
                Err(error) => {
                    self.metrics.refused.inc();
                    if let Error::Broken(broken) = &error {
                        error!(node.id = %id.node_id, boot = %boot_id, lane, "audit frames of node {} are refused: {broken}", id.node_id);
                    }
                    return Err(error);
                }
                Ok(acked_seq) => break acked_seq,
            }
        };
        Ok(ShipResponse { boot_id: request.boot_id, lane: request.lane, acked_seq })
    }

    /// Commits what is new of a run, and says up to where the lane is committed.
    async fn commit(&self, id: LaneId, frames: &[AuditFrame]) -> Result<u64, Error> {
        let (mut tx, cursor, head) = self.core.store.lock_lane(id).await?;
        let (fresh, end) = match lane::place(&cursor, frames)? {
            Run::Fresh(fresh, end) => (fresh, end),
            Run::Known => {
                self.metrics.repeated.inc_by(frames.len() as u64);
                return Ok(cursor.last_seq);
            }
            Run::Gap => {
                self.metrics.gaps.inc();
                warn!(node.id = %id.node_id, lane = id.lane, "node {} skipped frames after {}", id.node_id, cursor.last_seq);
                return Ok(cursor.last_seq);
            }
        };
        let batch = record::fold(fresh);
        if batch.unreadable > 0 {
            self.metrics.unreadable.inc_by(batch.unreadable);
            error!(node.id = %id.node_id, lane = id.lane, "{} audit frames of node {} cannot be read", batch.unreadable, id.node_id);
        }
        captures::insert(&mut tx, &batch.captures).await?;
        gaps::insert(&mut tx, id.node_id, &batch.missing).await?;
        let first_seq = number(fresh.first().map_or(end.last_seq, |frame| frame.seq));
        let run = seal::Run { lane: id, first_seq, last_seq: number(end.last_seq), chain_hash: &end.last_hash };
        let touched = write(&mut tx, &head, &run, &batch, self.core.store.signer()).await?;
        let account = Account::of(&batch, &touched, &self.core.names);
        accounts::add(&mut tx, &account).await?;
        tx.commit().await.map_err(store::Error::from)?;
        self.metrics.committed(fresh.len(), &account);
        self.metrics.missing(&batch.missing);
        Ok(end.last_seq)
    }
}
