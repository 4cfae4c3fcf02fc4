//! What is on record of rows that were deleted because they were too old, so that nobody takes them for stolen. Pure.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::canon::{Canon, Hash};
use crate::store::ingest::LaneId;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    Requests,
    Audit,
}

impl Log {
    /// The table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "request_logs",
            Self::Audit => "audit_logs",
        }
    }
}

/// What expired of one organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The nil UUID: of every organisation and of none.
    pub org: Uuid,
    pub before: DateTime<Utc>,
    /// How long it is kept.
    pub days: i32,
    /// At least; larger numbers are not counted to their end.
    pub count: i64,
}

/// What one run deleted from a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    pub id: Uuid,
    pub purged_at: DateTime<Utc>,
    pub log: Log,
    pub expired: Vec<Expired>,
    /// Of administrative records: the numbers that are gone, first and last of each run.
    pub numbers: Vec<i64>,
}

impl Purge {
    pub fn hash(&self) -> Hash {
        let mut canon = Canon::new("mcpgw purge 1");
        canon.id(self.id).moment(self.purged_at).text(self.log.as_str());
        canon.each(&self.expired, |canon, one| {
            canon.id(one.org).moment(one.before).number(one.days).number(one.count);
        });
        canon.each(&self.numbers, |canon, number| _ = canon.number(*number)).hash()
    }

    /// Whether nothing was deleted before its time.
    pub fn is_due(&self) -> bool {
        let due = |one: &Expired| one.days > 0 && one.before + chrono::TimeDelta::days(one.days.into()) <= self.purged_at;
        self.expired.iter().all(due)
    }
}

/// Up to where the seals of a lane are deleted: all that they cover is older than any organisation keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    pub lane: LaneId,
    pub ordinal: i64,
    /// Of the last seal that is gone.
    pub seal_hash: Vec<u8>,
    pub before: DateTime<Utc>,
}

impl Floor {
    pub fn hash(&self) -> Hash {
        let mut canon = Canon::new("mcpgw seal floor 1");
        canon.id(self.lane.node_id).id(self.lane.boot_id).number(self.lane.lane);
        canon.number(self.ordinal).octets(&self.seal_hash).moment(self.before).hash()
    }
}

/// The runs of consecutive numbers among sorted ones, first and last of each.
pub fn runs(numbers: &[i64]) -> Vec<i64> {
    let mut runs: Vec<i64> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(last) if *last + 1 == *number => *last = *number,
            _ => runs.extend([*number, *number]),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_numbers_are_one_run() {
        assert!(runs(&[]).is_empty());
        assert_eq!(runs(&[3]), [3, 3]);
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [1, 3, 7, 7, 9, 10]);
    }

    #[test]
    fn what_is_deleted_before_its_time_is_not_due() {
        let now = Utc::now();
        let expired = Expired { org: Uuid::nil(), before: now - chrono::TimeDelta::days(3), days: 3, count: 1 };
        let purge =
            Purge { id: Uuid::nil(), purged_at: now, log: Log::Requests, expired: vec![expired.clone()], numbers: vec![] };
        assert!(purge.is_due());
        let early = Expired { before: now - chrono::TimeDelta::days(2), ..expired };
        assert!(!Purge { expired: vec![early], ..purge }.is_due());
    }
}
