//! Tokens that a node has taken from a count in Redis ahead of the calls that spend them. Pure.
//!
//! Taken when they are leased, they cannot be spent twice; spent within one bucket, for which the script counts them one bucket longer.
//! What is not spent by then is lost to everybody until the window has passed: so few are taken at a time.

use mcp_gateway::snapshot::Window;

use crate::limits::window::{Micros, bucket_length};

/// Fewer checks a second than this are asked for one by one.
const HOT: u64 = 50;
/// For how long tokens should last; half a bucket, where that is less: they end with the bucket.
const SPAN: Micros = 100_000;
/// All nodes together hold at most one in so many of a limit.
const PART: u64 = 8;
/// How often the rate is taken.
const PERIOD: Micros = 200_000;
/// An answer that took longer than this does not come.
const LONGEST: Micros = 2_000_000;

/// What a node holds of one window of a count.
#[derive(Debug, Default)]
pub(in crate::limits) struct Lease {
    /// Tokens, and until when they may be spent; the older first.
    grants: [(u32, Micros); 2],
    /// When more were asked for, while that is not answered.
    asked: Option<Micros>,
    since: Micros,
    checks: u32,
    per_second: u64,
}

impl Lease {
    /// A call asks for room here.
    pub fn check(&mut self, now: Micros) {
        let passed = now.saturating_sub(self.since);
        if passed >= PERIOD {
            self.per_second = u64::from(self.checks) * 1_000_000 / passed;
            (self.since, self.checks) = (now, 0);
        }
        self.checks = self.checks.saturating_add(1);
    }

    /// How many may be spent now.
    pub fn tokens(&self, now: Micros) -> u32 {
        self.grants.iter().filter(|(_, until)| now < *until).map(|(tokens, _)| tokens).sum()
    }

    /// Spends what [`Lease::tokens`] said is there.
    pub fn spend(&mut self, cost: u32, now: Micros) {
        let mut left = cost;
        for (tokens, _) in self.grants.iter_mut().filter(|(_, until)| now < *until) {
            let taken = left.min(*tokens);
            *tokens -= taken;
            left -= taken;
        }
    }

    /// How many the node should hold, one of `nodes`; 0: none, each call asks.
    pub fn quota(&self, window: &Window, nodes: u32) -> u32 {
        let most = window.limit / (PART * u64::from(nodes.max(1)));
        if most == 0 || self.per_second <= HOT {
            return 0;
        }
        let needed = self.per_second * SPAN.min(bucket_length(window) / 2) / 1_000_000;
        u32::try_from(needed.clamp(1, most)).unwrap_or(u32::MAX)
    }

    /// How many to ask for; 0: enough, or the answer is awaited already.
    pub fn wish(&self, window: &Window, nodes: u32, now: Micros) -> u32 {
        let awaited = self.asked.is_some_and(|at| now < at + LONGEST);
        if awaited { 0 } else { self.quota(window, nodes).saturating_sub(self.tokens(now)) }
    }

    /// Whether they are about to run out.
    pub fn is_low(&self, window: &Window, nodes: u32, now: Micros) -> bool {
        self.tokens(now) <= self.quota(window, nodes) / 4
    }

    /// More are being asked for.
    pub fn asking(&mut self, now: Micros) {
        self.asked = Some(now);
    }

    /// They are not, after all.
    pub fn failed(&mut self) {
        self.asked = None;
    }

    /// What was asked for has come: so many, to be spent before `until`.
    pub fn granted(&mut self, tokens: u32, until: Micros) {
        self.asked = None;
        if tokens == 0 {
            return;
        }
        let [older, newer] = self.grants;
        // A third takes the place of the oldest: that is fewer tokens, never more.
        let kept = if newer.0 > 0 { newer } else { older };
        self.grants = [kept, (tokens, until)];
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Micros = 1_000_000_000;
    const WINDOW: Window = Window { limit: 8000, length: Duration::from_secs(60) };

    /// With a check every millisecond for a second.
    fn hot() -> Lease {
        let mut lease = Lease::default();
        (0..1000).for_each(|step| lease.check(NOW + step * 1000));
        lease
    }

    #[test]
    fn only_what_is_asked_often_and_is_large_enough_is_leased() {
        let lease = hot();
        assert_eq!(lease.quota(&WINDOW, 1), 100, "a tenth of a second's");
        assert_eq!(lease.quota(&WINDOW, 50), 20, "an eighth of the limit among all nodes");
        assert_eq!(lease.quota(&Window { limit: 7, ..WINDOW }, 1), 0);
        assert_eq!(lease.quota(&Window { length: Duration::from_secs(1), ..WINDOW }, 1), 15, "no more than half a bucket's");
        let mut slow = Lease::default();
        (0..50).for_each(|step| slow.check(NOW + step * 20_000));
        assert_eq!(slow.quota(&WINDOW, 1), 0);
    }

    #[test]
    fn tokens_are_spent_once_and_expire() {
        let mut lease = hot();
        lease.granted(10, NOW + 100);
        lease.spend(4, NOW);
        lease.granted(5, NOW + 200);
        assert_eq!(lease.tokens(NOW), 11);
        lease.spend(8, NOW);
        assert_eq!((lease.tokens(NOW), lease.tokens(NOW + 100), lease.tokens(NOW + 200)), (3, 3, 0), "the older first");
    }

    #[test]
    fn more_are_asked_for_once_at_a_time_and_never_beyond_the_quota() {
        let mut lease = hot();
        let now = NOW + 1_000_000;
        assert_eq!(lease.wish(&WINDOW, 1, now), 100);
        lease.asking(now);
        assert_eq!(lease.wish(&WINDOW, 1, now), 0);
        lease.granted(90, now + 10_000_000);
        lease.spend(70, now);
        assert!(lease.is_low(&WINDOW, 1, now));
        assert_eq!(lease.wish(&WINDOW, 1, now), 80);
        lease.asking(now);
        assert_eq!(lease.wish(&WINDOW, 1, now + LONGEST), 80, "an answer that never comes is given up");
    }
}
