//! Counts in the memory of this node: sharded, bounded, and decided under the locks of the shards that a call touches, taken in order.
//!
//! Where nodes share their counts, these are what this node itself admitted, and beside them what it knows of the shared ones.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashTable};
use mcp_gateway::snapshot::Window;
use smallvec::SmallVec;

use super::shared::Held;
use super::window::{Counter, Micros};
use super::{Admission, Caller, Demand, InFlight, Refusal, Room, Why};
use key::Key;

mod key;
#[cfg(test)]
mod tests;
mod usage;

const SHARDS: usize = 64;

/// See the module.
pub(super) struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: DefaultHashBuilder,
    most_per_shard: usize,
    serial: AtomicU64,
}

#[derive(Default)]
struct Shard {
    counts: HashTable<Count>,
}

/// Where a count is: it may be gone when it is looked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    hash: u64,
    /// No two counts ever have the same.
    serial: u64,
}

/// One count of one limit.
pub(super) struct Count {
    spot: Spot,
    key: Key,
    windows: SmallVec<[Kept; 1]>,
    in_flight: Option<Arc<AtomicU32>>,
    /// As the last decision had it.
    most_in_flight: u32,
    last_used: Micros,
    /// Since it was last unused.
    pub refused: u64,
}

/// One window of a count.
#[derive(Default)]
pub(super) struct Kept {
    /// The window's length.
    pub seconds: u64,
    /// How much is admitted, as of the last decision.
    admits: u64,
    /// What this node admitted.
    pub counter: Counter,
    /// What is known of the count that nodes share, if they do.
    pub held: Option<Box<Held>>,
}

/// The shards of some counts, locked.
pub(super) struct Locked<'a> {
    guards: SmallVec<[(usize, MutexGuard<'a, Shard>); 4]>,
    most_per_shard: usize,
    serial: &'a AtomicU64,
}

impl Memory {
    pub fn new(most_counts: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let most_per_shard = most_counts.div_ceil(SHARDS).max(1);
        Self { shards, hasher: DefaultHashBuilder::default(), most_per_shard, serial: AtomicU64::new(0) }
    }

    /// Decides by what this node admitted, and nothing else.
    pub fn admit(&self, demands: &[Demand<'_>], now: Micros) -> Result<Admission, Refusal> {
        if demands.is_empty() {
            return Ok(Admission::default());
        }
        let hashes = self.hashes(demands);
        let mut locked = self.lock(hashes.iter().copied());
        let mut admission = Admission::default();
        let mut refusal: Option<(Micros, Refusal)> = None;
        for (number, (demand, hash)) in demands.iter().zip(&hashes).enumerate() {
            let Some(count) = locked.count(demand, *hash, now) else {
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
            locked.find(demand, hash).into_iter().for_each(|count| count.refused += 1);
            return Err(refusal);
        }
        for (demand, hash) in demands.iter().zip(&hashes) {
            let Some(count) = locked.find(demand, *hash) else { continue };
            count.take(demand, now);
            count.take_place(demand, &mut admission.in_flight);
        }
        Ok(admission)
    }

    pub fn counts(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).counts.len()).sum()
    }

    /// Every count, shard by shard.
    pub fn each(&self, mut visit: impl FnMut(&mut Count)) {
        for shard in &self.shards {
            locked(shard).counts.iter_mut().for_each(&mut visit);
        }
    }

    pub fn hashes(&self, demands: &[Demand<'_>]) -> SmallVec<[u64; 8]> {
        let hash = |demand: &Demand<'_>| {
            self.hasher.hash_one((demand.org, &*demand.limit.id, demand.caller, demand.server, demand.pattern))
        };
        demands.iter().map(hash).collect()
    }

    /// The shards of these counts, each once, in order: two calls never wait for each other.
    pub fn lock(&self, hashes: impl Iterator<Item = u64>) -> Locked<'_> {
        let mut numbers: SmallVec<[usize; 8]> = hashes.map(shard_of).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let guards = numbers.into_iter().map(|number| (number, locked(&self.shards[number]))).collect();
        Locked { guards, most_per_shard: self.most_per_shard, serial: &self.serial }
    }

    /// The shards of these counts, as [`Memory::lock`].
    pub fn lock_spots(&self, spots: impl Iterator<Item = Spot>) -> Locked<'_> {
        self.lock(spots.map(|spot| spot.hash))
    }
}

fn shard_of(hash: u64) -> usize {
    // The table within takes its bits from the other end.
    (hash >> 32) as usize % SHARDS
}

