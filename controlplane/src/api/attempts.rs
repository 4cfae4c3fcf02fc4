//! Sign-ins by the address that they come from: after too many that failed within a minute, no password from there is looked at.
//!
//! Bounded in number. Knows addresses as the listener saw them: behind a proxy all callers share one. Called by `auth`.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are told apart; all others share one count.
const MOST: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub struct Attempts {
    per_minute: usize,
    /// When those began that failed or are not over; none: of whoever there is no room for.
    begun: Mutex<HashMap<Option<IpAddr>, VecDeque<Instant>>>,
}

/// A sign-in that may go on. Dropped, it counts as failed.
#[derive(Debug)]
pub struct Attempt<'a> {
    attempts: &'a Attempts,
    whose: Option<IpAddr>,
    at: Instant,
}

impl Attempts {
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute.try_into().unwrap_or(usize::MAX), begun: Mutex::default() }
    }

    /// Lets a sign-in begin, or says after how long one may.
    pub fn begin(&self, address: &str, now: Instant) -> Result<Attempt<'_>, Duration> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whose = address.parse().ok().map(network);
        if begun.len() >= MOST && !begun.contains_key(&whose) {
            begun.retain(|_, times| times.back().is_some_and(|last| *last + WINDOW > now));
            if begun.len() >= MOST {
                whose = None;
            }
        }
        let times = begun.entry(whose).or_default();
        while times.front().is_some_and(|first| *first + WINDOW <= now) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= self.per_minute => Err(*first + WINDOW - now),
            Some(_) | None => {
                times.push_back(now);
                Ok(Attempt { attempts: self, whose, at: now })
            }
        }
    }
}

impl Attempt<'_> {
    /// It did not fail.
    pub fn succeeded(self) {
        let mut begun = self.attempts.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = begun.get_mut(&self.whose) {
            if let Some(place) = times.iter().position(|at| *at == self.at) {
                times.remove(place);
            }
            if times.is_empty() {
                begun.remove(&self.whose);
            }
        }
    }
}

/// Of IPv6 the first 64 bits: a network is one customer's.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        IpAddr::V4(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_may_fail_in_any_minute_and_success_counts_for_nothing() {
        let (attempts, start) = (Attempts::new(3), Instant::now());
        let begun = |address: &str, after: u64| {
            (0..10).filter(|_| attempts.begin(address, start + Duration::from_secs(after)).is_ok()).count()
        };
        for _ in 0..10 {
            attempts.begin("192.0.2.1", start).unwrap().succeeded();
        }
        assert_eq!((begun("192.0.2.1", 0), begun("192.0.2.2", 0), begun("192.0.2.1", 59)), (3, 3, 0));
        assert_eq!(attempts.begin("192.0.2.1", start + Duration::from_secs(20)).unwrap_err(), Duration::from_secs(40));
        assert_eq!(begun("192.0.2.1", 60), 3);
        assert_eq!((begun("2001:db8:0:1::1", 0), begun("2001:db8:0:1:9::2", 0), begun("2001:db8:0:2::1", 0)), (3, 0, 3));
    }

    #[test]
    fn those_that_there_is_no_room_for_share_one_count() {
        let (attempts, now) = (Attempts::new(3), Instant::now());
        let address = |n: u32| IpAddr::from(n.to_be_bytes()).to_string();
        let begun = (0..20_000).filter(|n| attempts.begin(&address(*n), now).is_ok()).count();
        assert_eq!(begun, MOST + 3);
        assert!(attempts.begin(&address(30_000), now + WINDOW).is_ok(), "old ones make room");
    }
}
