//! A seal: which rows one committed batch of a lane brought, and what was in them. Each names the one before it in its lane.
//! Pure. `store` makes one in the transaction of the batch; [`super::verify`] reads them back.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    canon::{Canon, Hash, START, sha256},
    half::{Decided, Ended, Half},
};
use crate::{
    ingest::record::{Batch, Key},
    store::{accounts::Touched, ingest::LaneId},
};

/// The control plane's own lane: calls that it found interrupted.
pub const OWN: LaneId = LaneId { node_id: Uuid::nil(), boot_id: Uuid::nil(), lane: 0 };

/// One half of a row, as a batch brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub half: Half,
    /// Of the frame, within the lane.
    pub seq: i64,
    /// None was known when it was sealed: its row was begun by its end.
    pub org: Option<Uuid>,
    pub hash: Hash,
}

/// Bytes of an entry: half, organisation's place, sequence number, key, hash.
const ENTRY: usize = 1 + 2 + 8 + 8 + 16 + 32;

/// Everything of a seal but its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub number: i64,
    pub lane: LaneId,
    pub ordinal: i64,
    pub sealed_at: DateTime<Utc>,
    pub first_seq: i64,
    pub last_seq: i64,
    pub chain_hash: Vec<u8>,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    pub orgs: Vec<Uuid>,
    pub entries_hash: Vec<u8>,
    pub previous_hash: Vec<u8>,
}

impl Header {
    pub fn hash(&self) -> Hash {
        let mut canon = Canon::new("mcpgw seal 1");
        canon.number(self.number).id(self.lane.node_id).id(self.lane.boot_id).number(self.lane.lane).number(self.ordinal);
        canon.moment(self.sealed_at).number(self.first_seq).number(self.last_seq).octets(&self.chain_hash);
        canon.moment(self.first_at).moment(self.last_at).each(&self.orgs, |canon, org| _ = canon.id(*org));
        canon.octets(&self.entries_hash).octets(&self.previous_hash).hash()
    }
}

/// Where a lane's seals stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of the last seal; 0: none.
    pub ordinal: i64,
    pub hash: Hash,
    /// What the next seal is called.
    pub next_number: i64,
}

impl Head {
    /// The hash as stored: empty before the first seal.
    pub fn stored(ordinal: i64, hash: &[u8], next_number: i64) -> Option<Self> {
        let hash = if hash.is_empty() { START } else { hash.try_into().ok()? };
        Some(Self { ordinal, hash, next_number })
    }
}

/// What a batch is sealed as.
#[derive(Debug, Clone, PartialEq)]
pub struct Seal {
    pub header: Header,
    pub entries: Vec<u8>,
}

/// Which frames a seal is about.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub lane: LaneId,
    pub first_seq: i64,
    pub last_seq: i64,
    pub chain_hash: &'a [u8],
}

impl Seal {
    /// Seals a run of frames: also one without entries, so that no number is without a seal.
    pub fn new(head: &Head, run: &Run<'_>, entries: &[Entry]) -> Self {
        let now = Utc::now();
        let sealed_at = DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now);
        let mut orgs: Vec<Uuid> = entries.iter().map(|entry| entry.org.unwrap_or_default()).collect();
        orgs.sort_unstable();
        orgs.dedup();
        let packed = pack(entries, &orgs);
        let header = Header {
            number: head.next_number,
            lane: run.lane,
            ordinal: head.ordinal + 1,
            sealed_at,
            first_seq: run.first_seq,
            last_seq: run.last_seq,
            chain_hash: run.chain_hash.to_vec(),
            first_at: entries.iter().map(|entry| entry.key.0).min().unwrap_or(sealed_at),
            last_at: entries.iter().map(|entry| entry.key.0).max().unwrap_or(sealed_at),
            orgs,
            entries_hash: sha256(&packed).to_vec(),
            previous_hash: head.hash.to_vec(),
        };
        Self { header, entries: packed }
    }
}

/// What a batch brought, in the order of its frames: of the rows that it touched, the halves that are from it.
pub fn entries(lane: LaneId, number: i64, batch: &Batch, touched: &[Touched]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(2 * touched.len());
    for row in touched {
        let key = row.key();
        let begun = batch.rows.binary_search_by_key(&key, |row| row.key).ok().map(|at| &batch.rows[at]);
        let alone = batch.ends.binary_search_by_key(&key, |(key, _)| *key).ok().map(|at| &batch.ends[at].1);
        if let Some(begun) = begun.filter(|_| row.decided_seal == Some(number)) {
            let hash = Decided::of_frame(lane, begun).hash(key);
            entries.push(Entry { key, half: Half::Decided, seq: begun.seq, org: row.org_id, hash });
        }
        if let Some(end) = begun.and_then(|row| row.end.as_ref()).or(alone).filter(|_| row.ended_seal == Some(number)) {
            let hash = Ended::of_frame(end).hash(key, lane.node_id);
            entries.push(Entry { key, half: Half::Ended, seq: end.seq, org: row.org_id, hash });
        }
    }
    entries.sort_unstable_by_key(|entry| (entry.seq, entry.half));
    entries.dedup();
    entries
}

