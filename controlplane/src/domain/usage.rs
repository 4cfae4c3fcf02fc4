//! How full the counts of rate limits are, from what nodes report: counts of a node's own stay apart, counts that nodes share become one.
//!
//! Pure. Reports come through `nodes`, are kept by `store`, and are read by `api`.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::{DateTime, TimeDelta, Utc};
use mcp_gateway::proto::node::v1::LimitUsage;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Counts of one report, at most.
const MOST_COUNTS: usize = 200;
/// Of a subject, server or pattern, in bytes.
const MOST_TEXT: usize = 1024;

/// Where a count is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// With each node for itself.
    Memory,
    /// With each node for itself while what they share is out of reach.
    Share,
    /// With all nodes together.
    Redis,
    /// With all nodes together, some of it in a node's hands.
    Lease,
}

/// How full one count was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub limit: Uuid,
    pub subject: String,
    pub server: String,
    pub pattern: String,
    /// 0: calls in flight.
    pub seconds: u32,
    pub admits: u64,
    pub used: u64,
    pub refused: u64,
    pub reset_ms: u64,
    pub mode: Mode,
}

/// What a node told of an organisation.
#[derive(Debug, Clone)]
pub struct Told {
    pub node: Uuid,
    pub at: DateTime<Utc>,
    pub counts: Vec<Count>,
}

/// What tells counts apart, in the order in which they are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Its name.
    pub limit: String,
    pub subject: String,
    pub server: String,
    pub pattern: String,
    pub seconds: u32,
    /// None: nodes share the count.
    node: Option<Uuid>,
}

/// A count, and who told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub count: Count,
    pub node: Uuid,
    pub at: DateTime<Utc>,
    /// How many nodes report it.
    pub nodes: u32,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Share => "share",
            Self::Redis => "redis",
            Self::Lease => "lease",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Memory, Self::Share, Self::Redis, Self::Lease].into_iter().find(|mode| mode.name() == name)
    }

    fn is_shared(self) -> bool {
        match self {
            Self::Memory | Self::Share => false,
            Self::Redis | Self::Lease => true,
        }
    }
}

/// What a report says, by organisation. What makes no sense is left out: the rest of the report is worth having.
pub fn read(usage: &[LimitUsage]) -> BTreeMap<Uuid, Vec<Count>> {
    let mut counts: BTreeMap<Uuid, Vec<Count>> = BTreeMap::new();
    for (org, count) in usage.iter().take(MOST_COUNTS).filter_map(count) {
        counts.entry(org).or_default().push(count);
    }
    counts
}

fn count(usage: &LimitUsage) -> Option<(Uuid, Count)> {
    let text = |text: &str| (text.len() <= MOST_TEXT && !text.contains('\0')).then(|| text.to_owned());
    let count = Count {
        limit: Uuid::try_parse(&usage.limit_id).ok()?,
        subject: text(&usage.subject)?,
        server: text(&usage.server)?,
        pattern: text(&usage.pattern)?,
        seconds: usage.seconds,
        admits: usage.limit,
        used: usage.used,
        refused: usage.refused,
        reset_ms: usage.reset_ms,
        mode: Mode::of(&usage.mode)?,
    };
    Some((Uuid::try_parse(&usage.org_id).ok()?, count))
}

/// A line for each count. Limits without a name are not there any more.
pub fn merge(told: Vec<Told>, names: &BTreeMap<Uuid, String>) -> BTreeMap<Key, Line> {
    let mut lines = BTreeMap::new();
    for Told { node, at, counts } in told {
        for count in counts {
            let Some(limit) = names.get(&count.limit).cloned() else { continue };
            let key = Key {
                limit,
                subject: count.subject.clone(),
                server: count.server.clone(),
                pattern: count.pattern.clone(),
                seconds: count.seconds,
                // Calls in flight are always a node's own.
                node: (!count.mode.is_shared() || count.seconds == 0).then_some(node),
            };
            match lines.entry(key) {
                Entry::Vacant(none) => drop(none.insert(Line { count, node, at, nodes: 1 })),
                Entry::Occupied(mut known) => known.get_mut().add(count, node, at),
            }
        }
    }
    lines
}

impl Line {
    /// What is left.
    pub fn headroom(&self) -> u64 {
        self.count.admits.saturating_sub(self.count.used)
    }

    /// When some of it is free again.
    pub fn free_at(&self) -> Option<DateTime<Utc>> {
        let reset = TimeDelta::try_milliseconds(i64::try_from(self.count.reset_ms).ok()?)?;
        (self.count.seconds > 0 && self.count.used > 0).then(|| self.at.checked_add_signed(reset)).flatten()
    }

