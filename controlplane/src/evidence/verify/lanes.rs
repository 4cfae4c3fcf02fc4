//! The seals, lane by lane: ordinals and sequence numbers without gaps, each with the hash of the one before, as far as checkpoints and
//! cursors say; and with each, the rows that it covers.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Error, Expiry, Finding, Kind, Stage, Table, Walk, checkpoints::Stands, named, rows};
use crate::{
    evidence::{
        canon::{START, sha256},
        seal,
    },
    store::{
        evidence::{self, KeptSeal},
        ingest::LaneId,
    },
};

/// Seals read at once; each has up to 2000 entries.
const PAGE: i64 = 20;
/// Before every lane.
const FIRST: LaneId = LaneId { node_id: Uuid::nil(), boot_id: Uuid::nil(), lane: i32::MIN };

/// How far a lane was followed.
struct Place {
    lane: LaneId,
    ordinal: i64,
    hash: Vec<u8>,
    last_seq: i64,
    /// Whether its last seal was signed: then the next one must be.
    is_signed: bool,
}

pub async fn walk(walk: &mut Walk<'_>, expiry: &mut Expiry, stands: &Stands) -> Result<(), Error> {
    // As of now: seals are only added from here on.
    let cursors: BTreeMap<LaneId, i64> = evidence::sealed_lanes(&mut *walk.connection().await?).await?.into_iter().collect();
    let mut unseen = cursors.clone();
    unseen.extend(stands.lanes.iter().map(|(lane, (ordinal, _))| (*lane, cursors.get(lane).copied().unwrap_or(0).max(*ordinal))));
    let (mut place, mut at) = (None::<Place>, (FIRST, 0));
    walk.progress(Stage::Seals).await?;
    loop {
        let page = evidence::seals(&mut *walk.connection().await?, at, walk.scope.period, PAGE).await?;
        let Some(last) = page.last() else { break };
        at = (last.header.lane, last.header.ordinal);
        for kept in page {
            if place.as_ref().is_none_or(|place| place.lane != kept.header.lane) {
                if let Some(place) = place.take() {
                    end(walk, &place, stands, unseen.remove(&place.lane)).await?;
                }
                place = Some(begin(walk, expiry, &kept).await?);
            }
            let Some(place) = &mut place else { continue };
            follow(walk, place, &kept, stands).await?;
            rows_of(walk, expiry, &kept).await?;
        }
        walk.progress(Stage::Seals).await?;
    }
    if let Some(place) = place {
        end(walk, &place, stands, unseen.remove(&place.lane)).await?;
    }
    for (lane, ordinal) in unseen {
        let floor = evidence::floor(&mut *walk.connection().await?, lane).await?;
        if floor.is_none_or(|(floor, _)| floor.ordinal < ordinal) {
            let message = format!("{} had {ordinal} seals, all of them are gone", named(lane));
            walk.found(Finding::new(Kind::Truncated, Table::Seals, message).at(lane, 0)).await?;
        }
    }
    Ok(())
}

/// Where the seals of a lane may begin: at the first, or behind those that are rightly gone.
async fn begin(walk: &mut Walk<'_>, expiry: &Expiry, first: &KeptSeal) -> Result<Place, Error> {
    walk.counts.lanes += 1;
    let header = &first.header;
    let (ordinal, hash, last_seq) = (header.ordinal - 1, header.previous_hash.clone(), header.first_seq - 1);
    let place = Place { lane: header.lane, ordinal, hash, last_seq, is_signed: false };
    if header.ordinal == 1 {
        return Ok(Place { hash: START.to_vec(), ..place });
    }
    let floor = evidence::floor(&mut *walk.connection().await?, header.lane).await?;
    let fits = floor.filter(|(floor, _)| floor.ordinal == header.ordinal - 1 && floor.seal_hash == header.previous_hash);
    let wrong = match fits {
        None => Some((Kind::Deleted, String::from("nothing says that they were old"))),
        Some((floor, _)) if floor.before > expiry.young => Some((Kind::Deleted, "they were not old enough".into())),
        Some((floor, signature)) => walk.signature(&floor.hash(), &signature, walk.is_early(floor.before)),
    };
    if let Some((kind, why)) = wrong {
        let message = format!("the seals before number {} of {} are gone: {why}", header.ordinal, named(header.lane));
        walk.found(Finding::new(kind, Table::Seals, message).at(header.lane, header.first_seq)).await?;
    }
    Ok(place)
}

