//! What a batch adds to the rollups, to the groups of errors and to the order of arrival. Pure but for the names it remembers.
//!
//! Counts a call when its row becomes complete, which happens once: whichever of its frames comes last. Everything is sorted, so that
//! batches of different lanes lock what they share in one order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use mcp_gateway::proto::node::v1::Outcome;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    names::{self, Names},
    record::{Batch, Key},
};
use crate::{domain::latency, store::accounts::Touched};

/// How rollups name the outcome of a call that was found interrupted.
pub const INTERRUPTED: i16 = 0;
/// `node.v1.Outcome` as rows have it.
const OK: i16 = Outcome::Ok as i16;
/// The outcomes that make groups of errors.
const FAILED: [i16; 4] =
    [Outcome::Denied as i16, Outcome::Error as i16, Outcome::UpstreamFailed as i16, Outcome::GatewayFailed as i16];

/// See the module.
#[derive(Debug, Default, PartialEq)]
pub struct Account {
    pub minutes: BTreeMap<Minute, Sums>,
    pub errors: BTreeMap<Uuid, Errors>,
    /// Rows that are complete now.
    pub done: Vec<Key>,
    /// Rows that were begun and are open.
    pub open: Vec<Key>,
}

/// What calls are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute {
    pub org_id: Uuid,
    /// Since the epoch.
    pub minute: i64,
    pub server_id: Uuid,
    pub server: String,
    pub method: &'static str,
    pub target: String,
    pub decision: i16,
    pub outcome: i16,
}

/// What is counted. Fewer than nothing where calls turn out to be something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    pub calls: i64,
    pub request_bytes: i64,
    pub response_bytes: i64,
    pub total_us: i64,
    pub buckets: [i64; latency::COUNT],
}

impl Default for Sums {
    fn default() -> Self {
        Self { calls: 0, request_bytes: 0, response_bytes: 0, total_us: 0, buckets: [0; latency::COUNT] }
    }
}

impl Sums {
    fn add(&mut self, row: &Touched) {
        self.calls += 1;
        self.request_bytes = self.request_bytes.saturating_add(row.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(row.response_bytes);
        self.total_us = self.total_us.saturating_add(row.total_us);
        self.buckets[latency::place(row.total_us.unsigned_abs())] += 1;
    }

    /// Takes an interrupted call back: only its request was known.
    fn take_back(&mut self, row: &Touched) {
        self.calls -= 1;
        self.request_bytes = self.request_bytes.saturating_sub(row.request_bytes);
    }
}

/// Errors of one batch that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    pub group: Group,
    pub calls: i64,
    pub first_seen_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    pub sample_id: Uuid,
}

/// What errors of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub org_id: Uuid,
    pub server_id: Uuid,
    pub server: String,
    pub method: &'static str,
    pub target: String,
    pub outcome: i16,
    pub code: i32,
    pub reason: String,
    pub upstream: String,
    /// The 64 bits of the hash; 0: no message was seen.
    pub shape: i64,
}

impl Group {
    /// The same on every replica and for ever.
    fn id(&self) -> Uuid {
        let mut hash = Sha256::new();
        let numbers = [i64::from(self.outcome), i64::from(self.code), self.shape];
        numbers.iter().for_each(|number| hash.update(number.to_be_bytes()));
        [self.org_id, self.server_id].iter().for_each(|id| hash.update(id));
        for text in [&self.server, self.method, &self.target, &self.reason, &self.upstream] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        uuid::Builder::from_custom_bytes(id).into_uuid()
    }
}

impl Account {
    /// Of the rows that a batch touched.
    pub fn of(batch: &Batch, touched: &[Touched], names: &Names) -> Self {
        let with_end = batch.rows.iter().filter_map(|row| Some((row.key, row.end.as_ref()?)));
        let ends = with_end.chain(batch.ends.iter().map(|(key, end)| (*key, end)));
        let shapes = ends.filter(|(_, end)| end.ended.error_shape != 0).map(|(key, end)| (key, end.ended.error_shape));
        Self::of_rows(touched, &shapes.collect(), names)
    }

    /// Of rows whose node is found gone before they ended.
    pub fn of_interrupted(rows: &[Touched], names: &Names) -> Self {
        let mut account = Self::default();
        for row in rows {
            account.done.push(row.key());
            account.count(row, INTERRUPTED, names).add(row);
        }
        account.sort()
    }

    fn of_rows(touched: &[Touched], shapes: &BTreeMap<Key, u64>, names: &Names) -> Self {
        let mut account = Self::default();
        // What a server answers anywhere in the batch makes a name known for all of it.
        for row in touched.iter().filter(|row| row.outcome == Some(OK)) {
            target(row, names);
        }
        for row in touched.iter().filter(|row| row.decision != 0) {
            let Some(outcome) = row.outcome else {
                account.open.push(row.key());
                continue;
            };
            account.done.push(row.key());
            if row.was_interrupted {
                account.count(row, INTERRUPTED, names).take_back(row);
            }
            account.count(row, outcome, names).add(row);
            account.error(row, outcome, shapes.get(&row.key()).copied().unwrap_or(0), names);
        }
        account.sort()
    }

