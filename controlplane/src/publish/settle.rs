//! When a list that many things change at once is worth sending: a fleet that comes back must not cause as many lists as it has nodes.
//! Pure, over moments that are given. Called by [`super::publisher`] for the addresses of a pool's nodes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    mem,
    time::{Duration, Instant},
};

use mcp_gateway::proto::config::v1::Peer;

use crate::store::publish::Voids;

/// A list that did not change for this long is sent,
const QUIET: Duration = Duration::from_secs(2);
/// and one that never comes to rest after this long.
const MOST: Duration = Duration::from_secs(15);

/// The addresses of nodes that were sent last, by pool.
#[derive(Debug, Default)]
pub struct Settled {
    pools: BTreeMap<String, Settling<Vec<Peer>>>,
}

impl Settled {
    /// Puts what is to be sent in the place of what was found.
    pub fn settle(&mut self, voids: &mut Voids, now: Instant) {
        let mut found = mem::take(&mut voids.peers);
        self.pools.retain(|pool, _| voids.pools.contains(pool));
        for pool in &voids.pools {
            let found = found.remove(pool).unwrap_or_default();
            let send = match self.pools.entry(pool.clone()) {
                Entry::Vacant(entry) => &entry.insert(Settling::new(found)).sent,
                Entry::Occupied(entry) => entry.into_mut().found(found, now),
            };
            voids.peers.insert(pool.clone(), send.clone());
        }
    }
}

/// What was sent last, and what it has become since.
#[derive(Debug)]
struct Settling<T> {
    sent: T,
    unsent: Option<Unsent<T>>,
}

#[derive(Debug)]
struct Unsent<T> {
    value: T,
    since: Instant,
    changed: Instant,
}

impl<T: PartialEq> Settling<T> {
    /// The first list is sent as it is.
    fn new(first: T) -> Self {
        Self { sent: first, unsent: None }
    }

    /// Takes what was found, and returns what to send.
    fn found(&mut self, value: T, now: Instant) -> &T {
        if value == self.sent {
            self.unsent = None;
            return &self.sent;
        }
        let unsent = match self.unsent.take() {
            None => Unsent { value, since: now, changed: now },
            Some(unsent) if unsent.value == value => unsent,
            Some(unsent) => Unsent { value, changed: now, ..unsent },
        };
        let ripe = now.saturating_duration_since(unsent.changed) >= QUIET || now.saturating_duration_since(unsent.since) >= MOST;
        if ripe {
            drop(mem::replace(&mut self.sent, unsent.value));
        } else {
            self.unsent = Some(unsent);
        }
        &self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent at each second, of what is found then.
    fn sent(found: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let start = Instant::now();
        let mut settling = Settling::new(0);
        (0..).zip(found).map(|(second, value)| *settling.found(value, start + Duration::from_secs(second))).collect()
    }

    #[test]
    fn a_change_is_sent_when_it_has_come_to_rest() {
        assert_eq!(sent([0, 1, 1, 1, 1]), [0, 0, 0, 1, 1]);
        assert_eq!(sent([1, 2, 3, 3, 3, 3]), [0, 0, 0, 0, 3, 3]);
    }

    #[test]
    fn what_changes_back_was_never_sent() {
        assert_eq!(sent([0, 1, 0, 1, 0, 0, 0, 0]), [0; 8]);
    }

    #[test]
    fn a_fleet_that_comes_back_for_a_minute_causes_a_handful_of_lists() {
        let mut lists = sent((1..=60).chain([60; 5]));
        assert_eq!(lists.last(), Some(&60));
        lists.dedup();
        assert!(lists.len() <= 6, "{lists:?}");
    }
}
