//! How many of something may begin per second: a token bucket over a clock that is given.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// See the module.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// A second's worth may begin at once.
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, state: Mutex::new(State { tokens: per_second, at: now }) }
    }

    /// Lets one begin, or says after how long one may.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(state.at).as_secs_f64() * self.per_second;
        state.tokens = (state.tokens + earned).min(self.per_second);
        state.at = state.at.max(now);
        if state.tokens >= 1.0 {
            state.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - state.tokens) / self.per_second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_pace_begin() {
        let start = Instant::now();
        let pace = Pace::new(10, start);
        let admitted = |at: Duration| (0..100).filter(|_| pace.admit(start + at).is_ok()).count();
        assert_eq!(admitted(Duration::ZERO), 10);
        assert_eq!(pace.admit(start), Err(Duration::from_millis(100)));
        assert_eq!(admitted(Duration::from_millis(250)), 2);
        assert_eq!(admitted(Duration::from_secs(60)), 10);
        assert_eq!(admitted(Duration::from_secs(30)), 0, "a clock that goes back earns nothing");
    }
}