fn pack(entries: &[Entry], orgs: &[Uuid]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(entries.len() * ENTRY);
    for entry in entries {
        let place = orgs.binary_search(&entry.org.unwrap_or_default()).unwrap_or_default();
        packed.push(match entry.half {
            Half::Decided => 1,
            Half::Ended => 2,
            Half::Interrupted => 3,
        });
        packed.extend_from_slice(&u16::try_from(place).unwrap_or(u16::MAX).to_be_bytes()); // a batch has 1000 frames at most
        packed.extend_from_slice(&entry.seq.to_be_bytes());
        packed.extend_from_slice(&entry.key.0.timestamp_micros().to_be_bytes());
        packed.extend_from_slice(entry.key.1.as_bytes());
        packed.extend_from_slice(&entry.hash);
    }
    packed
}

/// The entries of a seal; none: these bytes are none.
pub fn unpack(packed: &[u8], orgs: &[Uuid]) -> Option<Vec<Entry>> {
    if !packed.len().is_multiple_of(ENTRY) {
        return None;
    }
    packed.chunks_exact(ENTRY).map(|bytes| entry(bytes, orgs)).collect()
}

fn entry(bytes: &[u8], orgs: &[Uuid]) -> Option<Entry> {
    let (kind, rest) = bytes.split_first()?;
    let (place, rest) = rest.split_first_chunk::<2>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let half = match kind {
        1 => Half::Decided,
        2 => Half::Ended,
        3 => Half::Interrupted,
        _ => return None,
    };
    let org = *orgs.get(usize::from(u16::from_be_bytes(*place)))?;
    let at = DateTime::from_timestamp_micros(i64::from_be_bytes(*at))?;
    Some(Entry {
        key: (at, Uuid::from_bytes(*id)),
        half,
        seq: i64::from_be_bytes(*seq),
        org: (!org.is_nil()).then_some(org),
        hash: rest.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u128, half: Half, org: Option<Uuid>) -> Entry {
        let at = DateTime::from_timestamp_micros(1_700_000_000_000_000 + n as i64).unwrap();
        Entry { key: (at, Uuid::from_u128(n)), half, seq: n as i64, org, hash: [n as u8; 32] }
    }

    #[test]
    fn entries_read_back_as_they_were_and_rubbish_does_not() {
        let org = Some(Uuid::from_u128(9));
        let all = [entry(1, Half::Decided, None), entry(2, Half::Ended, org), entry(3, Half::Interrupted, org)];
        let head = Head { ordinal: 4, hash: [1; 32], next_number: 17 };
        let seal = Seal::new(&head, &Run { lane: OWN, first_seq: 1, last_seq: 3, chain_hash: &[2; 32] }, &all);
        assert_eq!(unpack(&seal.entries, &seal.header.orgs).unwrap(), all);
        assert_eq!((seal.header.ordinal, seal.header.number, &seal.header.previous_hash[..]), (5, 17, &[1u8; 32][..]));
        assert_eq!((seal.header.first_at, seal.header.last_at), (all[0].key.0, all[2].key.0));
        assert_eq!(unpack(&seal.entries[1..], &seal.header.orgs), None);
        assert_eq!(unpack(&seal.entries, &[]), None);
        let mut strange = seal.entries.clone();
        strange[0] = 7;
        assert_eq!(unpack(&strange, &seal.header.orgs), None);
    }

    #[test]
    fn every_part_of_a_header_is_in_its_hash() {
        let head = Head { ordinal: 0, hash: START, next_number: 1 };
        let header = Seal::new(&head, &Run { lane: OWN, first_seq: 1, last_seq: 3, chain_hash: &[2; 32] }, &[]).header;
        let later = header.sealed_at + chrono::TimeDelta::microseconds(1);
        let mut changed = vec![header.clone(); 12];
        changed[0].number += 1;
        changed[1].lane.lane += 1;
        changed[2].ordinal += 1;
        changed[3].sealed_at = later;
        changed[4].first_seq += 1;
        changed[5].last_seq += 1;
        changed[6].chain_hash = vec![3; 32];
        changed[7].first_at = later;
        changed[8].last_at = later;
        changed[9].orgs = vec![Uuid::nil()];
        changed[10].entries_hash = vec![0; 32];
        changed[11].previous_hash = vec![1; 32];
        let hashes: std::collections::BTreeSet<Hash> = changed.iter().chain([&header]).map(Header::hash).collect();
        assert_eq!(hashes.len(), 13);
    }
}
