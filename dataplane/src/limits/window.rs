//! The sliding window that every count is: the reference that the script for Redis is tested against.
//!
//! Conservative: the window is cut into buckets, and the oldest bucket that reaches into it counts whole. So in no period of the window's
//! length is more admitted than the limit, whoever times the calls; at most one part in 33 of a limit goes unused under steady load.
//! Pure: time comes in, and may go backwards.

use mcp_gateway::snapshot::Window;

/// How many buckets a window has.
pub const BUCKETS: u64 = 32;
/// A period of the window's length touches one bucket more than the window has.
const KEPT: usize = BUCKETS as usize + 1;

/// A moment in microseconds, on any clock that one count stays with.
pub type Micros = u64;

/// What was admitted lately, by bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// The bucket that time has reached; it never goes back.
    newest: u64,
    /// Of bucket `n` at place `n % KEPT`; of the buckets after `newest - KEPT`, the others are 0.
    counts: [u32; KEPT],
    /// Of all of them.
    sum: u64,
}

/// How a window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How much of the limit counts now.
    pub used: u64,
    /// Until what was asked for would fit, if nothing else were admitted; 0: it fits.
    pub wait: Micros,
    /// Until some of what is used is free again; 0: nothing is used.
    pub reset: Micros,
}

impl Default for Counter {
    fn default() -> Self {
        Self { newest: 0, counts: [0; KEPT], sum: 0 }
    }
}

/// The length of a bucket. Windows are whole seconds, so nothing is rounded.
pub fn bucket_length(window: &Window) -> Micros {
    window.length.as_secs() * (1_000_000 / BUCKETS)
}

impl Counter {
    /// How the window stands for `cost` more at `now`.
    pub fn standing(&mut self, window: &Window, limit: u64, cost: u32, now: Micros) -> Standing {
        let length = bucket_length(window);
        self.advance(now / length);
        let fits_below = limit.saturating_sub(u64::from(cost)); // what may be used at most
        let (mut used, mut wait, mut reset) = (self.sum, 0, 0);
        let first = (self.newest + 1).saturating_sub(KEPT as u64);
        for bucket in first..=self.newest {
            let count = self.counts[place(bucket)];
            if count == 0 {
                continue;
            }
            let gone_at = (bucket + KEPT as u64) * length;
            let until = gone_at.saturating_sub(now).max(1);
            if reset == 0 {
                reset = until;
            }
            if used <= fits_below {
                break;
            }
            used -= u64::from(count);
            wait = until;
        }
        if u64::from(cost) > limit {
            // Never: as long as it can be said.
            wait = wait.max(length * KEPT as u64);
        }
        Standing { used: self.sum, wait, reset }
    }

    /// Counts what was admitted at the moment of the last [`Counter::standing`].
    pub fn add(&mut self, cost: u32) {
        let count = &mut self.counts[place(self.newest)];
        *count = count.saturating_add(cost);
        self.sum = self.sum.saturating_add(u64::from(cost));
    }

    /// Whether nothing counts any more at `now`.
    pub fn is_idle(&self, window: &Window, now: Micros) -> bool {
        self.sum == 0 || now / bucket_length(window) >= self.newest + KEPT as u64
    }

    /// Moves on to `bucket`; a clock that went back stays where it was.
    fn advance(&mut self, bucket: u64) {
        if bucket >= self.newest + KEPT as u64 {
            (self.counts, self.sum) = ([0; KEPT], 0);
        } else {
            for passed in self.newest + 1..=bucket {
                self.sum -= u64::from(std::mem::take(&mut self.counts[place(passed)]));
            }
        }
        self.newest = self.newest.max(bucket);
    }
}

