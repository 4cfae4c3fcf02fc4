//! One resource type on one stream: what the node asked for, what it is known to hold, and what it is still owed.
//! Pure; the delta rules of the xDS protocol ("How the client specifies what resources to return") live here and nowhere else.
//! Called by [`super::machine`] only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::publish::scope::{Encoded, Resources};

/// More names than any node of ours asks for by name; a stream that wants more is not one of ours.
pub const MAX_NAMES: usize = 10_000;
/// Asks for everything of a type.
const WILDCARD: &str = "*";
/// What a resource costs on the wire beside its body and name: version, type URL, field headers.
const OVERHEAD: usize = 200;

/// What the node was last told about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// It has this version.
    Version(Arc<str>),
    /// It knows that there is none.
    Absent,
}

/// The part of a request that changes a subscription.
#[derive(Debug, Default)]
pub struct Change<'a> {
    pub subscribe: &'a [String],
    pub unsubscribe: &'a [String],
}

/// What to send next for a type.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub resources: Vec<(Arc<str>, Encoded)>,
    pub removed: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    held: BTreeMap<String, Held>,
    /// Names to answer even though nothing about them changed.
    owed: BTreeSet<String>,
    /// A wildcard is answered at least once, be it with nothing.
    first_owed: bool,
    /// Content that the node refused, by name: never sent again on this stream.
    refused: BTreeMap<String, Arc<str>>,
    dirty: bool,
}

impl Subscription {
    /// The first request of a type on a stream. `initial` is what the node says it holds, by name.
    /// An empty `subscribe` means everything here, and only here; both of `*` is a subscription to nothing.
    pub fn first<'a>(change: &Change<'_>, initial: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let held: BTreeMap<_, _> =
            initial.into_iter().map(|(name, version)| (name.to_owned(), Held::Version(version.into()))).collect();
        let mut this = Self { first_owed: held.is_empty(), held, dirty: true, ..Self::default() };
        if change.subscribe.is_empty() {
            this.wildcard = true;
        }
        for name in change.subscribe {
            if name == WILDCARD {
                this.wildcard = true;
            } else {
                this.names.insert(name.clone());
            }
        }
        this.unsubscribe(change.unsubscribe);
        this
    }

    /// As [`Self::first`], of a node that is known to hold everything there is, be it nothing.
    pub fn complete(change: &Change<'_>, current: Option<&Resources>) -> Self {
        let held = current.into_iter().flatten().map(|(name, encoded)| (&**name, &*encoded.version));
        Self { first_owed: false, ..Self::first(change, held) }
    }

    /// A later request of the type. What is asked for again is sent again: the node's way to resynchronise. Here `unsubscribe` comes
    /// first: whoever gives a name up and asks for it in one request asks for it anew.
    pub fn change(&mut self, change: &Change<'_>) {
        self.unsubscribe(change.unsubscribe);
        for name in change.subscribe {
            if name == WILDCARD {
                self.wildcard = true;
                self.first_owed = true;
                self.held.clear();
            } else {
                self.names.insert(name.clone());
                self.held.remove(name);
            }
            self.dirty = true;
        }
    }

    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == WILDCARD {
                self.wildcard = false;
                self.first_owed = false;
            } else {
                self.names.remove(name);
                if self.wildcard {
                    // The wildcard still covers it: the node is told what it is now.
                    self.owed.insert(name.clone());
                    self.dirty = true;
                }
            }
        }
        if !names.is_empty() {
            let Self { wildcard, names: wanted, held, owed, .. } = self;
            held.retain(|name, _| (*wildcard || wanted.contains(name)) && !owed.contains(name));
            owed.retain(|_| *wildcard);
        }
    }

    /// More names than a node of ours would ever use.
    pub fn is_excessive(&self) -> bool {
        self.names.len() > MAX_NAMES || self.owed.len() > MAX_NAMES || self.held.len() > MAX_NAMES * 10
    }

    /// The resources may have changed.
    pub fn touch(&mut self) {
        self.dirty = true;
    }

    /// Whether there may be something to send.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The node refused this content of these names: it does not hold it, and never gets it again here.
    pub fn refuse(&mut self, sent: &[(String, Arc<str>)]) {
        for (name, version) in sent {
            if self.held.get(name) == Some(&Held::Version(version.clone())) {
                self.held.remove(name);
            }
            self.refused.insert(name.clone(), version.clone());
        }
    }

    /// Everything is sent once more, refused or not.
    pub fn resync(&mut self) {
        self.refused.clear();
        self.held.clear();
        self.dirty = true;
    }

    /// What to send next, about `limit` bytes of it, and remembers that it was sent; nothing when the node is up to date.
    pub fn next(&mut self, current: &Resources, limit: usize) -> Option<Delta> {
        if !self.dirty {
            return None;
        }
        let delta = self.difference(current, limit);
        for (name, encoded) in &delta.resources {
            self.held.insert(name.to_string(), Held::Version(encoded.version.clone()));
            self.owed.remove(&**name);
        }
        for name in &delta.removed {
            self.owed.remove(name);
            if self.names.contains(name) {
                self.held.insert(name.clone(), Held::Absent);
            } else {
                self.held.remove(name);
            }
        }
        let empty = delta.resources.is_empty() && delta.removed.is_empty();
        if empty {
            self.dirty = false;
        }
        let answer = !empty || (self.wildcard && self.first_owed);
        self.first_owed = false;
        answer.then_some(delta)
    }

    fn difference(&self, current: &Resources, limit: usize) -> Delta {
        let mut delta = Delta::default();
        let mut size = 0;
        for (name, encoded) in current {
            if !self.lacks(name, encoded) {
                continue;
            }
            let cost = encoded.body.len() + name.len() + OVERHEAD;
            if size > 0 && size + cost > limit {
                return delta;
            }
            size += cost;
            delta.resources.push((name.clone(), encoded.clone()));
        }
        for name in self.vanished(current) {
            if size > 0 && size + name.len() > limit {
                return delta;
            }
            size += name.len();
            delta.removed.push(name.clone());
        }
        delta
    }

    fn lacks(&self, name: &Arc<str>, encoded: &Encoded) -> bool {
        (self.wildcard || self.names.contains(&**name))
            && !matches!(self.held.get(&**name), Some(Held::Version(held)) if *held == encoded.version)
            && self.refused.get(&**name) != Some(&encoded.version)
    }

    /// Names to answer with "there is none": held but gone, asked for and never there, or owed an answer.
    fn vanished<'a>(&'a self, current: &'a Resources) -> impl Iterator<Item = &'a String> {
        let held = self.held.iter().filter(|(_, held)| **held != Held::Absent).map(|(name, _)| name);
        let never = self.names.iter().filter(|name| !self.held.contains_key(*name));
        let names: BTreeSet<&String> = held.chain(never).chain(&self.owed).collect();
        names
            .into_iter()
            .filter(|name| self.wildcard || self.names.contains(*name))
            .filter(|name| !current.contains_key(name.as_str()))
    }
}
