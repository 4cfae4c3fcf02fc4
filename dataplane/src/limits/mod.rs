//! Counts against limits: how much of what may be used is used, and whether a call still fits.
//!
//! Knows nothing of requests, only of demands: a limit, and whose count of it. All demands of a call are met together, or none.
//! Counts are this node's own, in memory; or, where Redis is set up, those of all nodes that use it. In memory it never waits and
//! allocates nothing for a count that is known; where Redis has to be asked it waits no longer than the deadline.

mod memory;
mod shared;
mod stats;
mod usage;
mod window;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use mcp_gateway::snapshot::Limit;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use memory::Memory;
use shared::Shared;
pub use shared::{LinkError, Question};
pub use stats::{How, Stats};
pub use usage::{Mode, Usage};
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
    /// The counts that nodes share are out of reach, and the limit says that then nothing is admitted.
    Away,
}

/// What a call comes to, or what that takes.
#[derive(Debug)]
pub enum Decision {
    Now(Result<Admission, Refusal>),
    /// Redis has to be asked: see [`Limits::ask`].
    Ask(Box<Question>),
}

/// One place of a cap, given back when it is dropped.
#[derive(Debug)]
struct InFlight(Arc<AtomicU32>);

/// All counts of a node.
pub struct Limits {
    memory: Arc<Memory>,
    shared: Option<Shared>,
    stats: Arc<Stats>,
    clock: Clock,
}

/// Time that never goes back, far enough from 0 that no window reaches before it.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Limits {
    /// Counts for this node alone, at most `most_counts`.
    #[must_use]
    pub fn new(most_counts: usize) -> Self {
        Self::alone(most_counts, Arc::default())
    }

    /// As the settings say. Shared counts are out of reach until [`Limits::connect`].
    #[must_use]
    pub fn open(config: &Config, stats: Arc<Stats>) -> Self {
        let alone = Self::alone(config.limits.rate_counts, stats);
        if config.redis.url.is_empty() {
            alone.stats.counted_in("memory");
            return alone;
        }
        alone.stats.counted_in("redis");
        let shared = Shared::new(config.redis.clone(), alone.memory.clone(), alone.stats.clone(), alone.clock);
        Self { shared: Some(shared), ..alone }
    }

    fn alone(most_counts: usize, stats: Arc<Stats>) -> Self {
        Self { memory: Arc::new(Memory::new(most_counts)), shared: None, stats, clock: Clock(Instant::now()) }
    }

    /// Reaches for shared counts, once; that they are away is no error, settings that cannot be used are.
    pub async fn connect(&self) -> Result<(), LinkError> {
        let Some(shared) = &self.shared else {
            tracing::info!("redis.url is not set: every node counts limits for itself, so n nodes admit up to n times a limit");
            return Ok(());
        };
        shared.connect().await
    }

    /// Keeps shared counts in reach until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        match &self.shared {
            Some(shared) => shared.keep(stop).await,
            None => stop.cancelled().await,
        }
    }

    /// So many nodes of the pool are alive, this one included; 0: nobody knows.
    pub fn live_nodes(&self, nodes: u32) {
        self.shared.iter().for_each(|shared| shared.live_nodes(nodes));
    }

    /// Takes what all of `demands` ask for, or nothing; or says that Redis has to be asked.
    pub fn admit(&self, demands: &[Demand<'_>]) -> Decision {
        if let Some(shared) = &self.shared {
            return shared.begin(demands, self.clock.now());
        }
        let decided = self.memory.admit(demands, self.clock.now());
        self.stats.decided(How::Memory, decided.is_ok());
        Decision::Now(decided)
    }

    /// Has Redis decide, or decides without it when the deadline has passed.
    pub async fn ask(&self, question: Box<Question>) -> Result<Admission, Refusal> {
        let shared = self.shared.as_ref().expect("only shared counts have questions");
        // Most calls never come here and should not carry it.
        Box::pin(shared.ask(question)).await
    }

    /// The fullest counts, at most `most`.
    #[must_use]
    pub fn usage(&self, most: usize) -> Vec<Usage> {
        self.memory.usage(most, self.clock.now())
    }

    /// How many counts are kept.
    #[must_use]
    pub fn counts(&self) -> usize {
        self.memory.counts()
    }
}

impl Clock {
    fn now(self) -> Micros {
        const START: Micros = 100 * 24 * 3600 * 1_000_000;
        START + u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX / 2)
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
