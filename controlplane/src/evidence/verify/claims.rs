//! The rows, in the order of their decisions: is each half covered by the seal that it names. What no seal covers, no node recorded.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::{Error, Finding, Kind, Stage, Table, Walk};
use crate::{
    evidence::{canon::sha256, half::Half, seal},
    ingest::record::Key,
    store::evidence::{
        self, KeptSeal,
        rows::{self, Claim},
    },
};

/// Rows read at once.
const PAGE: i64 = 2_000;
/// Seals read at once.
const SEALS: usize = 50;
/// Entries of seals that are remembered, at most; about 50 bytes each.
const ENTRIES: usize = 300_000;

/// What seals cover.
type Covered = BTreeMap<i64, BTreeSet<(Key, Half)>>;

pub async fn walk(walk: &mut Walk<'_>, began_at: DateTime<Utc>) -> Result<(), Error> {
    let (mut after, mut covered, org) = (None, Covered::new(), walk.scope.org);
    walk.progress(Stage::Rows).await?;
    loop {
        let page = rows::claims(&mut *walk.connection().await?, walk.scope.period, after, org, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some((last.decided_at, last.request_id));
        for chunk in page.chunks(SEALS) {
            remember(walk, &mut covered, chunk).await?;
            for claim in chunk {
                judge(walk, claim, &covered, began_at).await?;
            }
        }
        walk.progress(Stage::Rows).await?;
    }
}

/// Reads the seals that rows name, and forgets others when they are too many.
async fn remember(walk: &Walk<'_>, covered: &mut Covered, claims: &[Claim]) -> Result<(), Error> {
    let named = |claim: &Claim| [claim.decided_seal, claim.ended_seal, claim.interrupted_seal];
    let numbers: BTreeSet<i64> = claims.iter().flat_map(named).flatten().collect();
    let missing: Vec<i64> = numbers.iter().filter(|number| !covered.contains_key(number)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    if covered.values().map(BTreeSet::len).sum::<usize>() > ENTRIES {
        covered.retain(|number, _| numbers.contains(number));
    }
    for kept in evidence::seals_of(&mut *walk.connection().await?, &missing).await? {
        covered.insert(kept.header.number, entries(&kept));
    }
    Ok(())
}

/// What a seal covers; nothing if it is not what was sealed, which is found where lanes are followed.
fn entries(kept: &KeptSeal) -> BTreeSet<(Key, Half)> {
    let packed = kept.entries.as_deref().unwrap_or_default();
    let whole = kept.header.entries_hash == sha256(packed) && kept.hash == kept.header.hash();
    let entries = seal::unpack(packed, &kept.header.orgs).filter(|_| whole).unwrap_or_default();
    entries.into_iter().map(|entry| (entry.key, entry.half)).collect()
}

async fn judge(walk: &mut Walk<'_>, claim: &Claim, covered: &Covered, began_at: DateTime<Utc>) -> Result<(), Error> {
    let key = (claim.decided_at, claim.request_id);
    let halves = [
        (claim.is_decided, Half::Decided, claim.decided_seal),
        (claim.is_ended, Half::Ended, claim.ended_seal),
        (claim.is_interrupted, Half::Interrupted, claim.interrupted_seal),
    ];
    let mut sealed = true;
    for (is_there, half, number) in halves {
        if !is_there && number.is_some() {
            let message =
                format!("the request {} names a seal of what it does not have: it was {}", claim.request_id, half.as_str());
            walk.found(Finding::new(Kind::Edited, Table::Requests, message).row(key, Some(half), walk.scope.org)).await?;
        }
        if !is_there || number.and_then(|number| covered.get(&number)).is_some_and(|seal| seal.contains(&(key, half))) {
            continue;
        }
        sealed = false;
        if number.is_none() && claim.decided_at < began_at {
            walk.counts.before_evidence += 1;
            break;
        }
        let message = format!("no seal covers that the request {} was {}", claim.request_id, half.as_str());
        walk.found(Finding::new(Kind::Forged, Table::Requests, message).row(key, Some(half), walk.scope.org)).await?;
    }
    if !claim.is_decided && !claim.is_ended {
        sealed = false;
        let message = format!("the request {} has neither a decision nor an end", claim.request_id);
        walk.found(Finding::new(Kind::Forged, Table::Requests, message).row(key, None, walk.scope.org)).await?;
    }
    walk.counts.rows += u64::from(sealed);
    Ok(())
}
