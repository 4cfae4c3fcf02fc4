//! Recomputes all evidence and compares it with the rows: what was edited, deleted, reordered, truncated, forged or signed by nobody.
//!
//! Reads in pages, so that memory does not grow with the logs, and while ingest goes on. Changes nothing. Called by `api::evidence`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    canon::Hash,
    half::Half,
    signer::{Signature, Worth},
};
use crate::{
    ingest::record::Key,
    store::{self, Store, evidence::Period, ingest::LaneId},
};

mod checkpoints;
mod claims;
mod expiry;
mod lanes;
mod records;
mod rows;

use expiry::Expiry;

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Whose rows; none: all.
    pub org: Option<Uuid>,
    /// Of when.
    pub period: Period,
    /// Every finding instead of the first of each kind in each lane.
    pub all: bool,
}

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Edited,
    Deleted,
    Reordered,
    Truncated,
    Forged,
    BadSignature,
    Unsigned,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Forged => "forged",
            Self::BadSignature => "bad_signature",
            Self::Unsigned => "unsigned",
        }
    }
}

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Requests,
    Records,
    Seals,
    Checkpoints,
    Purges,
}

impl Table {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "request_logs",
            Self::Records => "audit_logs",
            Self::Seals => "log_seals",
            Self::Checkpoints => "log_checkpoints",
            Self::Purges => "log_purges",
        }
    }
}

/// Something that is not as it was recorded.
#[derive(Debug, Clone)]
pub struct Finding {
    pub kind: Kind,
    pub table: Table,
    pub message: String,
    pub lane: Option<LaneId>,
    /// In the lane; of a checkpoint or an administrative record its number.
    pub seq: i64,
    /// Of the row.
    pub key: Option<Key>,
    pub half: Option<Half>,
    pub org: Option<Uuid>,
}

impl Finding {
    fn new(kind: Kind, table: Table, message: impl Into<String>) -> Self {
        Self { kind, table, message: message.into(), lane: None, seq: 0, key: None, half: None, org: None }
    }

    fn at(self, lane: LaneId, seq: i64) -> Self {
        Self { lane: Some(lane), seq, ..self }
    }

    fn number(self, seq: i64) -> Self {
        Self { seq, ..self }
    }

    fn row(self, key: Key, half: Option<Half>, org: Option<Uuid>) -> Self {
        Self { key: Some(key), half, org, ..self }
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Checkpoints,
    Seals,
    Rows,
    Records,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoints => "checkpoints",
            Self::Seals => "seals",
            Self::Rows => "rows",
            Self::Records => "records",
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub findings: BTreeMap<Kind, u64>,
    pub checkpoints: u64,
    pub seals: u64,
    pub lanes: u64,
    pub halves: u64,
    pub rows: u64,
    pub records: u64,
    pub expired: u64,
    pub before_evidence: u64,
    pub unsigned: u64,
    pub seals_since_checkpoint: u64,
    pub last_checkpoint: Option<DateTime<Utc>>,
}

/// What is said on the way.
#[derive(Debug, Clone)]
pub enum Said {
    Progress(Stage, Counts),
    Finding(Finding),
}

/// Why a verification did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("nobody listens any more")]
    Gone,
}

/// Findings that are shown, at most.
const MOST: u64 = 10_000;

/// Verifies what there is. Everything found is said, or at least counted.
pub async fn verify(store: &Store, scope: Scope, say: mpsc::Sender<Said>) -> Result<Counts, Error> {
    let mut walk = Walk { store, scope, say, counts: Counts::default(), shown: BTreeMap::new(), signed_since: None };
    let mut expiry = Expiry::new();
    let stands = checkpoints::walk(&mut walk, &expiry).await?;
    expiry.read_on(&mut walk).await?;
    lanes::walk(&mut walk, &mut expiry, &stands).await?;
    claims::walk(&mut walk, stands.began_at).await?;
    records::walk(&mut walk, &stands).await?;
    Ok(walk.counts)
}

/// One verification under way.
struct Walk<'a> {
    store: &'a Store,
    scope: Scope,
    say: mpsc::Sender<Said>,
    counts: Counts,
    /// How many of a kind were shown of a table and lane.
    shown: BTreeMap<(Kind, Table, Option<LaneId>), u64>,
    /// When the first signed checkpoint was taken: nothing is unsigned since.
    signed_since: Option<DateTime<Utc>>,
}

impl Walk<'_> {
    async fn connection(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, Error> {
        Ok(self.store.connection().await?)
    }

    async fn found(&mut self, finding: Finding) -> Result<(), Error> {
        // Rows of others are not this caller's; what is wrong with the evidence itself concerns everybody.
        let others = self.scope.org.is_some() && finding.org.is_some() && finding.org != self.scope.org;
        if others {
            return Ok(());
        }
        *self.counts.findings.entry(finding.kind).or_default() += 1;
        let total: u64 = self.counts.findings.values().sum();
        let shown = self.shown.entry((finding.kind, finding.table, finding.lane)).or_default();
        *shown += 1;
        if *shown == 1 || (self.scope.all && total <= MOST) {
            self.say.send(Said::Finding(finding)).await.map_err(|_gone| Error::Gone)?;
        }
        Ok(())
    }

    async fn progress(&self, stage: Stage) -> Result<(), Error> {
        self.say.send(Said::Progress(stage, self.counts.clone())).await.map_err(|_gone| Error::Gone)
    }

    /// Judges a signature of something that may, or must not, be from before anything was signed. What is wrong with it, in words.
    fn signature(&mut self, hash: &Hash, signature: &Signature, is_early: bool) -> Option<(Kind, String)> {
        match self.store.signer().judge(hash, signature) {
            Worth::Good => None,
            Worth::Bad => Some((Kind::BadSignature, "its signature does not fit its content".into())),
            Worth::Stranger => {
                let why = format!("it is signed by the key {:?}, which this control plane was not given", signature.key_id);
                Some((Kind::BadSignature, why))
            }
            Worth::Unsigned => {
                self.counts.unsigned += 1;
                (!is_early).then(|| (Kind::Unsigned, "it is not signed, although what was made before it is".into()))
            }
        }
    }

    /// Whether nothing was signed yet at a moment.
    fn is_early(&self, at: DateTime<Utc>) -> bool {
        self.signed_since.is_none_or(|since| at < since)
    }
}

/// Names a lane in messages.
fn named(lane: LaneId) -> String {
    if lane == super::seal::OWN {
        return "the control plane's own lane".into();
    }
    format!("lane {} of node {} (run {})", lane.lane, lane.node_id, lane.boot_id)
}
