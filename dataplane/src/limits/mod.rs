//! Counts against limits: how much of what may be used is used, and whether a call still fits.
//!
//! Knows nothing of requests, only of demands: a limit, and whose count of it. All demands of a call are met together, or none.
//! Never waits and allocates nothing for a count that is known.

mod memory;
pub mod shared;
mod window;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use mcp_gateway::snapshot::Limit;
use smallvec::SmallVec;

use memory::Memory;
pub use memory::Usage;
pub use window::{Counter, Micros, Standing, bucket_length};

/// What a call asks of one limit: room in one of its counts.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The organisation's id.
    pub org: &'a str,
    pub limit: &'a Limit,
    /// How much the call counts in the limit's windows.
    pub cost: u32,
    /// Whose count, where callers have their own.
    pub caller: Option<Caller<'a>>,
    /// Which server's, where servers have their own.
    pub server: Option<&'a str>,
    /// Which endpoint's, where endpoints have their own: the pattern that matched.
    pub pattern: Option<&'a str>,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller<'a> {
    /// A principal, however many credentials it has.
    Subject(&'a str),
    /// Whoever is at this address; of IPv6 the first 64 bits ([`network`]).
    Address(IpAddr),
}

/// That everything fitted. Dropped, it gives back what was in flight.
#[derive(Debug, Default)]
#[must_use]
pub struct Admission {
    /// The window with the least room left, for the answer's headers.
    pub tightest: Option<Room>,
    in_flight: SmallVec<[InFlight; 1]>,
}

/// How a limit's window stands after a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The limit's name.
    pub name: Arc<str>,
    pub limit: u64,
    /// Seconds.
    pub length: u64,
    pub remaining: u64,
    /// Until more is free, in microseconds.
    pub reset: Micros,
}

/// That something did not fit; nothing was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which demand; where several did not fit, the one that takes longest.
    pub demand: usize,
    pub why: Why,
}

/// What did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A window is used up; more may be asked for after so many microseconds.
    Window { room: Room, wait: Micros },
    /// As much as allowed is in flight.
    InFlight { most: u32 },
    /// There are too many counts already to begin one for a caller whom nobody knows.
    Crowded,
}

/// One place of a cap, given back when it is dropped.
#[derive(Debug)]
struct InFlight(Arc<AtomicU32>);

/// All counts of a node.
pub struct Limits {
    memory: Memory,
    began: Instant,
}

impl Limits {
    /// Keeps at most `most_counts`.
    #[must_use]
    pub fn new(most_counts: usize) -> Self {
        Self { memory: Memory::new(most_counts), began: Instant::now() }
    }

    /// Takes what all of `demands` ask for, or nothing.
    pub fn admit(&self, demands: &[Demand<'_>]) -> Result<Admission, Refusal> {
        self.memory.admit(demands, self.now())
    }

    /// The fullest counts, at most `most`.
    #[must_use]
    pub fn usage(&self, most: usize) -> Vec<Usage> {
        self.memory.usage(most, self.now())
    }

    /// How many counts are kept.
    #[must_use]
    pub fn counts(&self) -> usize {
        self.memory.counts()
    }

    /// On a clock that never goes back, far enough from 0 that no window reaches before it.
    fn now(&self) -> Micros {
        const START: Micros = 100 * 24 * 3600 * 1_000_000;
        START + u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX / 2)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What callers at `address` are counted by: an IPv6 network of 64 bits is one customer's.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}
