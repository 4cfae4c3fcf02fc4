//! When to stop asking Redis: after errors in a row, or when half of what was asked failed. Pure: time comes in.

use crate::limits::window::Micros;

/// So many errors in a row are enough.
const STREAK: u32 = 5;
/// Of the last so many seconds.
const SECONDS: u64 = 5;
/// Fewer questions than this say nothing about how many fail.
const FEWEST: u32 = 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    streak: u32,
    /// By second: which, how many were answered, how many failed.
    seconds: [(u64, u32, u32); SECONDS as usize],
}

impl Breaker {
    pub fn answered(&mut self, now: Micros) {
        self.streak = 0;
        self.second(now).1 += 1;
    }

    /// Whether that was one too many.
    pub fn failed(&mut self, now: Micros) -> bool {
        self.streak += 1;
        self.second(now).2 += 1;
        let first = (now / 1_000_000 + 1).saturating_sub(SECONDS);
        let lately = self.seconds.iter().filter(|(second, _, _)| *second >= first);
        let (answered, failed) = lately.fold((0, 0), |sum, (_, answered, failed)| (sum.0 + answered, sum.1 + failed));
        self.streak >= STREAK || (answered + failed >= FEWEST && failed >= answered)
    }

    fn second(&mut self, now: Micros) -> &mut (u64, u32, u32) {
        let second = now / 1_000_000;
        let place = &mut self.seconds[(second % SECONDS) as usize];
        if place.0 != second {
            *place = (second, 0, 0);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn five_errors_in_a_row_are_enough_and_an_answer_between_them_is_not() {
        let mut breaker = Breaker::default();
        assert!((0..4).all(|step| !breaker.failed(step * 10 * SECOND)));
        breaker.answered(41 * SECOND);
        assert!((5..9).all(|step| !breaker.failed(step * 10 * SECOND)));
        assert!(breaker.failed(90 * SECOND));
    }

    #[test]
    fn half_of_ten_within_five_seconds_is_enough() {
        let mut breaker = Breaker::default();
        for step in 0..4 {
            breaker.answered(step * SECOND);
            assert!(!breaker.failed(step * SECOND));
        }
        breaker.answered(4 * SECOND);
        assert!(breaker.failed(4 * SECOND));
        // What is older counts no more.
        let mut breaker = Breaker::default();
        for step in 0..100 {
            breaker.answered(step * 2 * SECOND);
            assert!(!breaker.failed(step * 2 * SECOND), "{step}");
        }
    }
}
