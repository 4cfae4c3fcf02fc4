//! A checkpoint: where every lane and the chain of administrative records stand at one moment, chained and signed, and said once more
//! outside of the database. Taken once a minute by one replica, if anything is new.
//!
//! Owns the task and the line that is said; all SQL is in `store::evidence`. Started by `app`.

use std::{io::Write as _, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    Signer,
    canon::{Canon, Hash, sha256},
    signer::Signature,
};
use crate::{app::Core, open::chain, store::ingest::LaneId};

/// Between two checkpoints, give or take a tenth.
const EVERY: Duration = Duration::from_secs(60);
/// Bytes of a lane in a checkpoint: node, run, number, ordinal of its last seal, its last frame, hash of the seal.
const LANE: usize = 16 + 16 + 4 + 8 + 8 + 32;

/// Where a lane stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    pub lane: LaneId,
    pub ordinal: i64,
    pub last_seq: i64,
    pub seal_hash: Hash,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub number: i64,
    pub taken_at: DateTime<Utc>,
    /// Since when there is evidence at all.
    pub began_at: DateTime<Utc>,
    /// Seals since the checkpoint before.
    pub seals: i64,
    /// Over the lanes that moved.
    pub root: Vec<u8>,
    /// The last administrative record.
    pub audit_number: i64,
    pub audit_hash: Vec<u8>,
    pub previous_hash: Vec<u8>,
}

impl Checkpoint {
    pub fn hash(&self) -> Hash {
        let mut canon = Canon::new("mcpgw checkpoint 1");
        canon.number(self.number).moment(self.taken_at).moment(self.began_at).number(self.seals).octets(&self.root);
        canon.number(self.audit_number).octets(&self.audit_hash).octets(&self.previous_hash).hash()
    }

    /// What is kept outside: enough to tell whether this checkpoint is still the one in the database.
    pub fn line(&self, signer: &Signer, signature: &Signature) -> String {
        let line = json!({
            "number": self.number,
            "takenAt": self.taken_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            "hash": hex::encode(self.hash()),
            "previousHash": hex::encode(&self.previous_hash),
            "root": hex::encode(&self.root),
            "seals": self.seals,
            "auditNumber": self.audit_number,
            "auditHash": hex::encode(&self.audit_hash),
            "keyId": signature.key_id,
            "publicKey": signer.public_key(&signature.key_id).unwrap_or_default(),
            "signature": BASE64.encode(&signature.bytes),
        });
        line.to_string()
    }
}

/// Lanes as a checkpoint has them, in order.
pub fn pack(stands: &[Stand]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(stands.len() * LANE);
    for stand in stands {
        packed.extend_from_slice(stand.lane.node_id.as_bytes());
        packed.extend_from_slice(stand.lane.boot_id.as_bytes());
        packed.extend_from_slice(&stand.lane.lane.to_be_bytes());
        packed.extend_from_slice(&stand.ordinal.to_be_bytes());
        packed.extend_from_slice(&stand.last_seq.to_be_bytes());
        packed.extend_from_slice(&stand.seal_hash);
    }
    packed
}

/// The lanes of a checkpoint; none: these bytes are none.
pub fn unpack(packed: &[u8]) -> Option<Vec<Stand>> {
    if !packed.len().is_multiple_of(LANE) {
        return None;
    }
    packed.chunks_exact(LANE).map(stand).collect()
}

fn stand(bytes: &[u8]) -> Option<Stand> {
    let (node, rest) = bytes.split_first_chunk::<16>()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (lane, rest) = rest.split_first_chunk::<4>()?;
    let (ordinal, rest) = rest.split_first_chunk::<8>()?;
    let (last_seq, rest) = rest.split_first_chunk::<8>()?;
    let lane = LaneId { node_id: Uuid::from_bytes(*node), boot_id: Uuid::from_bytes(*boot), lane: i32::from_be_bytes(*lane) };
    let (ordinal, last_seq) = (i64::from_be_bytes(*ordinal), i64::from_be_bytes(*last_seq));
    Some(Stand { lane, ordinal, last_seq, seal_hash: rest.try_into().ok()? })
}

/// What a checkpoint says of its lanes.
pub fn root(packed: &[u8]) -> Hash {
    sha256(packed)
}

/// Runs until the app stops.
pub fn spawn(core: &Core) {
    if core.store.signer().key_id().is_none() {
        warn!(
            "seals and checkpoints of the logs are NOT SIGNED: who can write to the database can rewrite them unnoticed; \
             set audit_checkpoint_key_file (`openssl rand -base64 32` makes a key) on every control plane"
        );
    }
    core.tasks.supervise("checkpoints", {
        let core = core.clone();
        move || run(core.clone())
    });
}

async fn run(core: Core) {
    let stop = core.tasks.stop_token().clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.9..1.1))) => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = take(&core).await {
            warn!(error = %chain(&error), "a checkpoint of the logs could not be taken and will be tried again");
        }
    }
}

/// Takes a checkpoint, unless nothing is new or another replica is at it. Its number.
pub async fn take(core: &Core) -> Result<Option<i64>, crate::store::Error> {
    let Some((checkpoint, signature)) = core.store.take_checkpoint().await? else { return Ok(None) };
    let line = checkpoint.line(core.store.signer(), &signature);
    // The log is a copy outside of the database, whatever else is configured.
    info!(checkpoint = %line, "checkpoint {} of the logs", checkpoint.number);
    if let Some(path) = core.config.audit_checkpoint_copy_file.clone() {
        let written = tokio::task::spawn_blocking(move || append(&path, &line).map_err(|error| (path, error)));
        if let Ok(Err((path, error))) = written.await {
            error!(%error, path = %path.display(), "checkpoint {} could not be copied to {}", checkpoint.number, path.display());
        }
    }
    Ok(Some(checkpoint.number))
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_read_back_as_they_were_and_rubbish_does_not() {
        let stand = |n: u8| Stand {
            lane: LaneId { node_id: Uuid::from_bytes([n; 16]), boot_id: Uuid::from_bytes([n + 1; 16]), lane: n.into() },
            ordinal: 3,
            last_seq: i64::MAX,
            seal_hash: [n; 32],
        };
        let all = [stand(1), stand(2)];
        assert_eq!(unpack(&pack(&all)).unwrap(), all);
        assert_eq!(unpack(&pack(&all)[1..]), None);
        assert_ne!(root(&pack(&all)), root(&pack(&all[..1])));
    }
}
