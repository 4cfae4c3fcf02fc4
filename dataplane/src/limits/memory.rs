//! Counts in the memory of this node: sharded, bounded, and decided under the locks of the shards that a call touches, taken in order.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use mcp_gateway::snapshot::Window;
use smallvec::SmallVec;

use super::window::{Counter, Micros};
use super::{Admission, Caller, Demand, InFlight, Refusal, Room, Why};

#[cfg(test)]
mod tests;

const SHARDS: usize = 64;

/// See the module.
pub(super) struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    most_per_shard: usize,
}

#[derive(Default)]
struct Shard {
    counts: HashTable<Count>,
}

/// One count of one limit.
struct Count {
    hash: u64,
    key: Key,
    /// By the length of their window in seconds.
    windows: SmallVec<[(u64, Counter); 1]>,
    in_flight: Option<Arc<AtomicU32>>,
    last_used: Micros,
    refused: u64,
}

/// What a count is found by, and shown as.
struct Key {
    org: Box<str>,
    limit: Box<str>,
    caller: Option<Owner>,
    server: Option<Box<str>>,
    pattern: Option<Box<str>>,
}

enum Owner {
    Subject(Box<str>),
    Address(IpAddr),
}

/// How full one window of a count is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub org: String,
    /// The limit's id.
    pub limit: String,
    /// A subject or an address; empty where callers share the count.
    pub caller: String,
    /// The server's slug; empty where servers share the count.
    pub server: String,
    pub pattern: String,
    /// The window's length; 0: what is in flight.
    pub seconds: u64,
    pub used: u64,
    /// Refusals since it was last asked.
    pub refused: u64,
    /// Microseconds until some of it is free again.
    pub reset: Micros,
}

type Guards<'a> = SmallVec<[(usize, MutexGuard<'a, Shard>); 4]>;

impl Memory {
    pub fn new(most_counts: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), most_per_shard: most_counts.div_ceil(SHARDS).max(1) }
    }

    pub fn admit(&self, demands: &[Demand<'_>], now: Micros) -> Result<Admission, Refusal> {
        if demands.is_empty() {
            return Ok(Admission::default());
        }
        let hashes: SmallVec<[u64; 8]> = demands.iter().map(|demand| self.hash(demand)).collect();
        let mut guards = self.lock(&hashes);
        let mut admission = Admission::default();
        let mut refusal: Option<(Micros, Refusal)> = None;
        for (number, (demand, hash)) in demands.iter().zip(&hashes).enumerate() {
            let shard = shard(&mut guards, *hash);
            let Some(count) = shard.count(demand, *hash, now, self.most_per_shard) else {
                return Err(Refusal { demand: number, why: Why::Crowded });
            };
            match count.check(demand, now) {
                Ok(room) => keep_tightest(&mut admission.tightest, room),
                Err((wait, why)) => {
                    if refusal.as_ref().is_none_or(|(longest, _)| wait > *longest) {
                        refusal = Some((wait, Refusal { demand: number, why }));
                    }
                }
            }
        }
        if let Some((_, refusal)) = refusal {
            let (demand, hash) = (&demands[refusal.demand], hashes[refusal.demand]);
            shard(&mut guards, hash).find(demand, hash).into_iter().for_each(|count| count.refused += 1);
            return Err(refusal);
        }
        for (demand, hash) in demands.iter().zip(&hashes) {
            let Some(count) = shard(&mut guards, *hash).find(demand, *hash) else { continue };
            count.take(demand, now, &mut admission.in_flight);
        }
        Ok(admission)
    }

    pub fn counts(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).counts.len()).sum()
    }

    /// The fullest, by how much is used; refusals are counted anew from here on.
    pub fn usage(&self, most: usize, now: Micros) -> Vec<Usage> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for count in &mut locked(shard).counts {
                count.describe(now, &mut all);
            }
        }
        all.sort_unstable_by_key(|usage| std::cmp::Reverse((usage.refused, usage.used)));
        all.truncate(most);
        all
    }

    fn hash(&self, demand: &Demand<'_>) -> u64 {
        self.hasher.hash_one((demand.org, &*demand.limit.id, demand.caller, demand.server, demand.pattern))
    }

    /// The shards of these counts, each once, in order: two calls never wait for each other.
    fn lock(&self, hashes: &[u64]) -> Guards<'_> {
        let mut numbers: SmallVec<[usize; 8]> = hashes.iter().map(|hash| shard_of(*hash)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| (number, locked(&self.shards[number]))).collect()
    }
}

fn shard_of(hash: u64) -> usize {
    // The table within takes its bits from the other end.
    (hash >> 32) as usize % SHARDS
}

fn shard<'g>(guards: &'g mut Guards<'_>, hash: u64) -> &'g mut Shard {
    let number = shard_of(hash);
    let found = guards.iter_mut().find(|(known, _)| *known == number);
    &mut found.expect("the shards of all demands are locked").1
}

impl Shard {
    fn find(&mut self, demand: &Demand<'_>, hash: u64) -> Option<&mut Count> {
        self.counts.find_mut(hash, |count| count.key.is(demand))
    }

    /// The demand's count, begun if it is new. None: there are too many, and nobody knows the caller.
    fn count(&mut self, demand: &Demand<'_>, hash: u64, now: Micros, most: usize) -> Option<&mut Count> {
        if self.counts.find(hash, |count| count.key.is(demand)).is_none() {
            if self.counts.len() >= most && !self.make_room(demand, now) {
                return None;
            }
            let count =
                Count { hash, key: Key::of(demand), windows: SmallVec::new(), in_flight: None, last_used: now, refused: 0 };
            self.counts.insert_unique(hash, count, |count| count.hash);
        }
        let count = self.find(demand, hash)?;
        count.last_used = now;
        Some(count)
    }