impl Locked<'_> {
    fn shard(&mut self, hash: u64) -> &mut Shard {
        let number = shard_of(hash);
        let found = self.guards.iter_mut().find(|(known, _)| *known == number);
        &mut found.expect("the shards of all demands are locked").1
    }

    fn find(&mut self, demand: &Demand<'_>, hash: u64) -> Option<&mut Count> {
        self.shard(hash).counts.find_mut(hash, |count| count.key.is(demand))
    }

    /// The count that was at `spot`, if it still is.
    pub fn at(&mut self, spot: Spot) -> Option<&mut Count> {
        self.shard(spot.hash).counts.find_mut(spot.hash, |count| count.spot == spot)
    }

    /// The demand's count, begun if it is new. None: there are too many, and nobody knows the caller.
    pub fn count(&mut self, demand: &Demand<'_>, hash: u64, now: Micros) -> Option<&mut Count> {
        let (most, serial) = (self.most_per_shard, self.serial);
        let shard = self.shard(hash);
        if shard.counts.find(hash, |count| count.key.is(demand)).is_none() {
            if shard.counts.len() >= most && !shard.make_room(demand, now) {
                return None;
            }
            let spot = Spot { hash, serial: serial.fetch_add(1, Relaxed) };
            let (key, windows) = (Key::of(demand), SmallVec::new());
            let count = Count { spot, key, windows, in_flight: None, most_in_flight: 0, last_used: now, refused: 0 };
            shard.counts.insert_unique(hash, count, |count| count.spot.hash);
        }
        let count = self.find(demand, hash)?;
        count.last_used = now;
        Some(count)
    }
}

impl Shard {
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
        let oldest =
            self.counts.iter().filter(|count| !count.holds_places()).map(|count| (count.last_used, count.spot.hash)).min();
        let Some((last_used, hash)) = oldest else { return false };
        let found = self.counts.find_entry(hash, |count| count.last_used == last_used);
        found.map(|entry| drop(entry.remove())).is_ok()
    }
}

impl Count {
    pub fn spot(&self) -> Spot {
        self.spot
    }

    /// What it is called where nodes share it, but for the window.
    pub fn name(&self, prefix: &str) -> String {
        self.key.name(prefix)
    }

    /// Whether as much as allowed is in flight.
    pub fn is_full(&mut self, demand: &Demand<'_>) -> Option<Why> {
        self.most_in_flight = demand.limit.max_concurrent.unwrap_or_default();
        let (most, in_flight) = (demand.limit.max_concurrent?, self.in_flight.as_ref()?);
        (in_flight.load(Relaxed) >= most).then_some(Why::InFlight { most })
    }

    /// How the tightest window would stand afterwards; or why it does not fit, and for how long not.
    fn check(&mut self, demand: &Demand<'_>, now: Micros) -> Result<Option<Room>, (Micros, Why)> {
        if let Some(why) = self.is_full(demand) {
            return Err((0, why));
        }
        let (mut tightest, mut refusal) = (None, None::<(Micros, Why)>);
        for window in &demand.limit.windows {
            let standing = self.window(window).counter.standing(window, window.limit, demand.cost, now);
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
    fn take(&mut self, demand: &Demand<'_>, now: Micros) {
        for window in &demand.limit.windows {
            self.window(window).take(window, demand.cost, now);
        }
    }

    /// A place in flight, where the limit has a cap.
    pub fn take_place(&mut self, demand: &Demand<'_>, places: &mut SmallVec<[InFlight; 1]>) {
        if demand.limit.max_concurrent.is_some() {
            let in_flight = self.in_flight.get_or_insert_default();
            in_flight.fetch_add(1, Relaxed);
            places.push(InFlight(in_flight.clone()));
        }
    }

    pub fn window(&mut self, window: &Window) -> &mut Kept {
        let seconds = window.length.as_secs();
        let place = self.windows.iter().position(|kept| kept.seconds == seconds).unwrap_or_else(|| {
            self.windows.push(Kept { seconds, ..Kept::default() });
            self.windows.len() - 1
        });
        let kept = &mut self.windows[place];
        kept.admits = window.limit;
        kept
    }

    pub fn windows(&mut self) -> &mut [Kept] {
        &mut self.windows
    }

    fn holds_places(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.load(Relaxed) > 0)
    }

    fn is_idle(&self, now: Micros) -> bool {
        !self.holds_places() && self.windows.iter().all(|kept| kept.is_idle(now))
    }
}

impl Kept {
    /// Counts what was admitted.
    pub fn take(&mut self, window: &Window, cost: u32, now: Micros) {
        // Twice the same count in one call: the second asks what the first left.
        let _ = self.counter.standing(window, window.limit, cost, now);
        self.counter.add(cost);
    }

    /// How much this node admitted of what counts now.
    pub fn own(&mut self, now: Micros) -> u64 {
        self.counter.standing(&length(self.seconds), u64::MAX, 0, now).used
    }

    fn is_idle(&self, now: Micros) -> bool {
        self.counter.is_idle(&length(self.seconds), now) && self.held.as_ref().is_none_or(|held| held.is_idle(now))
    }
}

/// A window of this length; its limit is another's business.
pub(super) fn length(seconds: u64) -> Window {
    Window { limit: u64::MAX, length: std::time::Duration::from_secs(seconds) }
}

pub(super) fn keep_tightest(tightest: &mut Option<Room>, room: Option<Room>) {
    // Compared as fractions without dividing.
    let left = |room: &Room| (u128::from(room.remaining), u128::from(room.limit));
    let tighter = |new: &Room, old: &Room| left(new).0 * left(old).1 < left(old).0 * left(new).1;
    if let Some(room) = room
        && tightest.as_ref().is_none_or(|known| tighter(&room, known))
    {
        *tightest = Some(room);
    }
}

/// A panic elsewhere leaves counts whole, so the lock is good.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
