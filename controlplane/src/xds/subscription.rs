//! One resource type on one stream: what the node asked for, what it is known to hold, and what it is still owed.
//! Pure; the delta rules of the xDS protocol ("How the client specifies what resources to return") live here and nowhere else.
//! Called by [`super::machine`] only.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
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
    /// Nothing, although it is in the base.
    Nothing,
    /// It refused what it was last told, so that it has that, or what it had before, or nothing: a refusal is about a response, not about
    /// each resource in it.
    Unsure,
}

/// What the node holds: everything of a base that all streams share, except for what is listed. A stream that is up to date lists nothing.
#[derive(Debug, Default)]
struct Holding {
    base: Arc<Resources>,
    except: BTreeMap<Arc<str>, Held>,
}

impl Holding {
    fn version(&self, name: &str) -> Option<&Arc<str>> {
        match self.except.get(name) {
            Some(Held::Version(version)) => Some(version),
            Some(Held::Absent | Held::Nothing | Held::Unsure) => None,
            None => self.base.get(name).map(|encoded| &encoded.version),
        }
    }

    /// Whether the node was told about a name, be it that there is none.
    fn is_known(&self, name: &str) -> bool {
        match self.except.get(name) {
            Some(held) => *held != Held::Nothing,
            None => self.base.contains_key(name),
        }
    }

    fn set(&mut self, name: Arc<str>, version: Arc<str>) {
        self.except.insert(name, Held::Version(version));
    }

    fn set_absent(&mut self, name: &str) {
        self.except.insert(name.into(), Held::Absent);
    }

    fn set_unsure(&mut self, name: &str) {
        self.except.insert(name.into(), Held::Unsure);
    }

    /// Whether the node may have something under this name.
    fn may_have(&self, name: &str) -> bool {
        self.version(name).is_some() || self.except.get(name) == Some(&Held::Unsure)
    }

    fn forget(&mut self, name: &str) {
        if let Some((name, _)) = self.base.get_key_value(name) {
            self.except.insert(Arc::clone(name), Held::Nothing);
        } else {
            self.except.remove(name);
        }
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = self.base.keys().chain(self.except.keys()).filter(|name| !keep(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Says that the node holds all of `current` and no other resource.
    fn rebase(&mut self, current: &Arc<Resources>) {
        self.base = Arc::clone(current);
        self.except.retain(|name, held| *held == Held::Absent && !current.contains_key(name));
    }

    /// Names about which the node may have to be told something: those that differ between the base and `current`, and those listed.
    fn candidates(&self, current: &Arc<Resources>) -> BTreeSet<Arc<str>> {
        let mut names: BTreeSet<Arc<str>> = self.except.keys().cloned().collect();
        if !Arc::ptr_eq(&self.base, current) {
            differing(&self.base, current, |name| names.extend([Arc::clone(name)]));
        }
        names
    }

    fn len(&self) -> usize {
        self.base.len() + self.except.len()
    }
}

/// Names that are in one of two, or in both with different contents. One walk over both.
fn differing<'a>(one: &'a Resources, other: &'a Resources, mut found: impl FnMut(&'a Arc<str>)) {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let order = match (one.peek(), other.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) if Arc::ptr_eq(left, right) => Ordering::Equal,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        match order {
            Ordering::Less => one.next().into_iter().for_each(|(name, _)| found(name)),
            Ordering::Greater => other.next().into_iter().for_each(|(name, _)| found(name)),
            Ordering::Equal => {
                if let (Some((_, was)), Some((name, is))) = (one.next(), other.next())
                    && was != is
                {
                    found(name);
                }
            }
        }
    }
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
    held: Holding,
    /// Names to answer even though nothing about them changed.
    owed: BTreeSet<String>,
    /// A wildcard is answered at least once, be it with nothing.
    first_owed: bool,
    /// Content that the node refused, by name: never sent again on this stream.
    refused: BTreeMap<String, Arc<str>>,
    dirty: bool,
    /// What is left to be said of some resources; gone whenever anything changes.
    plan: Option<Plan>,
}

/// Names in the order in which they are spoken of: those that exist, then those that do not.
#[derive(Debug)]
struct Plan {
    of: Arc<Resources>,
    left: VecDeque<Arc<str>>,
}

impl Subscription {
    /// The first request of a type on a stream. `initial` is what the node says it holds, by name.
    /// An empty `subscribe` means everything here, and only here; both of `*` is a subscription to nothing.
    pub fn first<'a>(change: &Change<'_>, initial: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let except: BTreeMap<_, _> =
            initial.into_iter().map(|(name, version)| (name.into(), Held::Version(version.into()))).collect();
        let mut this = Self {
            first_owed: except.is_empty(),
            held: Holding { except, ..Holding::default() },
            dirty: true,
            ..Self::default()
        };
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

    /// As [`Self::first`], of a node that is known to hold everything there is in `base`, be it nothing.
    pub fn complete(change: &Change<'_>, base: Option<&Arc<Resources>>) -> Self {
        let mut this = Self { first_owed: false, ..Self::first(change, []) };
        this.held.base = base.cloned().unwrap_or_default();
        if !this.wildcard {
            let names = std::mem::take(&mut this.names);
            this.held.retain(|name| names.contains(name));
            this.names = names;
        }
        this
    }

