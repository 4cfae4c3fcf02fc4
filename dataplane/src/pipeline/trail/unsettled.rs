//! Frames of an answer between the queue and the disk: whoever must not go on before they are there waits here, and whoever goes away leaves
//! them written all the same. Owned by the trail.

use uuid::Uuid;

use super::Recorder;
use crate::audit::{SpoolError, Ticket};

/// Frames of an answer that are queued and perhaps not written.
pub(super) struct Unsettled {
    pub recorder: Recorder,
    /// The first frame, where nobody has waited for it.
    pub decided: Option<Ticket>,
    pub ended: Ticket,
    pub request_id: Uuid,
    /// Whether the disk has to have them.
    pub on_disk: bool,
    pub settled: bool,
}

impl Unsettled {
    /// Resolves when they are written, or cannot be.
    pub async fn written(&self) -> Result<(), SpoolError> {
        let spool = &self.recorder.spool;
        if self.on_disk {
            let tickets: Vec<&Ticket> = self.decided.iter().chain([&self.ended]).collect();
            return Box::pin(spool.synced(&tickets)).await;
        }
        spool.written(&self.ended).await
    }

    /// Counts what could not be written.
    pub fn tell(&mut self, ended: Result<(), SpoolError>) {
        self.settled = true;
        // It was queued before the end, so it is settled too.
        let decided = self.decided.as_ref().map_or(Ok(()), |decided| self.recorder.spool.write_now(decided));
        if let Err(error) = decided.and(ended) {
            lost(&self.recorder, self.request_id, &error);
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.settled {
            // Nobody waits for it any more; the record is kept all the same.
            let ended = self.recorder.spool.write_now(&self.ended);
            self.tell(ended);
        }
    }
}

pub(super) fn lost(recorder: &Recorder, request_id: Uuid, error: &SpoolError) {
    recorder.metrics.records_lost.inc();
    tracing::error!(%error, %request_id, "the end of a call could not be recorded");
}