    fn sort(mut self) -> Self {
        self.done.sort_unstable();
        self.open.sort_unstable();
        self
    }

    fn count(&mut self, row: &Touched, outcome: i16, names: &Names) -> &mut Sums {
        let minute = Minute {
            org_id: row.org_id.unwrap_or_default(),
            minute: minute(row),
            server_id: row.server_id.unwrap_or_default(),
            server: row.server.clone(),
            method: names::method(&row.method),
            target: target(row, names).to_owned(),
            decision: row.decision,
            outcome,
        };
        self.minutes.entry(minute).or_default()
    }

    fn error(&mut self, row: &Touched, outcome: i16, shape: u64, names: &Names) {
        if !FAILED.contains(&outcome) {
            return;
        }
        let group = Group {
            org_id: row.org_id.unwrap_or_default(),
            server_id: row.server_id.unwrap_or_default(),
            server: row.server.clone(),
            method: names::method(&row.method),
            target: target(row, names).to_owned(),
            outcome,
            code: row.error_code,
            reason: row.reason.clone(),
            upstream: row.upstream.clone(),
            shape: shape.cast_signed(),
        };
        let (id, at) = (group.id(), row.decided_at);
        let first = Errors { group, calls: 0, first_seen_at: at, last_seen_at: at, sample_id: row.request_id };
        let errors = self.errors.entry(id).or_insert(first);
        errors.calls += 1;
        errors.first_seen_at = errors.first_seen_at.min(at);
        if at >= errors.last_seen_at {
            (errors.last_seen_at, errors.sample_id) = (at, row.request_id);
        }
    }

    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.open.is_empty()
    }
}

fn minute(row: &Touched) -> i64 {
    row.decided_at.timestamp().div_euclid(60)
}

fn target<'a>(row: &'a Touched, names: &Names) -> &'a str {
    let server = (row.org_id.unwrap_or_default(), row.server_id.unwrap_or_default());
    names.of(server, &row.target, row.outcome == Some(OK), minute(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u128, outcome: Option<i16>) -> Touched {
        Touched {
            request_id: Uuid::from_u128(n),
            decided_at: DateTime::from_timestamp(1_750_000_000 + i64::try_from(n).unwrap(), 0).unwrap(),
            org_id: Some(Uuid::max()),
            server_id: None,
            server: "github".into(),
            method: "tools/call".into(),
            target: "search".into(),
            decision: 1,
            reason: String::new(),
            outcome,
            error_code: 0,
            upstream: "http://up/mcp".into(),
            request_bytes: 10,
            response_bytes: 20,
            total_us: 100,
            was_interrupted: false,
            decided_seal: None,
            ended_seal: None,
        }
    }

    fn of(rows: &[Touched]) -> Account {
        Account::of_rows(rows, &BTreeMap::new(), &Names::default())
    }

    #[test]
    fn a_call_counts_when_both_of_its_frames_are_there() {
        let account = of(&[row(3, Some(1)), row(1, None), row(2, Some(1)), Touched { decision: 0, ..row(4, Some(1)) }]);
        assert_eq!(account.done, [row(2, None).key(), row(3, None).key()]);
        assert_eq!(account.open, [row(1, None).key()]);
        let sums: Vec<_> = account.minutes.values().map(|sums| (sums.calls, sums.total_us, sums.buckets[2])).collect();
        assert_eq!(sums, [(2, 200, 2)]);
        assert!(account.errors.is_empty());
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn an_interrupted_call_that_ends_after_all_is_taken_back() {
        let names = Names::default();
        let gone = Account::of_interrupted(&[row(1, None)], &names);
        let late = of(&[Touched { was_interrupted: true, ..row(1, Some(1)) }]);
        let calls = |account: &Account, outcome: i16| -> i64 {
            account.minutes.iter().filter(|(minute, _)| minute.outcome == outcome).map(|(_, sums)| sums.calls).sum()
        };
        assert_eq!((calls(&gone, INTERRUPTED), calls(&late, INTERRUPTED), calls(&late, 1)), (1, -1, 1));
        let targets: std::collections::BTreeSet<_> = gone.minutes.keys().map(|minute| minute.target.clone()).collect();
        assert_eq!(targets, ["other".to_owned()].into());
    }

    #[test]
    fn errors_of_one_shape_are_one_group() {
        let failed = |n, code| Touched { error_code: code, ..row(n, Some(3)) };
        let rows = [failed(1, -1), failed(9, -1), failed(5, -1), failed(2, -2), failed(6, -1)];
        let shapes = [(rows[4].key(), 7u64)].into();
        let account = Account::of_rows(&rows, &shapes, &Names::default());
        let mut groups: Vec<_> = account.errors.values().map(|it| (it.calls, it.group.code, it.group.shape)).collect();
        groups.sort_unstable();
        assert_eq!(groups, [(1, -2, 0), (1, -1, 7), (3, -1, 0)]);
        let three = account.errors.values().find(|errors| errors.calls == 3).unwrap();
        assert_eq!((three.first_seen_at, three.last_seen_at), (rows[0].decided_at, rows[1].decided_at));
        assert_eq!(three.sample_id, rows[1].request_id);
        assert_eq!(three.group.target, "other", "nobody knows that tool");
    }
}
