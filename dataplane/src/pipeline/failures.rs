//! What is refused lately, by whose fault: an address that offers credentials that do not hold, a principal that asks for what it may not
//! have. Local to the node, bounded in number, and never a reason to refuse what is allowed.
//!
//! Once an address has failed too often, no credential of it is looked at that has not held before: guesses get no answer, and whoever is
//! somebody behind the same address goes on.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mcp_gateway::snapshot::Window;

use super::denial::{AuthenticateDenial, Denial, LimitDenial, OperateDenial};
use super::trail::Trail;
use crate::limits::{Counter, Micros, network};

const SHARDS: usize = 64;
/// Addresses and principals that are told apart; all others share one count.
const MOST: usize = 16_384;
const WINDOW: Duration = Duration::from_mins(1);
/// Credentials that are known to have held; a newer one takes the place of an older one now and then.
const PROVED: usize = 8192;

/// See the module.
pub struct Failures {
    shards: [Mutex<HashMap<u64, Counter>>; SHARDS],
    /// Of those that there is no room for.
    others: Mutex<Counter>,
    hasher: RandomState,
    window: Window,
    most_per_shard: usize,
    began: Instant,
}

/// Secrets that were right lately, by a part of their hash. Lossy, lock-free: who is not found is checked like a stranger.
pub struct Proved(Box<[AtomicU64]>);

impl Failures {
    /// At most `per_minute` of each.
    pub fn new(per_minute: u32) -> Self {
        Self::bounded(per_minute, MOST)
    }

    fn bounded(per_minute: u32, most: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            others: Mutex::default(),
            hasher: RandomState::new(),
            window: Window { limit: per_minute.into(), length: WINDOW },
            most_per_shard: most.div_ceil(SHARDS),
            began: Instant::now(),
        }
    }

    /// Before a credential is looked at that has not held before; `proved` says whether it has, or that there is none to look at.
    pub fn admit(&self, address: IpAddr, proved: impl FnOnce() -> bool) -> Result<(), LimitDenial> {
        match self.wait(self.of_address(address), self.now()) {
            0 => Ok(()),
            _ if proved() => Ok(()),
            wait => Err(LimitDenial::Failures { wait }),
        }
    }

    /// Counts a refusal that is somebody's fault; one too many is answered as such, whatever it was.
    pub fn count(&self, denial: Denial, trail: &Trail) -> Denial {
        let whose = match &denial {
            // Its sender has proved who it is, and keeps asking for what was taken away.
            Denial::Authenticate(AuthenticateDenial::UnknownServer) => return denial,
            Denial::Authenticate(_) | Denial::Authorize(_) | Denial::Operate(OperateDenial::NotOperator) => self.whose(trail),
            Denial::Target(_)
            | Denial::Decode(_)
            | Denial::Limit(_)
            | Denial::Route(_)
            | Denial::Record(_)
            | Denial::Upstream(_)
            | Denial::Relay(_)
            | Denial::Operate(_)
            | Denial::Panicked => return denial,
        };
        match self.take(whose, self.now()) {
            0 => denial,
            wait => LimitDenial::Failures { wait }.into(),
        }
    }

    /// Whoever is somebody answers for itself, not for its neighbours behind the same address.
    fn whose(&self, trail: &Trail) -> u64 {
        match trail.sender() {
            Some(sender) => self.hasher.hash_one(sender),
            None => self.of_address(trail.address()),
        }
    }

    fn of_address(&self, address: IpAddr) -> u64 {
        self.hasher.hash_one(network(address))
    }

    /// Until there is room for one more; 0: there is.
    fn wait(&self, whose: u64, now: Micros) -> Micros {
        let standing = |counter: &mut Counter| counter.standing(&self.window, self.window.limit, 1, now).wait;
        let mut shard = self.shard(whose);
        let full = shard.len() >= self.most_per_shard;
        match shard.get_mut(&whose) {
            Some(counter) => standing(counter),
            None if full => standing(&mut locked(&self.others)),
            None => 0,
        }
    }

    /// Takes one, if there is room.
    fn take(&self, whose: u64, now: Micros) -> Micros {
        let take = |counter: &mut Counter| {
            let wait = counter.standing(&self.window, self.window.limit, 1, now).wait;
            if wait == 0 {
                counter.add(1);
            }
            wait
        };
        let mut shard = self.shard(whose);
        if shard.len() >= self.most_per_shard && !shard.contains_key(&whose) {
            shard.retain(|_, counter| !counter.is_idle(&self.window, now));
            if shard.len() >= self.most_per_shard {
                return take(&mut locked(&self.others));
            }
        }
        take(shard.entry(whose).or_default())
    }

    fn shard(&self, whose: u64) -> MutexGuard<'_, HashMap<u64, Counter>> {
        locked(&self.shards[(whose >> 32) as usize % SHARDS])
    }

    /// Far enough from 0 that the window never reaches before it.
    fn now(&self) -> Micros {
        const START: Micros = 3600 * 1_000_000;
        START + u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX / 2)
    }
}

