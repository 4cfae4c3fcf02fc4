//! Random lives of a subscription, compared with what a node at the other end then holds.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A node that takes what it is sent, or refuses it.
struct Node {
    wildcard: bool,
    names: BTreeSet<String>,
    holds: BTreeMap<String, Arc<str>>,
    refused: BTreeMap<String, Arc<str>>,
}

impl Node {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn take(&mut self, subscription: &mut Subscription, delta: Delta, random: &mut StdRng) {
        for (name, encoded) in delta.resources {
            assert_ne!(self.refused.get(&*name), Some(&encoded.version), "{name} was refused and is sent again");
            if random.random_range(0..12) == 0 {
                subscription.refuse(&[(name.to_string(), Arc::clone(&encoded.version))]);
                self.refused.insert(name.to_string(), encoded.version);
            } else {
                self.holds.insert(name.to_string(), encoded.version);
            }
        }
        for name in delta.removed {
            self.holds.remove(&name);
        }
    }

    /// What it holds is what there is, as far as it wants it and did not refuse it.
    fn check(&self, current: &Resources, seed: u64) {
        for (name, encoded) in current.iter().filter(|(name, _)| self.wants(name)) {
            let refused = self.refused.get(&**name) == Some(&encoded.version);
            assert!(refused || self.holds.get(&**name) == Some(&encoded.version), "seed {seed}: {name} is missing or old");
        }
        let gone = self.holds.keys().find(|name| self.wants(name) && !current.contains_key(name.as_str()));
        assert!(gone.is_none_or(|name| self.refused.contains_key(name)), "seed {seed}: {gone:?} is gone and not told");
    }

    fn speak(&mut self, subscription: &mut Subscription, random: &mut StdRng) {
        let name = NAMES[random.random_range(0..NAMES.len())].to_owned();
        let star = WILDCARD.to_owned();
        let (subscribe, unsubscribe) = match random.random_range(0..8) {
            0 => (vec![star], vec![]),
            1 => (vec![], vec![star]),
            2 | 3 => (vec![], vec![name]),
            _ => (vec![name], vec![]),
        };
        subscription.change(&Change { subscribe: &subscribe, unsubscribe: &unsubscribe });
        for name in &unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
            } else {
                self.names.remove(name);
            }
        }
        for name in subscribe {
            if name == WILDCARD {
                self.wildcard = true;
                self.holds.clear(); // whoever asks for everything anew begins with nothing
            } else {
                self.names.insert(name);
            }
        }
        // What a node does not want any more it forgets; it may ask for it again, and is told then.
        let (wildcard, names) = (self.wildcard, &self.names);
        self.holds.retain(|name, _| wildcard || names.contains(name));
    }
}

fn some_resources(before: &Resources, random: &mut StdRng) -> Resources {
    let mut resources = before.clone();
    for _ in 0..random.random_range(0..4) {
        let name = NAMES[random.random_range(0..NAMES.len())];
        if random.random_range(0..4) == 0 {
            resources.remove(name);
        } else {
            resources.insert(name.into(), Encoded::new(vec![random.random_range(0..5); 10]));
        }
    }
    resources
}

#[test]
fn whatever_happens_a_node_ends_up_with_what_there_is() {
    for seed in 0..5000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut current = Arc::new(some_resources(&Resources::new(), &mut random));
        let mut node = Node { wildcard: true, names: BTreeSet::new(), holds: BTreeMap::new(), refused: BTreeMap::new() };
        let star = [WILDCARD.to_owned()];
        let change = Change { subscribe: &star, unsubscribe: &[] };
        let mut subscription = if random.random_range(0..2) == 0 {
            node.holds = current.iter().map(|(name, encoded)| (name.to_string(), Arc::clone(&encoded.version))).collect();
            Subscription::complete(&change, Some(&current))
        } else {
            Subscription::first(&change, [])
        };
        for _ in 0..30 {
            match random.random_range(0..6) {
                0 => node.speak(&mut subscription, &mut random),
                1 if random.random_range(0..5) == 0 => {
                    subscription.resync();
                    (node.refused, node.holds) = (BTreeMap::new(), BTreeMap::new());
                }
                _ => {
                    current = Arc::new(some_resources(&current, &mut random));
                    subscription.touch();
                }
            }
            // Not always to the end: newer content may come before the older was sent.
            for _ in 0..random.random_range(0..8) {
                let Some(delta) = subscription.next(&current, 300) else { break };
                node.take(&mut subscription, delta, &mut random);
            }
        }
        while let Some(delta) = subscription.next(&current, 300) {
            node.take(&mut subscription, delta, &mut random);
        }
        node.check(&current, seed);
        subscription.touch();
        assert_eq!(subscription.next(&current, 300), None, "seed {seed}: nothing is sent twice");
    }
}

#[test]
fn a_stream_that_is_up_to_date_lists_nothing_of_its_own() {
    let some = |count: u8| (0..count).map(|n| (n.to_string().into(), Encoded::new(vec![n]))).collect::<Resources>();
    let star = [WILDCARD.to_owned()];
    let mut subscription = Subscription::first(&Change { subscribe: &star, unsubscribe: &[] }, []);
    for count in [100, 99, 101] {
        let current = Arc::new(some(count));
        subscription.touch();
        while subscription.next(&current, 500).is_some() {}
        assert!(
            Arc::ptr_eq(&subscription.held.base, &current) && subscription.held.except.is_empty() && subscription.plan.is_none()
        );
    }
}
