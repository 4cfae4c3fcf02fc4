//! What rules and limits are found by: numbers for subjects, and names by hash or by the literal start of a pattern.
//!
//! A lookup costs what matches, not what there is.

use std::sync::Arc;

use hashbrown::HashMap;

use super::model::Server;
use super::pattern::Pattern;
use super::policy::Subject;
use crate::proto::config::v1 as wire;

/// In place of a server's ordinal: every server.
pub(super) const ANY_SERVER: u32 = u32::MAX;

const ANONYMOUS: u32 = 0;
const AUTHENTICATED: u32 = 1;

/// The number of a server by slug or `*`; none for a server that is disabled: what names it waits until it is back.
pub(super) fn ordinal_of(slug: &str, callable: &HashMap<Arc<str>, Arc<Server>>) -> Option<u32> {
    if slug == "*" { Some(ANY_SERVER) } else { callable.get(slug).map(|server| server.ordinal) }
}

/// Interned subjects, one map per kind.
pub(super) struct Subjects {
    count: u32,
    roles: HashMap<Box<str>, u32>,
    groups: HashMap<Box<str>, u32>,
    users: HashMap<Box<str>, u32>,
    api_keys: HashMap<Box<str>, u32>,
}

/// Numbers by name, such as those of rules: exact names by hash, patterns by their literal prefix.
#[derive(Default)]
pub(super) struct Names {
    exact: HashMap<Box<str>, Vec<u32>>,
    prefix_lengths: Vec<usize>,
    prefixed: HashMap<Box<[u8]>, Vec<(Pattern, u32)>>,
}

impl Default for Subjects {
    fn default() -> Self {
        let (roles, groups, users, api_keys) = Default::default();
        Self { count: 2, roles, groups, users, api_keys }
    }
}

impl Names {
    /// Files `number` under each of the patterns.
    pub fn add<'t>(&mut self, number: u32, patterns: impl IntoIterator<Item = &'t String>) {
        for text in patterns {
            let pattern = Pattern::new(text);
            if pattern.is_exact() {
                self.exact.entry(text.as_str().into()).or_default().push(number);
                continue;
            }
            let prefix = pattern.prefix().as_bytes();
            if let Err(place) = self.prefix_lengths.binary_search(&prefix.len()) {
                self.prefix_lengths.insert(place, prefix.len());
            }
            self.prefixed.entry(prefix.into()).or_default().push((pattern, number));
        }
    }

    /// The numbers filed under what matches `name`; one may come several times.
    pub fn each(&self, name: &str, mut visit: impl FnMut(u32)) {
        self.exact.get(name).into_iter().flatten().for_each(|number| visit(*number));
        for length in self.prefix_lengths.iter().take_while(|length| **length <= name.len()) {
            let candidates = self.prefixed.get(&name.as_bytes()[..*length]);
            candidates.into_iter().flatten().filter(|(pattern, _)| pattern.matches(name)).for_each(|(_, number)| visit(*number));
        }
    }
}

impl Subjects {
    /// The numbers of everybody whom `subjects` names, without repetition.
    pub fn intern(&mut self, subjects: &wire::Subjects) -> Vec<u32> {
        let mut ordinals = Vec::new();
        if subjects.anonymous {
            ordinals.push(ANONYMOUS);
        }
        let kinds = [
            (&mut self.roles, &subjects.roles),
            (&mut self.groups, &subjects.groups),
            (&mut self.users, &subjects.users),
            (&mut self.api_keys, &subjects.api_keys),
        ];
        for (kind, (map, names)) in kinds.into_iter().enumerate() {
            for name in names {
                if kind == 0 && name == "*" {
                    ordinals.push(AUTHENTICATED);
                    continue;
                }
                let count = &mut self.count;
                ordinals.push(*map.entry(name.as_str().into()).or_insert_with(|| {
                    *count += 1;
                    *count - 1
                }));
            }
        }
        ordinals.sort_unstable();
        ordinals.dedup();
        ordinals
    }

    /// The numbers that a caller has.
    pub fn each(&self, subject: &Subject<'_>, mut visit: impl FnMut(u32)) {
        if subject.anonymous {
            return visit(ANONYMOUS);
        }
        visit(AUTHENTICATED);
        self.users.get(subject.subject).into_iter().for_each(|ordinal| visit(*ordinal));
        subject.api_key.and_then(|key| self.api_keys.get(key)).into_iter().for_each(|ordinal| visit(*ordinal));
        let named = |map: &HashMap<Box<str>, u32>, names: &[String], visit: &mut dyn FnMut(u32)| {
            names.iter().filter_map(|name| map.get(name.as_str())).for_each(|ordinal| visit(*ordinal));
        };
        named(&self.roles, subject.roles, &mut visit);
        named(&self.groups, subject.groups, &mut visit);
    }
}
