//! How long to wait before the next stream: full jitter, so that a fleet does not come back as a herd. Randomness is injected.

use std::time::Duration;

/// The first wait is drawn from up to this; each failure doubles it.
const BASE: Duration = Duration::from_millis(500);
/// No wait is drawn from more than this.
const CAP: Duration = Duration::from_secs(30);
/// A control plane that closed its streams in good order may be restarting: its whole fleet comes back over this long.
const SPREAD: Duration = Duration::from_secs(5);
/// However the dice fall, never a tight loop.
const FLOOR: Duration = Duration::from_millis(50);

/// Why there is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It could not be opened, or broke.
    Failed,
    /// The control plane ended it in good order.
    Closed,
    /// The control plane has too much to do; it may say for how long.
    Busy { retry_after: Option<Duration> },
    /// The control plane does not know the digest that stood for what this node holds.
    Unknown,
    /// This node ended it, to come back with fresh credentials.
    Renewed,
}

/// See the module.
pub struct Backoff {
    /// Gives numbers from 0 (inclusive) to 1 (exclusive).
    random: Box<dyn FnMut() -> f64 + Send + Sync>,
    failures: u32,
}

impl Backoff {
    pub fn new(random: impl FnMut() -> f64 + Send + Sync + 'static) -> Self {
        Self { random: Box::new(random), failures: 0 }
    }

    /// Something useful came over a stream: the next wait is short again. An open stream alone proves nothing.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next stream.
    pub fn next(&mut self, lost: Lost) -> Duration {
        let ceiling = match lost {
            Lost::Renewed => return FLOOR,
            // Nothing is wrong: the next stream states what this one left out.
            Lost::Unknown if self.failures == 0 => Duration::ZERO,
            Lost::Closed if self.failures == 0 => SPREAD,
            Lost::Failed | Lost::Closed | Lost::Unknown | Lost::Busy { .. } => {
                BASE.saturating_mul(1 << self.failures.min(16)).min(CAP)
            }
        };
        self.failures = self.failures.saturating_add(1);
        let drawn = ceiling.mul_f64((self.random)().clamp(0.0, 1.0)).max(FLOOR);
        match lost {
            // On top of what was asked for, else everybody who was turned away comes back at that very moment.
            Lost::Busy { retry_after: Some(least) } => least.min(CAP) + drawn,
            Lost::Failed | Lost::Closed | Lost::Unknown | Lost::Busy { retry_after: None } | Lost::Renewed => drawn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(lost: Lost, random: f64, count: usize) -> Vec<u64> {
        let mut backoff = Backoff::new(move || random);
        (0..count).map(|_| u64::try_from(backoff.next(lost).as_millis()).unwrap()).collect()
    }

    #[test]
    fn waits_are_drawn_from_a_doubling_range_with_a_cap_and_a_floor() {
        assert_eq!(waits(Lost::Failed, 1.0, 8), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(waits(Lost::Failed, 0.5, 3), [250, 500, 1000]);
        assert_eq!(waits(Lost::Failed, 0.0, 3), [50, 50, 50]);
        assert_eq!(waits(Lost::Closed, 1.0, 3), [5000, 1000, 2000]);
        assert_eq!(waits(Lost::Renewed, 1.0, 2), [50, 50]);
        assert_eq!(waits(Lost::Unknown, 1.0, 3), [50, 1000, 2000], "once is in order");
        let busy = Lost::Busy { retry_after: Some(Duration::from_secs(3)) };
        assert_eq!(waits(busy, 1.0, 2), [3500, 4000]);
    }

    #[test]
    fn only_something_received_makes_the_waits_short_again() {
        let mut backoff = Backoff::new(|| 1.0);
        backoff.next(Lost::Failed);
        assert_eq!(backoff.next(Lost::Failed), Duration::from_secs(1));
        backoff.succeeded();
        assert_eq!(backoff.next(Lost::Failed), BASE);
    }

    #[test]
    fn a_century_of_failures_does_not_overflow() {
        let mut backoff = Backoff::new(|| 1.0);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next(Lost::Failed), CAP);
    }
}
