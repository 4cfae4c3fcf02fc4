//! Administrative records, by number: without gaps but for what expired, each with the hash of the one before, as far as the chain goes.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Error, Finding, Kind, Stage, Table, Walk, checkpoints::Stands, expiry};
use crate::{
    evidence::{canon::START, purge::Log},
    store::evidence::{
        self,
        rows::{self, KeptRecord},
    },
};

/// Records read at once.
const PAGE: i64 = 500;

/// The last record that was looked at.
struct Place {
    number: i64,
    id: Uuid,
    hash: Vec<u8>,
    /// Whether it was signed: then the next one must be.
    is_signed: bool,
}

pub async fn walk(walk: &mut Walk<'_>, stands: &Stands) -> Result<(), Error> {
    walk.progress(Stage::Records).await?;
    let (_, head, head_hash) = evidence::audit_head(&mut *walk.connection().await?).await?;
    let mut gone = gone(walk).await?;
    let mut place = Place { number: 0, id: Uuid::nil(), hash: START.to_vec(), is_signed: false };
    loop {
        let page = rows::records(&mut *walk.connection().await?, (place.number, place.id), PAGE).await?;
        if page.is_empty() {
            break;
        }
        for kept in page {
            let Some(number) = kept.number else { continue };
            if number > place.number + 1 && !is_gone(&gone, place.number + 1, number - 1) {
                gone = self::gone(walk).await?; // perhaps since the beginning
            }
            follow(walk, &place, &kept, (&gone, stands)).await?;
            let hash = kept.record(number).hash();
            for (of, expected, who) in
                [(stands.audit.0, &stands.audit.1, "a checkpoint"), (head, &head_hash, "the head of the chain")]
            {
                if number == of && hash != expected[..] {
                    let message = format!("record {number} is not the one that {who} names");
                    walk.found(row(Kind::Edited, message, &kept)).await?;
                }
            }
            walk.counts.records += 1;
            let is_signed = !kept.signature().bytes.is_empty();
            place = Place { number, id: kept.id, hash: kept.hash.unwrap_or_default(), is_signed };
        }
        walk.progress(Stage::Records).await?;
    }
    let expected = head.max(stands.audit.0);
    if place.number < expected && !is_gone(&gone, place.number + 1, expected) {
        let message = format!("the chain ends with record {}, it had {expected}", place.number);
        walk.found(Finding::new(Kind::Truncated, Table::Records, message).number(place.number + 1)).await?;
    }
    unnumbered(walk, stands.began_at).await
}

/// Whether a record follows the one before it and is what it was.
async fn follow(
    walk: &mut Walk<'_>,
    place: &Place,
    kept: &KeptRecord,
    (gone, stands): (&[(i64, i64)], &Stands),
) -> Result<(), Error> {
    let Some(number) = kept.number else { return Ok(()) };
    let hash = kept.record(number).hash();
    if number == place.number {
        return walk.found(row(Kind::Forged, format!("there are two records with number {number}"), kept)).await;
    }
    if number > place.number + 1 {
        if let Some(first) = (place.number + 1..number).find(|number| !is_gone(gone, *number, *number)) {
            let message = format!("record {first} is gone, as may be others before record {number}");
            walk.found(Finding::new(Kind::Deleted, Table::Records, message).number(first)).await?;
        }
    } else if kept.previous_hash.as_deref() != Some(&place.hash) {
        let message = format!("record {number} does not follow record {} as that is now", place.number);
        walk.found(row(Kind::Edited, message, kept)).await?;
    }
    let wrong = match kept.hash.as_deref() == Some(&hash[..]) {
        true => walk.signature(&hash, &kept.signature(), !place.is_signed && stands.is_early_record(number)),
        false => Some((Kind::Edited, "its content is not what was recorded".into())),
    };
    if let Some((kind, why)) = wrong {
        walk.found(row(kind, format!("record {number} ({} by {}): {why}", kept.action, kept.actor), kept)).await?;
    }
    Ok(())
}

fn row(kind: Kind, message: String, kept: &KeptRecord) -> Finding {
    let finding = Finding::new(kind, Table::Records, message).number(kept.number.unwrap_or_default());
    finding.row((kept.occurred_at, kept.id), None, kept.org_id)
}

/// The numbers that expired, as runs in order.
async fn gone(walk: &mut Walk<'_>) -> Result<Vec<(i64, i64)>, Error> {
    let (mut runs, mut place) = (Vec::new(), (DateTime::<Utc>::default(), Uuid::nil()));
    loop {
        let page = evidence::purges(&mut *walk.connection().await?, Log::Audit, place, PAGE).await?;
        let Some(last) = page.last() else { break };
        place = (last.purge.purged_at, last.purge.id);
        for kept in &page {
            if expiry::holds(walk, kept).await? {
                runs.extend(kept.purge.numbers.chunks_exact(2).map(|run| (run[0], run[1])));
            }
        }
    }
    runs.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::new();
    for (first, last) in runs {
        match merged.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Ok(merged)
}

/// Whether all of these numbers expired.
fn is_gone(gone: &[(i64, i64)], first: i64, last: i64) -> bool {
    let at = gone.partition_point(|run| run.1 < first);
    gone.get(at).is_some_and(|run| run.0 <= first && last <= run.1)
}

/// Records without a number.
async fn unnumbered(walk: &mut Walk<'_>, began_at: DateTime<Utc>) -> Result<(), Error> {
    for kept in rows::unnumbered(&mut *walk.connection().await?, began_at, PAGE).await? {
        let message = format!("the record {} ({} by {}) is not in the chain", kept.id, kept.action, kept.actor);
        walk.found(row(Kind::Forged, message, &kept)).await?;
    }
    Ok(())
}