    /// Another node tells of the same count: the newest knows how full it is, each knows what it refused itself.
    fn add(&mut self, count: Count, node: Uuid, at: DateTime<Utc>) {
        let refused = self.count.refused.saturating_add(count.refused);
        if at > self.at {
            (self.count, self.node, self.at) = (count, node, at);
        }
        self.count.refused = refused;
        self.nodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Uuid = Uuid::from_u128(7);

    fn count(mode: Mode, used: u64, refused: u64) -> Count {
        let (subject, server, pattern) = ("alice".to_owned(), String::new(), String::new());
        Count { limit: LIMIT, subject, server, pattern, seconds: 60, admits: 10, used, refused, reset_ms: 1500, mode }
    }

    fn told(node: u128, second: i64, counts: Vec<Count>) -> Told {
        Told { node: Uuid::from_u128(node), at: DateTime::from_timestamp(second, 0).unwrap(), counts }
    }

    fn lines(told: Vec<Told>) -> Vec<(u64, u64, u32, u64)> {
        let names = BTreeMap::from([(LIMIT, "searches".to_owned())]);
        let line = |line: &Line| (line.count.used, line.count.refused, line.nodes, line.headroom());
        merge(told, &names).values().map(line).collect()
    }

    #[test]
    fn what_each_node_counts_for_itself_stays_apart() {
        let told = [Mode::Memory, Mode::Share].map(|mode| told(u128::from(mode == Mode::Share), 5, vec![count(mode, 3, 1)]));
        assert_eq!(lines(told.to_vec()), [(3, 1, 1, 7), (3, 1, 1, 7)]);
    }

    #[test]
    fn of_what_nodes_share_the_newest_report_tells_and_refusals_add_up() {
        let (older, newer) = (told(1, 5, vec![count(Mode::Redis, 4, 1)]), told(2, 9, vec![count(Mode::Lease, 10, 2)]));
        assert_eq!(lines(vec![older.clone(), newer.clone()]), [(10, 3, 2, 0)]);
        assert_eq!(lines(vec![newer, older]), [(10, 3, 2, 0)], "whatever the order");
    }

    #[test]
    fn what_is_in_flight_is_a_nodes_own() {
        let places = |used| vec![Count { seconds: 0, ..count(Mode::Redis, used, 0) }];
        assert_eq!(lines(vec![told(1, 5, places(1)), told(2, 5, places(2))]), [(1, 0, 1, 9), (2, 0, 1, 8)]);
    }

    #[test]
    fn a_limit_that_is_gone_has_no_line() {
        let gone = Count { limit: Uuid::from_u128(8), ..count(Mode::Memory, 1, 0) };
        assert_eq!(lines(vec![told(1, 5, vec![gone])]), []);
    }

    #[test]
    fn what_makes_no_sense_is_left_out_of_a_report() {
        let id = LIMIT.to_string();
        let good = LimitUsage { org_id: id.clone(), limit_id: id, mode: "memory".into(), used: 3, ..LimitUsage::default() };
        let bad = [
            LimitUsage { org_id: "acme".into(), ..good.clone() },
            LimitUsage { limit_id: String::new(), ..good.clone() },
            LimitUsage { mode: "magic".into(), ..good.clone() },
            LimitUsage { subject: "\0".into(), ..good.clone() },
            LimitUsage { pattern: "x".repeat(MOST_TEXT + 1), ..good.clone() },
        ];
        let all: Vec<_> = bad.into_iter().chain([good.clone()]).collect();
        assert_eq!(read(&all).into_values().flatten().map(|count| count.used).collect::<Vec<_>>(), [3]);
        assert_eq!(read(&vec![good; 1000]).into_values().flatten().count(), MOST_COUNTS);
    }

    #[test]
    fn room_comes_back_some_time_after_the_report() {
        let line = |count| Line { count, node: LIMIT, at: DateTime::from_timestamp(5, 0).unwrap(), nodes: 1 };
        let free = line(count(Mode::Memory, 1, 0)).free_at().unwrap();
        assert_eq!(free.timestamp_millis(), 6_500);
        assert_eq!(line(count(Mode::Memory, 0, 3)).free_at(), None, "nothing is used");
        assert_eq!(line(Count { reset_ms: u64::MAX, ..count(Mode::Memory, 1, 0) }).free_at(), None);
    }
}