impl Default for Proved {
    fn default() -> Self {
        Self((0..PROVED).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Proved {
    /// The secret with this hash was right.
    pub fn note(&self, hash: &[u8; 32]) {
        let (slot, mark) = self.place(hash);
        if slot.load(Relaxed) != mark {
            slot.store(mark, Relaxed);
        }
    }

    /// Whether the secret with this hash was right lately. It may not be any more: that is for others to see.
    pub fn knows(&self, hash: &[u8; 32]) -> bool {
        let (slot, mark) = self.place(hash);
        slot.load(Relaxed) == mark
    }

    fn place(&self, hash: &[u8; 32]) -> (&AtomicU64, u64) {
        let part = |from: usize| hash[from..from + 8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let slot = usize::try_from(part(0)).unwrap_or(usize::MAX) % self.0.len();
        (&self.0[slot], part(8) | 1) // an empty slot knows nobody
    }
}

/// A panic elsewhere leaves counts whole, so the lock is good.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;
    const NOW: Micros = 3600 * SECOND;

    #[test]
    fn each_has_its_own_window_and_gets_it_back() {
        let failures = Failures::bounded(3, 1000);
        let refused = |whose, now| (0..10).filter(|_| failures.take(whose, now) == 0).count();
        assert_eq!((refused(1, NOW), refused(2, NOW), refused(1, NOW + 30 * SECOND)), (3, 3, 0));
        assert!((58 * SECOND..=62 * SECOND).contains(&failures.wait(1, NOW)));
        assert_eq!((failures.wait(3, NOW), failures.wait(1, NOW + 63 * SECOND)), (0, 0));
    }

    #[test]
    fn those_that_there_is_no_room_for_share_one_count() {
        let failures = Failures::bounded(3, SHARDS);
        let mut counted: usize = (0..100_000).map(|whose| (0..2).filter(|_| failures.take(whose << 32, NOW) == 0).count()).sum();
        assert_eq!(counted, 2 * SHARDS + 3, "two of each that there is room for, and three of all others");
        assert!(failures.wait(99_999 << 32, NOW) > 0);
        counted = failures.shards.iter().map(|shard| locked(shard).len()).sum();
        assert_eq!(counted, SHARDS);
        assert_eq!(failures.take(99_999 << 32, NOW + 70 * SECOND), 0, "idle ones make room");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let failures = Failures::bounded(1, 1000);
        let of = |text: &str| failures.of_address(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn a_secret_that_was_right_is_known_and_no_other() {
        let proved = Proved::default();
        assert!(!proved.knows(&[0; 32]) && !proved.knows(&[7; 32]));
        proved.note(&[7; 32]);
        assert!(proved.knows(&[7; 32]) && !proved.knows(&[8; 32]));
    }
}