    /// A later request of the type. What is asked for again is sent again: the node's way to resynchronise. Here `unsubscribe` comes
    /// first: whoever gives a name up and asks for it in one request asks for it anew.
    pub fn change(&mut self, change: &Change<'_>) {
        self.plan = None;
        self.unsubscribe(change.unsubscribe);
        for name in change.subscribe {
            if name == WILDCARD {
                self.wildcard = true;
                self.first_owed = true;
                self.held.clear();
            } else {
                self.names.insert(name.clone());
                self.held.forget(name);
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
            held.retain(|name| (*wildcard || wanted.contains(name)) && !owed.contains(name));
            owed.retain(|_| *wildcard);
        }
    }

    /// More names than a node of ours would ever use.
    pub fn is_excessive(&self) -> bool {
        self.names.len() > MAX_NAMES || self.owed.len() > MAX_NAMES || self.held.len() > MAX_NAMES * 10
    }

    /// The resources may have changed.
    pub fn touch(&mut self) {
        self.plan = None;
        self.dirty = true;
    }

    /// Whether there may be something to send.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The node refused this content of these names, perhaps not of each: it never gets it again here, but it is told when they are gone.
    pub fn refuse(&mut self, sent: &[(String, Arc<str>)]) {
        self.plan = None;
        for (name, version) in sent {
            if self.held.version(name) == Some(version) {
                self.held.set_unsure(name);
            }
            self.refused.insert(name.clone(), version.clone());
        }
    }

    /// Everything is sent once more, refused or not.
    pub fn resync(&mut self) {
        self.refused.clear();
        self.held.clear();
        self.touch();
    }

    /// What to send next, about `limit` bytes of it, and remembers that it was sent; nothing when the node is up to date.
    pub fn next(&mut self, current: &Arc<Resources>, limit: usize) -> Option<Delta> {
        if !self.dirty {
            return None;
        }
        let mut plan = self.plan.take().filter(|plan| Arc::ptr_eq(&plan.of, current)).unwrap_or_else(|| self.plan(current));
        let delta = self.draw(&mut plan.left, current, limit);
        for (name, encoded) in &delta.resources {
            self.held.set(Arc::clone(name), Arc::clone(&encoded.version));
            self.owed.remove(&**name);
        }
        for name in &delta.removed {
            self.owed.remove(name);
            if self.names.contains(name) {
                self.held.set_absent(name);
            } else {
                self.held.forget(name);
            }
        }
        if plan.left.is_empty() {
            self.dirty = false;
            if self.wildcard && self.refused.is_empty() {
                // Whoever wants everything and lacks nothing holds what everybody holds.
                self.held.rebase(current);
            }
        } else {
            self.plan = Some(plan);
        }
        let empty = delta.resources.is_empty() && delta.removed.is_empty();
        let answer = !empty || (self.wildcard && self.first_owed);
        self.first_owed = false;
        answer.then_some(delta)
    }

    fn plan(&self, current: &Arc<Resources>) -> Plan {
        let mut names = self.held.candidates(current);
        names.extend(self.unknown().map(|name| name.as_str().into()));
        let (exist, gone): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| current.contains_key(name));
        let lacking = exist.into_iter().filter(|name| current.get(name).is_some_and(|encoded| self.lacks(name, encoded)));
        let left = lacking.chain(gone.into_iter().filter(|name| self.is_owed_an_end(name))).collect();
        Plan { of: Arc::clone(current), left }
    }

    /// Takes from the plan what fits into `limit` bytes, and at least one name.
    fn draw(&self, left: &mut VecDeque<Arc<str>>, current: &Resources, limit: usize) -> Delta {
        let mut delta = Delta::default();
        let mut size = 0;
        while let Some(name) = left.front() {
            let found = current.get(name);
            size += name.len() + found.map_or(0, |encoded| encoded.body.len() + OVERHEAD);
            let any = !delta.resources.is_empty() || !delta.removed.is_empty();
            if any && size > limit {
                break;
            }
            match found {
                Some(encoded) => delta.resources.push((Arc::clone(name), encoded.clone())),
                None => delta.removed.push(name.to_string()),
            }
            left.pop_front();
        }
        delta
    }

    fn lacks(&self, name: &Arc<str>, encoded: &Encoded) -> bool {
        (self.wildcard || self.names.contains(&**name))
            && self.held.version(name) != Some(&encoded.version)
            && self.refused.get(&**name) != Some(&encoded.version)
    }

    /// Names that were asked for and not spoken of yet, or that are owed an answer.
    fn unknown(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| !self.held.is_known(name)).chain(&self.owed)
    }

    /// Whether a name that does not exist has to be answered with "there is none": held, asked for and never there, or owed an answer.
    fn is_owed_an_end(&self, name: &Arc<str>) -> bool {
        let named = self.names.contains(&**name);
        let never = named && !self.held.is_known(name);
        (self.wildcard || named) && (self.held.may_have(name) || never || self.owed.contains(&**name))
    }
}

#[cfg(test)]
mod tests;