    /// Whether a new count may begin: idle ones go first; then, for a caller who is somebody, the one that was not used for longest.
    fn make_room(&mut self, demand: &Demand<'_>, now: Micros) -> bool {
        let before = self.counts.len();
        self.counts.retain(|count| !count.is_idle(now));
        if self.counts.len() < before {
            return true;
        }
        if matches!(demand.caller, Some(Caller::Address(_))) {
            return false;
        }
        let oldest = self.counts.iter().filter(|count| !count.holds_places()).map(|count| (count.last_used, count.hash)).min();
        let Some((last_used, hash)) = oldest else { return false };
        let found = self.counts.find_entry(hash, |count| count.last_used == last_used);
        found.map(|entry| drop(entry.remove())).is_ok()
    }
}

impl Count {
    /// How the tightest window would stand afterwards; or why it does not fit, and for how long not.
    fn check(&mut self, demand: &Demand<'_>, now: Micros) -> Result<Option<Room>, (Micros, Why)> {
        if let (Some(most), Some(in_flight)) = (demand.limit.max_concurrent, &self.in_flight)
            && in_flight.load(Relaxed) >= most
        {
            return Err((0, Why::InFlight { most }));
        }
        let (mut tightest, mut refusal) = (None, None::<(Micros, Why)>);
        for window in &demand.limit.windows {
            let standing = self.window(window).standing(window, window.limit, demand.cost, now);
            let spent = if standing.wait == 0 { u64::from(demand.cost) } else { 0 };
            let room = Room {
                name: demand.limit.name.clone(),
                limit: window.limit,
                length: window.length.as_secs(),
                remaining: window.limit.saturating_sub(standing.used + spent),
                reset: if standing.reset == 0 { 1_000_000 * window.length.as_secs() } else { standing.reset },
            };
            if standing.wait == 0 {
                keep_tightest(&mut tightest, Some(room));
            } else if refusal.as_ref().is_none_or(|(longest, _)| standing.wait > *longest) {
                refusal = Some((standing.wait, Why::Window { room, wait: standing.wait }));
            }
        }
        refusal.map_or(Ok(tightest), Err)
    }

    /// Counts what was just checked.
    fn take(&mut self, demand: &Demand<'_>, now: Micros, places: &mut SmallVec<[InFlight; 1]>) {
        for window in &demand.limit.windows {
            let counter = self.window(window);
            // Twice the same count in one call: the second asks what the first left.
            let _ = counter.standing(window, window.limit, demand.cost, now);
            counter.add(demand.cost);
        }
        if demand.limit.max_concurrent.is_some() {
            let in_flight = self.in_flight.get_or_insert_default();
            in_flight.fetch_add(1, Relaxed);
            places.push(InFlight(in_flight.clone()));
        }
    }

    fn window(&mut self, window: &Window) -> &mut Counter {
        let seconds = window.length.as_secs();
        let place = self.windows.iter().position(|(length, _)| *length == seconds).unwrap_or_else(|| {
            self.windows.push((seconds, Counter::default()));
            self.windows.len() - 1
        });
        &mut self.windows[place].1
    }

    fn holds_places(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.load(Relaxed) > 0)
    }

    fn is_idle(&self, now: Micros) -> bool {
        let idle = |(seconds, counter): &(u64, Counter)| counter.is_idle(&length(*seconds), now);
        !self.holds_places() && self.windows.iter().all(idle)
    }

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
        };
        if let Some(in_flight) = &self.in_flight {
            into.push(Usage { used: in_flight.load(Relaxed).into(), ..usage.clone() });
        }
        for (seconds, counter) in &mut self.windows {
            let standing = counter.standing(&length(*seconds), u64::MAX, 0, now);
            into.push(Usage { seconds: *seconds, used: standing.used, reset: standing.reset, ..usage.clone() });
        }
    }
}

/// A window of this length; its limit is another's business.
fn length(seconds: u64) -> Window {
    Window { limit: u64::MAX, length: std::time::Duration::from_secs(seconds) }
}

fn keep_tightest(tightest: &mut Option<Room>, room: Option<Room>) {
    // Compared as fractions without dividing.
    let left = |room: &Room| (u128::from(room.remaining), u128::from(room.limit));
    let tighter = |new: &Room, old: &Room| left(new).0 * left(old).1 < left(old).0 * left(new).1;
    if let Some(room) = room
        && tightest.as_ref().is_none_or(|known| tighter(&room, known))
    {
        *tightest = Some(room);
    }
}

impl Key {
    fn of(demand: &Demand<'_>) -> Self {
        Self {
            org: demand.org.into(),
            limit: (&*demand.limit.id).into(),
            caller: demand.caller.map(|caller| match caller {
                Caller::Subject(subject) => Owner::Subject(subject.into()),
                Caller::Address(address) => Owner::Address(address),
            }),
            server: demand.server.map(Into::into),
            pattern: demand.pattern.map(Into::into),
        }
    }

    fn is(&self, demand: &Demand<'_>) -> bool {
        let caller = match (&self.caller, demand.caller) {
            (None, None) => true,
            (Some(Owner::Subject(own)), Some(Caller::Subject(other))) => **own == *other,
            (Some(Owner::Address(own)), Some(Caller::Address(other))) => *own == other,
            (Some(_) | None, Some(_) | None) => false,
        };
        caller
            && *self.limit == *demand.limit.id
            && *self.org == *demand.org
            && self.server.as_deref() == demand.server
            && self.pattern.as_deref() == demand.pattern
    }
}

/// A panic elsewhere leaves counts whole, so the lock is good.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