fn place(bucket: u64) -> usize {
    (bucket % KEPT as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn window(limit: u64, seconds: u64) -> Window {
        Window { limit, length: Duration::from_secs(seconds) }
    }

    fn admit(counter: &mut Counter, window: &Window, cost: u32, now: Micros) -> bool {
        let fits = counter.standing(window, window.limit, cost, now).wait == 0;
        if fits {
            counter.add(cost);
        }
        fits
    }

    /// The most that was admitted in any period of the window's length.
    fn worst(admitted: &[(Micros, u32)], window: &Window) -> u64 {
        let length = window.length.as_micros() as Micros;
        let within = |start: Micros| {
            admitted.iter().filter(|(at, _)| (start..start + length).contains(at)).map(|(_, cost)| u64::from(*cost)).sum()
        };
        admitted.iter().map(|(at, _)| within(*at)).max().unwrap_or(0)
    }

    /// The adversary that makes the usual two-bucket counter admit almost twice its limit: a burst at every phase, then a flood.
    #[test]
    fn whatever_the_phase_of_a_burst_no_window_admits_more_than_the_limit() {
        let window = window(100, 1);
        for phase in 0..200 {
            let (mut counter, mut admitted) = (Counter::default(), Vec::new());
            let burst = 5 * SECOND + phase * SECOND / 200;
            let flood = (0..4000).map(|step| burst + step * 1000);
            for now in std::iter::repeat_n(burst, 300).chain(flood) {
                if admit(&mut counter, &window, 1, now) {
                    admitted.push((now, 1));
                }
            }
            assert_eq!(worst(&admitted, &window), 100, "phase {phase}");
        }
    }

    #[test]
    fn a_steady_load_gets_all_but_one_part_in_thirty_three() {
        let (window, mut counter) = (window(100, 10), Counter::default());
        let admitted = (0..100_000).filter(|step| admit(&mut counter, &window, 1, step * 10_000)).count();
        let fair = 100_000 / 1000 * 100; // a thousand seconds, a hundred windows
        assert!(admitted as f64 >= fair as f64 * 0.96 && admitted <= fair + 100, "{admitted} of {fair}");
    }

    #[test]
    fn a_refusal_says_when_it_would_have_been_admitted() {
        let (window, mut counter) = (window(10, 60), Counter::default());
        for now in 0..10 {
            assert!(admit(&mut counter, &window, 1, now * SECOND));
        }
        let now = 30 * SECOND;
        let standing = counter.standing(&window, 10, 3, now);
        assert_eq!(standing.used, 10);
        assert!(!admit(&mut counter, &window, 3, now + standing.wait - 1));
        assert!(admit(&mut counter, &window, 3, now + standing.wait));
        assert!(standing.reset <= standing.wait && standing.reset > 0);
    }

    #[test]
    fn a_limit_that_changes_keeps_what_was_counted() {
        let (narrow, wide) = (window(10, 60), window(20, 60));
        let mut counter = Counter::default();
        (0..10).for_each(|_| assert!(admit(&mut counter, &narrow, 1, 0)));
        assert!((0..10).all(|_| admit(&mut counter, &wide, 1, 0)));
        assert!(!admit(&mut counter, &wide, 1, 0) && !admit(&mut counter, &narrow, 1, 0));
    }

    proptest! {
        #[test]
        fn no_trace_admits_more_than_the_limit_in_any_window(
            limit in 1..40_u64,
            seconds in 1..5_u64,
            steps in prop::collection::vec((0..900_000_u64, 1..4_u32, any::<bool>()), 1..300),
        ) {
            let (window, mut counter, mut now, mut admitted) = (window(limit, seconds), Counter::default(), 10 * SECOND, Vec::new());
            let mut latest = 0;
            for (pause, cost, back) in steps {
                // A clock that goes back now and then; what is admitted counts as of the latest moment that was known.
                now = if back { now.saturating_sub(pause / 2) } else { now + pause };
                latest = latest.max(now);
                if admit(&mut counter, &window, cost, now) {
                    admitted.push((latest, cost));
                }
            }
            prop_assert!(worst(&admitted, &window) <= limit);
        }
    }
}
