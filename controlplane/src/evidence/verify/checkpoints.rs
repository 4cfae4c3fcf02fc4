//! The checkpoints, one after the other: numbers without gaps, each with the hash of the one before, signed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Error, Expiry, Finding, Kind, Stage, Table, Walk};
use crate::{
    evidence::{
        canon::{Hash, START},
        checkpoint::{self, Stand},
        signer::Worth,
    },
    store::{
        evidence::{self, KeptCheckpoint},
        ingest::LaneId,
    },
};

/// Checkpoints read at once.
const PAGE: i64 = 200;

/// Where checkpoints say that everything stands.
#[derive(Debug)]
pub struct Stands {
    /// The last seal of each lane that a checkpoint covers: its ordinal and hash. As many as lanes are younger than rows are kept.
    pub lanes: BTreeMap<LaneId, (i64, Hash)>,
    /// The last administrative record that one covers, and its hash.
    pub audit: (i64, Vec<u8>),
    /// How far lanes and records had come at the first signed checkpoint: everything later is signed.
    pub unsigned: Option<(BTreeMap<LaneId, i64>, i64)>,
    /// Since when there is evidence.
    pub began_at: DateTime<Utc>,
}

pub async fn walk(walk: &mut Walk<'_>, expiry: &Expiry) -> Result<Stands, Error> {
    let (began_at, ..) = evidence::audit_head(&mut *walk.connection().await?).await?;
    let mut stands = Stands { lanes: BTreeMap::new(), audit: (0, START.to_vec()), unsigned: None, began_at };
    let (mut number, mut hash) = (0, START.to_vec());
    walk.progress(Stage::Checkpoints).await?;
    loop {
        let page = evidence::checkpoints(&mut *walk.connection().await?, number, PAGE).await?;
        if page.is_empty() {
            return Ok(stands);
        }
        for kept in page {
            let found = kept.checkpoint.number;
            if found > number + 1 {
                let gone = if found == number + 2 {
                    format!("checkpoint {} is", number + 1)
                } else {
                    format!("checkpoints {} to {} are", number + 1, found - 1)
                };
                let message = format!("{gone} missing before checkpoint {found}");
                walk.found(Finding::new(Kind::Deleted, Table::Checkpoints, message).number(number + 1)).await?;
            } else if kept.checkpoint.previous_hash != hash {
                let message = format!("checkpoint {found} does not follow checkpoint {number} as that is now");
                walk.found(Finding::new(Kind::Edited, Table::Checkpoints, message).number(found)).await?;
            }
            judge(walk, expiry, &kept, &mut stands).await?;
            (number, hash) = (found, kept.hash);
        }
        walk.progress(Stage::Checkpoints).await?;
    }
}

impl Stands {
    /// Whether a seal may be from before anything was signed.
    pub fn is_early_seal(&self, lane: LaneId, ordinal: i64) -> bool {
        self.unsigned.as_ref().is_none_or(|(lanes, _)| lanes.get(&lane).is_some_and(|last| ordinal <= *last))
    }

    /// The same of an administrative record.
    pub fn is_early_record(&self, number: i64) -> bool {
        self.unsigned.as_ref().is_none_or(|(_, last)| number <= *last)
    }
}

/// What one checkpoint says, if it is to be believed.
async fn judge(walk: &mut Walk<'_>, expiry: &Expiry, kept: &KeptCheckpoint, stands: &mut Stands) -> Result<(), Error> {
    let (said, hash) = (&kept.checkpoint, kept.checkpoint.hash());
    walk.counts.checkpoints += 1;
    walk.counts.last_checkpoint = Some(said.taken_at);
    let first_signed = walk.signed_since.is_none() && walk.store.signer().judge(&hash, &kept.signature) == Worth::Good;
    if first_signed {
        walk.signed_since = Some(said.taken_at);
    }
    let mut wrong = match kept.hash == hash {
        true => walk.signature(&hash, &kept.signature, walk.signed_since.is_none()),
        false => Some((Kind::Edited, "its content is not what was hashed".into())),
    };
    let lanes = match &kept.lanes {
        None => Some(Vec::new()),
        Some(packed) => checkpoint::unpack(packed).filter(|_| said.root == checkpoint::root(packed)),
    };
    if kept.lanes.is_none() && said.taken_at >= expiry.young {
        wrong = wrong.or(Some((Kind::Deleted, "its lanes are gone, and are not that old".into())));
    }
    if lanes.is_none() {
        wrong = wrong.or(Some((Kind::Edited, "its lanes are not what was hashed".into())));
    }
    if said.began_at != stands.began_at {
        wrong = wrong.or(Some((
            Kind::Edited,
            format!("evidence began at {}, the database says otherwise now", said.began_at.to_rfc3339()),
        )));
    }
    if let Some((kind, why)) = wrong {
        let finding = Finding::new(kind, Table::Checkpoints, format!("checkpoint {}: {why}", said.number)).number(said.number);
        return walk.found(finding).await;
    }
    for Stand { lane, ordinal, seal_hash, .. } in lanes.unwrap_or_default() {
        let stand = stands.lanes.entry(lane).or_insert((0, START));
        if ordinal > stand.0 {
            *stand = (ordinal, seal_hash);
        }
    }
    if said.audit_number >= stands.audit.0 {
        stands.audit = (said.audit_number, said.audit_hash.clone());
    }
    if first_signed {
        let lanes = stands.lanes.iter().map(|(lane, (ordinal, _))| (*lane, *ordinal)).collect();
        stands.unsigned = Some((lanes, said.audit_number));
    }
    Ok(())
}
