//! What a seal says of rows, compared with the rows as they are now.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Error, Expiry, Finding, Kind, Table, Walk};
use crate::{
    evidence::{
        half::{self, Decided, Ended, Half},
        seal::Entry,
    },
    ingest::record::Key,
    store::{
        evidence::rows::{self, Stored},
        ingest::LaneId,
    },
};

pub async fn compare(walk: &mut Walk<'_>, expiry: &mut Expiry, lane: LaneId, mut entries: Vec<Entry>) -> Result<(), Error> {
    let ((from, to), org) = (walk.scope.period, walk.scope.org);
    entries.retain(|entry| (from..to).contains(&entry.key.0) && (org.is_none() || entry.org == org));
    let mut keys: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let found = rows::of(&mut *walk.connection().await?, &keys).await?;
    let found: BTreeMap<Key, Stored> = found.into_iter().map(|row| (row.key(), row)).collect();
    let mut missing: Option<Key> = None;
    for entry in entries {
        let Some(row) = found.get(&entry.key) else {
            if is_due(walk, expiry, &entry).await? {
                walk.counts.expired += 1;
            } else if missing.replace(entry.key) != Some(entry.key) {
                let message = format!("the request {} is gone", entry.key.1);
                walk.found(finding(Kind::Deleted, message, lane, &entry)).await?;
            }
            continue;
        };
        walk.counts.halves += 1;
        for (kind, half, message) in judge(lane, &entry, row) {
            walk.found(Finding { half: Some(half), ..finding(kind, message, lane, &entry) }).await?;
        }
    }
    Ok(())
}

/// Whether a row may be gone; looks again at what was deleted meanwhile.
async fn is_due(walk: &mut Walk<'_>, expiry: &mut Expiry, entry: &Entry) -> Result<bool, Error> {
    if expiry.is_due(entry.org, entry.key.0) {
        return Ok(true);
    }
    expiry.read_on(walk).await?;
    Ok(expiry.is_due(entry.org, entry.key.0))
}

fn finding(kind: Kind, message: String, lane: LaneId, entry: &Entry) -> Finding {
    Finding::new(kind, Table::Requests, message).at(lane, entry.seq).row(entry.key, Some(entry.half), entry.org)
}

/// What is wrong with a row, by what one entry says of it.
fn judge(lane: LaneId, entry: &Entry, row: &Stored) -> Vec<(Kind, Half, String)> {
    let id = row.request_id;
    let mut wrong = Vec::new();
    match entry.half {
        Half::Decided => {
            let decided = Decided::of_row(row);
            if row.decision == 0 {
                wrong.push((Kind::Deleted, Half::Decided, format!("what was decided of the request {id} is gone")));
            } else if decided.hash(entry.key) != entry.hash {
                let placed = Decided { seq: entry.seq, ..decided };
                wrong.push(match placed.hash(entry.key) == entry.hash {
                    true => (
                        Kind::Reordered,
                        Half::Decided,
                        format!("the request {id} was number {}, and is number {}", entry.seq, row.seq),
                    ),
                    false => {
                        (Kind::Edited, Half::Decided, format!("what was decided of the request {id} is not what was recorded"))
                    }
                });
            }
            if row.outcome.is_none() && Ended::of_row(row) != Ended::default() {
                wrong.push((Kind::Edited, Half::Ended, format!("the request {id} has no end, but parts of one")));
            }
        }
        Half::Ended => {
            if row.outcome.is_none() {
                wrong.push((Kind::Deleted, Half::Ended, format!("how the request {id} ended is gone")));
            } else if Ended::of_row(row).hash(entry.key, lane.node_id) != entry.hash {
                wrong.push((Kind::Edited, Half::Ended, format!("how the request {id} ended is not what was recorded")));
            }
            if row.decision == 0 && Decided::of_row(row).hash(entry.key) != Decided::blank(lane).hash(entry.key) {
                wrong.push((Kind::Edited, Half::Decided, format!("the request {id} has no decision, but parts of one")));
            }
        }
        Half::Interrupted => {
            if half::interrupted(entry.key, row.interrupted_at) != entry.hash {
                wrong.push(interruption(id, row.interrupted_at));
            }
        }
    }
    wrong
}

fn interruption(id: uuid::Uuid, at: Option<DateTime<Utc>>) -> (Kind, Half, String) {
    match at {
        None => (Kind::Deleted, Half::Interrupted, format!("that the request {id} was interrupted is gone")),
        Some(_) => (Kind::Edited, Half::Interrupted, format!("when the request {id} was interrupted is not what was recorded")),
    }
}
