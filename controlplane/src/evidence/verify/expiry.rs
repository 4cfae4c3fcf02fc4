//! What is rightly gone: of each organisation everything before a moment, as signed purges say; of administrative records, numbers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Error, Finding, Kind, Table, Walk};
use crate::{
    evidence::purge::Log,
    store::evidence::{self, KeptPurge, expiry::EVIDENCE_DAYS},
};

/// Purges read at once.
const PAGE: i64 = 500;

/// See the module.
#[derive(Debug)]
pub struct Expiry {
    /// By organisation; the nil UUID: of all.
    before: BTreeMap<Uuid, DateTime<Utc>>,
    /// Behind the last purge that was read.
    place: (DateTime<Utc>, Uuid),
    /// Evidence of what is younger is never deleted, however long organisations keep their rows.
    pub young: DateTime<Utc>,
}

impl Expiry {
    /// Knows of nothing that was deleted yet.
    pub fn new() -> Self {
        let young = Utc::now() - chrono::TimeDelta::days(EVIDENCE_DAYS.into());
        Self { before: BTreeMap::new(), place: (DateTime::UNIX_EPOCH, Uuid::nil()), young }
    }

    /// Reads what was deleted since the last time.
    pub async fn read_on(&mut self, walk: &mut Walk<'_>) -> Result<(), Error> {
        loop {
            let page = evidence::purges(&mut *walk.connection().await?, Log::Requests, self.place, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            self.place = (last.purge.purged_at, last.purge.id);
            for kept in &page {
                if holds(walk, kept).await? {
                    for one in &kept.purge.expired {
                        let before = self.before.entry(one.org).or_insert(one.before);
                        *before = one.before.max(*before);
                    }
                }
            }
        }
    }

    /// Whether a row of an organisation (none: nobody knew yet) may be gone that was decided then.
    pub fn is_due(&self, org: Option<Uuid>, decided_at: DateTime<Utc>) -> bool {
        let of_all = self.before.get(&Uuid::nil());
        let before = match org {
            Some(org) => self.before.get(&org).max(of_all),
            // A row that its end has begun: its other half knows better, if there is one.
            None => self.before.values().max(),
        };
        before.is_some_and(|before| decided_at < *before)
    }
}

/// Whether a purge is believed; says so if not.
pub async fn holds(walk: &mut Walk<'_>, kept: &KeptPurge) -> Result<bool, Error> {
    let (purge, hash) = (&kept.purge, kept.purge.hash());
    let mut wrong = match kept.hash == hash {
        true => walk.signature(&hash, &kept.signature, walk.is_early(purge.purged_at)),
        false => Some((Kind::Edited, "its content is not what was hashed".into())),
    };
    if wrong.is_none() && !purge.is_due() {
        wrong = Some((Kind::Forged, "it deletes what was not due".into()));
    }
    let Some((kind, why)) = wrong else { return Ok(true) };
    let message =
        format!("the record {} of what expired at {}: {why}; it is not believed", purge.id, purge.purged_at.to_rfc3339());
    walk.found(Finding::new(kind, Table::Purges, message)).await?;
    Ok(false)
}
