//! How full counts are, for people: of many counts the fullest, found without describing the others.
//!
//! Decides nothing. Filled by the counts, read by the node's reports.

use super::Micros;

/// Where a count is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// By this node, for itself.
    Memory,
    /// In Redis, call by call.
    Redis,
    /// In Redis, ahead of calls.
    Lease,
    /// By this node, as its share of what it cannot ask Redis for.
    Share,
}

impl Mode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Lease => "lease",
            Self::Share => "share",
        }
    }
}

/// How full one window of a count is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The organisation's id.
    pub org: String,
    /// The limit's id.
    pub limit: String,
    /// A subject or an address; empty where callers share the count.
    pub caller: String,
    /// The server's id; empty where servers share the count.
    pub server: String,
    pub pattern: String,
    /// The window's length; 0: what is in flight.
    pub seconds: u64,
    /// How much is admitted, as of the last decision.
    pub admits: u64,
    /// Of counts that nodes share: by all of them, as Redis last said.
    pub used: u64,
    /// Refusals since the count was last unused.
    pub refused: u64,
    /// Microseconds until some of it is free again.
    pub reset: Micros,
    /// Where it is counted.
    pub mode: Mode,
}

/// The fullest of what is offered.
pub(super) struct Fullest {
    most: usize,
    found: Vec<(Rank, Usage)>,
    /// What is less full is not among the fullest.
    floor: Rank,
}

/// By the part that is used, in millionths, then by refusals.
type Rank = (u64, u64);

/// What is known before anything is described.
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub used: u64,
    pub admits: u64,
    pub refused: u64,
}

impl Fullest {
    /// At most `most`.
    pub fn new(most: usize) -> Self {
        Self { most, found: Vec::new(), floor: (0, 0) }
    }

    /// Takes what `describe` makes, if it is full enough. What nobody uses is not.
    pub fn offer(&mut self, level: Level, describe: impl FnOnce() -> Usage) {
        let part = u128::from(level.used) * 1_000_000 / u128::from(level.admits.max(1));
        let rank = (u64::try_from(part).unwrap_or(u64::MAX), level.refused);
        if (level.used, level.refused) == (0, 0) || rank < self.floor {
            return;
        }
        self.found.push((rank, describe()));
        if self.found.len() >= self.most.saturating_mul(4) {
            self.cut();
        }
    }

    /// The fullest first.
    pub fn into_usage(mut self) -> Vec<Usage> {
        self.cut();
        self.found.into_iter().map(|(_, usage)| usage).collect()
    }

    fn cut(&mut self) {
        self.found.sort_unstable_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        self.found.truncate(self.most);
        if self.found.len() == self.most {
            self.floor = self.found.last().map_or(self.floor, |(rank, _)| *rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(used: u64) -> Usage {
        Usage {
            org: String::new(),
            limit: String::new(),
            caller: String::new(),
            server: String::new(),
            pattern: String::new(),
            seconds: 60,
            admits: 1000,
            used,
            refused: 0,
            reset: 0,
            mode: Mode::Memory,
        }
    }

    #[test]
    fn of_many_the_fullest_are_found_and_the_others_not_even_described() {
        let (mut fullest, mut described) = (Fullest::new(3), 0);
        for used in (0..=1000).rev().chain([999]) {
            fullest.offer(Level { used, admits: 1000, refused: 0 }, || {
                described += 1;
                usage(used)
            });
        }
        let found: Vec<u64> = fullest.into_usage().iter().map(|it| it.used).collect();
        assert_eq!(found, [1000, 999, 999]);
        assert!(described < 20, "{described}");
    }

    #[test]
    fn full_is_what_has_no_room_whatever_the_numbers() {
        let mut fullest = Fullest::new(2);
        fullest.offer(Level { used: 9_000, admits: 10_000, refused: 0 }, || usage(9_000));
        fullest.offer(Level { used: 5, admits: 5, refused: 0 }, || usage(5));
        fullest.offer(Level { used: 0, admits: 5, refused: 0 }, || usage(0));
        let found: Vec<u64> = fullest.into_usage().iter().map(|it| it.used).collect();
        assert_eq!(found, [5, 9_000]);
    }
}
