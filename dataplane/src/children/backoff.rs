//! When a server that keeps failing may be started again: full jitter, doubling, per server. Time and randomness are injected.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// A child that lived shorter than this has failed.
pub(super) const SHORT_LIFE: Duration = Duration::from_secs(10);
/// The wait after the first failure is drawn from up to this; each further one doubles it.
const BASE: Duration = Duration::from_millis(500);
/// No wait is drawn from more than this.
const CAP: Duration = Duration::from_mins(1);
/// However the dice fall, never a tight loop.
const FLOOR: Duration = Duration::from_millis(50);
/// Failures are forgotten when a server was left alone for this long after its wait.
const FORGET: Duration = Duration::from_mins(10);

/// See the module.
pub(super) struct Backoff {
    /// Gives numbers from 0 (inclusive) to 1 (exclusive).
    random: Box<dyn FnMut() -> f64 + Send>,
    failures: HashMap<Arc<str>, Failures>,
}

struct Failures {
    count: u32,
    until: Instant,
}

impl Backoff {
    pub(super) fn new(random: impl FnMut() -> f64 + Send + 'static) -> Self {
        Self { random: Box::new(random), failures: HashMap::new() }
    }

    /// Whether the server may be started, or from when on it may.
    pub(super) fn admit(&self, server: &str, now: Instant) -> Result<(), Instant> {
        match self.failures.get(server) {
            Some(failures) if now < failures.until => Err(failures.until),
            Some(_) | None => Ok(()),
        }
    }

    /// A child ended although nobody had asked it to.
    pub(super) fn ended(&mut self, server: &Arc<str>, lived: Duration, now: Instant) {
        if lived >= SHORT_LIFE {
            self.failures.remove(server);
            return;
        }
        self.failures.retain(|_, failures| now < failures.until + FORGET);
        let failures = self.failures.entry(server.clone()).or_insert(Failures { count: 0, until: now });
        let ceiling = BASE.saturating_mul(1 << failures.count.min(16)).min(CAP);
        failures.count = failures.count.saturating_add(1);
        let wait = ceiling.mul_f64((self.random)().clamp(0.0, 1.0)).max(FLOOR);
        // Several children of a server may fail at once; none of them shortens the wait that another set.
        failures.until = failures.until.max(now + wait);
    }

    /// A child was asked to end; having lived long, it had shown that the server works.
    pub(super) fn stopped(&mut self, server: &str, lived: Duration) {
        if lived >= SHORT_LIFE {
            self.failures.remove(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn waits(random: f64, count: usize) -> Vec<u128> {
        let (mut backoff, server, mut now) = (Backoff::new(move || random), Arc::from("s"), Instant::now());
        let wait = |_| {
            backoff.ended(&server, SOON, now);
            let until = backoff.admit("s", now).unwrap_err();
            let wait = until - now;
            now = until;
            assert!(backoff.admit("s", now).is_ok());
            wait.as_millis()
        };
        (0..count).map(wait).collect()
    }

    #[test]
    fn waits_are_drawn_from_a_doubling_range_with_a_cap_and_a_floor() {
        assert_eq!(waits(1.0, 9), [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(waits(0.5, 3), [250, 500, 1000]);
        assert_eq!(waits(0.0, 3), [50, 50, 50]);
    }

    #[test]
    fn a_long_life_makes_everything_good_and_other_servers_are_not_held_up() {
        let (mut backoff, server, now) = (Backoff::new(|| 1.0), Arc::from("s"), Instant::now());
        backoff.ended(&server, SOON, now);
        assert!(backoff.admit("other", now).is_ok());
        backoff.stopped("s", SOON);
        assert_eq!(backoff.admit("s", now), Err(now + BASE));
        backoff.stopped("s", SHORT_LIFE);
        assert!(backoff.admit("s", now).is_ok());
        backoff.ended(&server, SOON, now);
        backoff.ended(&server, SHORT_LIFE, now);
        assert!(backoff.admit("s", now).is_ok());
    }

    #[test]
    fn a_server_that_was_left_alone_is_forgotten() {
        let (mut backoff, now) = (Backoff::new(|| 1.0), Instant::now());
        backoff.ended(&Arc::from("s"), SOON, now);
        backoff.ended(&Arc::from("other"), SOON, now + BASE + FORGET);
        assert_eq!(backoff.failures.len(), 1);
    }
}
