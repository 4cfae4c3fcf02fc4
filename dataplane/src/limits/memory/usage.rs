//! How full counts are, as this node knows them.

use std::sync::atomic::Ordering::Relaxed;

use super::key::Owner;
use super::{Count, Memory, length};
use crate::limits::window::Micros;

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
    /// Of counts that nodes share: by all of them, as Redis last said.
    pub used: u64,
    /// Refusals since it was last asked.
    pub refused: u64,
    /// Microseconds until some of it is free again.
    pub reset: Micros,
    pub mode: Mode,
}

impl Memory {
    /// The fullest, by how much is used; refusals are counted anew from here on.
    pub fn usage(&self, most: usize, now: Micros) -> Vec<Usage> {
        let mut all = Vec::new();
        self.each(|count| count.describe(now, &mut all));
        all.sort_unstable_by_key(|usage| std::cmp::Reverse((usage.refused, usage.used)));
        all.truncate(most);
        all
    }
}

impl Count {
    fn describe(&mut self, now: Micros, into: &mut Vec<Usage>) {
        let key = &self.key;
        let caller = match &key.caller {
            None => String::new(),
            Some(Owner::Subject(subject)) => subject.to_string(),
            Some(Owner::Address(address)) => address.to_string(),
        };
        let usage = Usage {
            org: key.org.to_string(),
            limit: key.limit.to_string(),
            caller,
            server: key.server.as_deref().unwrap_or_default().to_owned(),
            pattern: key.pattern.as_deref().unwrap_or_default().to_owned(),
            seconds: 0,
            used: 0,
            refused: std::mem::take(&mut self.refused),
            reset: 0,
            mode: Mode::Memory,
        };
        if let Some(in_flight) = &self.in_flight {
            into.push(Usage { used: in_flight.load(Relaxed).into(), ..usage.clone() });
        }
        for kept in &mut self.windows {
            let own = kept.counter.standing(&length(kept.seconds), u64::MAX, 0, now);
            let (used, reset, mode) = match &kept.held {
                None => (own.used, own.reset, Mode::Memory),
                Some(held) => held.usage(own, kept.seconds, now),
            };
            into.push(Usage { seconds: kept.seconds, used, reset, mode, ..usage.clone() });
        }
    }
}