/// Whether a seal follows the one before it and is what it was.
async fn follow(walk: &mut Walk<'_>, place: &mut Place, kept: &KeptSeal, stands: &Stands) -> Result<(), Error> {
    let (header, hash) = (&kept.header, kept.header.hash());
    walk.counts.seals += 1;
    let covered = stands.lanes.get(&header.lane);
    if covered.is_none_or(|(ordinal, _)| header.ordinal > *ordinal) {
        walk.counts.seals_since_checkpoint += 1;
    }
    let mut wrong = Vec::new();
    if header.ordinal > place.ordinal + 1 {
        let gone = (place.ordinal + 1, header.ordinal - 1);
        wrong.push((Kind::Deleted, format!("the seals {} to {} before it are missing", gone.0, gone.1)));
    } else if header.previous_hash != place.hash {
        wrong.push((Kind::Edited, "it does not follow the seal before it as that is now".into()));
    }
    if header.ordinal == place.ordinal + 1 && header.first_seq != place.last_seq + 1 {
        wrong.push((Kind::Deleted, format!("no seal covers the frames from {} to {}", place.last_seq + 1, header.first_seq - 1)));
    }
    if kept.hash != hash {
        wrong.push((Kind::Edited, "its content is not what was hashed".into()));
    }
    let is_early = !place.is_signed && stands.is_early_seal(header.lane, header.ordinal);
    wrong.extend(walk.signature(&hash, &kept.signature, is_early));
    if covered.is_some_and(|(ordinal, seen)| *ordinal == header.ordinal && *seen != hash) {
        wrong.push((Kind::Edited, "it is not the one that a checkpoint covers".into()));
    }
    for (kind, why) in wrong {
        let message = format!("seal {} of {}: {why}", header.ordinal, named(header.lane));
        walk.found(Finding::new(kind, Table::Seals, message).at(header.lane, header.first_seq)).await?;
    }
    let is_signed = !kept.signature.bytes.is_empty();
    let (ordinal, last_seq) = (header.ordinal, header.last_seq);
    *place = Place { lane: header.lane, ordinal, hash: kept.hash.clone(), last_seq, is_signed };
    Ok(())
}

/// Compares the rows that a seal covers.
async fn rows_of(walk: &mut Walk<'_>, expiry: &mut Expiry, kept: &KeptSeal) -> Result<(), Error> {
    let Some(packed) = &kept.entries else { return Ok(()) };
    let header = &kept.header;
    let whole = header.entries_hash == sha256(packed);
    match seal::unpack(packed, &header.orgs).filter(|_| whole) {
        Some(entries) => rows::compare(walk, expiry, header.lane, entries).await,
        None => {
            let message = format!("seal {} of {}: what it covers is not what was hashed", header.ordinal, named(header.lane));
            walk.found(Finding::new(Kind::Edited, Table::Seals, message).at(header.lane, header.first_seq)).await
        }
    }
}

/// Whether a lane goes as far as it must, and not further.
async fn end(walk: &mut Walk<'_>, place: &Place, stands: &Stands, cursor: Option<i64>) -> Result<(), Error> {
    let covered = stands.lanes.get(&place.lane).map_or(0, |(ordinal, _)| *ordinal);
    let expected = covered.max(cursor.unwrap_or(0));
    if place.ordinal < expected {
        let message = format!("{} ends with seal {}, it had {expected}", named(place.lane), place.ordinal);
        walk.found(Finding::new(Kind::Truncated, Table::Seals, message).at(place.lane, place.last_seq + 1)).await?;
    }
    let now = evidence::sealed(&mut *walk.connection().await?, place.lane).await?;
    if now.is_none_or(|(ordinal, _)| ordinal < place.ordinal) {
        let message =
            format!("{} has {} seals, its cursor knows of {}", named(place.lane), place.ordinal, now.map_or(0, |now| now.0));
        walk.found(Finding::new(Kind::Forged, Table::Seals, message).at(place.lane, place.last_seq)).await?;
    }
    Ok(())
}
