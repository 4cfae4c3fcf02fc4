//! Which nodes take part in a step: the same choice for the same rollout and nodes, spread evenly over rollouts.
//!
//! Chosen once per step, when the step begins, and written down: nodes that come, go or change labels later change nothing until the next one.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Share;
use crate::domain::ids;

/// A node that a rollout may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eligible {
    pub id: Uuid,
    pub connected: bool,
}

/// The nodes of a step: those that take part already, then others until there are enough, connected ones first. Nobody is ever taken out:
/// a node that has begun stays until the rollout ends. At least one, if there is any.
pub fn choose(rollout: Uuid, eligible: &[Eligible], already: &BTreeSet<Uuid>, share: Share) -> BTreeSet<Uuid> {
    let mut others: Vec<&Eligible> = eligible.iter().filter(|node| !already.contains(&node.id)).collect();
    others.sort_by_cached_key(|node| (!node.connected, rank(rollout, node.id)));
    let wanted = size(share, eligible.len());
    let here = eligible.len() - others.len();
    let joining = others.into_iter().take(wanted.saturating_sub(here)).map(|node| node.id);
    already.iter().copied().chain(joining).collect()
}

fn size(share: Share, of: usize) -> usize {
    let wanted = match share {
        Share::Nodes(nodes) => usize::try_from(nodes).unwrap_or(usize::MAX),
        Share::Percent(percent) => (of * usize::try_from(percent).unwrap_or(100)).div_ceil(100),
    };
    wanted.clamp(1, of.max(1))
}

/// Another order for every rollout, so that not always the same node goes first.
fn rank(rollout: Uuid, node: Uuid) -> [u8; 32] {
    ids::sha256_of(&[rollout.as_bytes().as_slice(), node.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u128) -> Vec<Eligible> {
        (1..=count).map(|n| Eligible { id: Uuid::from_u128(n), connected: true }).collect()
    }

    fn chosen(rollout: u128, eligible: &[Eligible], share: Share) -> BTreeSet<Uuid> {
        choose(Uuid::from_u128(rollout), eligible, &BTreeSet::new(), share)
    }

    #[test]
    fn a_step_has_its_share_of_the_nodes_and_at_least_one() {
        for (of, share, expected) in [
            (3, Share::Nodes(1), 1),
            (3, Share::Nodes(0), 1),
            (3, Share::Nodes(9), 3),
            (3, Share::Percent(1), 1),
            (3, Share::Percent(34), 2),
            (3, Share::Percent(100), 3),
            (100, Share::Percent(10), 10),
            (0, Share::Percent(100), 0),
        ] {
            assert_eq!(chosen(7, &nodes(of), share).len(), expected, "{share:?} of {of}");
        }
    }

    #[test]
    fn the_choice_is_the_same_whatever_the_order_and_another_for_another_rollout() {
        let forward = nodes(50);
        let backward: Vec<Eligible> = forward.iter().rev().copied().collect();
        assert_eq!(chosen(1, &forward, Share::Percent(20)), chosen(1, &backward, Share::Percent(20)));
        assert_ne!(chosen(1, &forward, Share::Percent(20)), chosen(2, &forward, Share::Percent(20)));
    }

    #[test]
    fn whoever_takes_part_stays_and_a_step_only_adds() {
        let eligible = nodes(20);
        let mut before = BTreeSet::new();
        for share in [Share::Nodes(1), Share::Percent(10), Share::Percent(50), Share::Nodes(1), Share::Percent(100)] {
            let now = choose(Uuid::from_u128(3), &eligible, &before, share);
            assert!(now.is_superset(&before), "{share:?}");
            before = now;
        }
        assert_eq!(before.len(), 20);
        let fewer = choose(Uuid::from_u128(3), &eligible[..2], &before, Share::Nodes(1));
        assert_eq!(fewer, before, "labels may have changed meanwhile");
    }

    #[test]
    fn connected_nodes_go_first() {
        let mut eligible = nodes(10);
        eligible.iter_mut().for_each(|node| node.connected = node.id.as_u128() > 8);
        let first = chosen(5, &eligible, Share::Nodes(2));
        assert!(first.iter().all(|id| id.as_u128() > 8), "{first:?}");
    }
}
