//! Rate limits compiled into an index by (server, subject, name), so that a call finds those that it falls under and no others.
//!
//! Says what is counted together and how much fits. Never counts: nodes do.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::index::{ANY_SERVER, Names, Subjects, ordinal_of};
use super::model::{Org, Server};
use super::pattern::Pattern;
use super::policy::{Ask, Subject};
use crate::proto::config::v1 as wire;

mod check;
#[cfg(test)]
mod tests;

pub(super) use check::check;

/// A limit as nodes enforce it.
#[derive(Debug, PartialEq, Eq)]
pub struct Limit {
    /// Counts are kept under it.
    pub id: Arc<str>,
    pub name: Arc<str>,
    pub per: Per,
    /// At most 4; may be empty where there is a cap.
    pub windows: Box<[Window]>,
    /// Calls in flight per count and node.
    pub max_concurrent: Option<u32>,
    pub away: Away,
    costs: Box<[(Pattern, u32)]>,
    /// What an endpoint is called: patterns and methods of `match`, exact names first.
    patterns: Box<[Arc<str>]>,
}

/// What separates the counts of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Per {
    pub user: bool,
    pub server: bool,
    /// Implies `server`.
    pub endpoint: bool,
}

/// In no period of this length is more admitted than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// At least 1.
    pub limit: u64,
    /// Whole seconds, at least 1.
    pub length: Duration,
}

/// What happens while shared counters are out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Away {
    /// Each node admits its share.
    Share,
    Open,
    Closed,
}

/// What a message is to limits.
#[derive(Debug, Clone, Copy)]
pub struct Traffic<'a> {
    /// The JSON-RPC method, or the HTTP method of what has none.
    pub method: &'a str,
    /// The tool, prompt or resource that it names; [`Ask::Something`] where it names none.
    pub ask: Ask<'a>,
}

/// A limit that a message falls under.
#[derive(Debug, Clone, Copy)]
pub struct Applied<'a> {
    pub limit: &'a Limit,
    /// How much the message counts.
    pub cost: u32,
    /// Which pattern of the limit matched, for [`Limit::pattern`]; 0 where the limit is about every message.
    pub pattern: u16,
}

/// Limits by server, then subject, then name.
#[derive(Default)]
pub(super) struct Index {
    limits: Vec<Limit>,
    /// What names lead to: a limit and which of its patterns.
    entries: Vec<(u32, u16)>,
    subjects: Subjects,
    cells: HashMap<(u32, u32), Cell>, // (server ordinal or ANY_SERVER, subject number or EVERYBODY)
}

/// In place of a subject's number: whoever calls.
const EVERYBODY: u32 = u32::MAX;

/// Entries of one subject on one server.
#[derive(Default)]
struct Cell {
    every_message: Vec<u32>,
    tools: Names,
    prompts: Names,
    resources: Names,
    methods: HashMap<Box<str>, Vec<u32>>,
}

impl Limit {
    /// One limit by itself. What it says has to be valid: `check_org` tells.
    #[must_use]
    pub fn compile(limit: &wire::RateLimit) -> Self {
        compiled(limit, &named(&limit.r#match.clone().unwrap_or_default()))
    }

    /// How much a call of `tool` counts.
    fn cost(&self, ask: Ask<'_>) -> u32 {
        let Ask::Tool(name) = ask else { return 1 };
        self.costs.iter().filter(|(pattern, _)| pattern.matches(name)).map(|(_, cost)| *cost).max().unwrap_or(1)
    }

    /// The pattern or method with this number, as an operator wrote it; empty for a limit on every message.
    #[must_use]
    pub fn pattern(&self, number: u16) -> &str {
        self.patterns.get(usize::from(number)).map_or("", |pattern| pattern)
    }
}

impl Org {
    /// The limits that a message falls under, each once, in the order of their names. Allocates nothing for up to eight.
    #[must_use]
    pub fn limits(&self, server: &Server, subject: &Subject<'_>, traffic: Traffic<'_>) -> SmallVec<[Applied<'_>; 8]> {
        self.limits.applied(server.ordinal, subject, traffic)
    }

    /// All limits, in the order of their names.
    pub fn all_limits(&self) -> impl Iterator<Item = &Limit> {
        self.limits.limits.iter()
    }
}

impl Index {
    /// Compiles validated limits; `ordinals` maps the slugs of callable servers.
    pub(super) fn build<'l>(
        limits: impl IntoIterator<Item = &'l wire::RateLimit>,
        ordinals: &HashMap<Arc<str>, Arc<Server>>,
    ) -> Self {
        let mut limits: Vec<_> = limits.into_iter().collect();
        limits.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut index = Self::default();
        for limit in limits {
            index.add(limit, ordinals);
        }
        index
    }

    fn add(&mut self, limit: &wire::RateLimit, ordinals: &HashMap<Arc<str>, Arc<Server>>) {
        let position = u32::try_from(self.limits.len()).expect("an organisation has fewer than 2^32 limits");
        let matching = limit.r#match.clone().unwrap_or_default();
        let named = named(&matching);
        let everybody = [EVERYBODY];
        let interned = limit.subjects.as_ref().map(|subjects| self.subjects.intern(subjects)).filter(|named| !named.is_empty());
        let subjects = interned.as_deref().unwrap_or(&everybody);
        let first = u32::try_from(self.entries.len()).expect("an organisation has fewer than 2^32 patterns");
        let count = u16::try_from(named.len().max(1)).unwrap_or(u16::MAX);
        self.entries.extend((0..count).map(|pattern| (position, pattern)));
        let any = ["*".to_owned()];
        let servers = if limit.servers.is_empty() { &any[..] } else { &limit.servers };
        for server in servers.iter().filter_map(|slug| ordinal_of(slug, ordinals)) {
            for subject in subjects {
                self.cells.entry((server, *subject)).or_default().add(first, &named);
            }
        }
        self.limits.push(compiled(limit, &named));
    }

    fn applied(&self, server: u32, subject: &Subject<'_>, traffic: Traffic<'_>) -> SmallVec<[Applied<'_>; 8]> {
        // Per limit the first of its patterns that matched.
        let mut found: SmallVec<[(u32, u16); 8]> = SmallVec::new();
        if self.limits.is_empty() {
            return SmallVec::new();
        }
        let mut look = |subject: u32| {
            for server in [server, ANY_SERVER] {
                let Some(cell) = self.cells.get(&(server, subject)) else { continue };
                cell.each(traffic, |entry| {
                    let (limit, pattern) = self.entries[entry as usize];
                    match found.iter_mut().find(|(known, _)| *known == limit) {
                        Some((_, first)) => *first = pattern.min(*first),
                        None => found.push((limit, pattern)),
                    }
                });
            }
        };
        look(EVERYBODY);
        self.subjects.each(subject, look);
        found.sort_unstable();
        let applied = |(limit, pattern): (u32, u16)| {
            let limit = &self.limits[limit as usize];
            Applied { limit, cost: limit.cost(traffic.ask), pattern }
        };
        found.into_iter().map(applied).collect()
    }
}

/// What of a server a pattern names.
#[derive(Clone, Copy)]
enum Kind {
    Tool,
    Prompt,
    Resource,
    Method,
}

/// Everything that `matching` names, exact names first.
fn named(matching: &wire::Match) -> Vec<(Kind, &String)> {
    let kinds = [
        (Kind::Tool, &matching.tools),
        (Kind::Prompt, &matching.prompts),
        (Kind::Resource, &matching.resources),
        (Kind::Method, &matching.methods),
    ];
    let mut named: Vec<_> = kinds.into_iter().flat_map(|(kind, texts)| texts.iter().map(move |text| (kind, text))).collect();
    named.sort_by_key(|(kind, text)| !matches!(kind, Kind::Method) && text.contains('*'));
    named
}

fn compiled(limit: &wire::RateLimit, named: &[(Kind, &String)]) -> Limit {
    let has = |per: wire::LimitPer| limit.per().any(|found| found == per);
    let endpoint = has(wire::LimitPer::Endpoint);
    let server = endpoint || has(wire::LimitPer::Server);
    let window = |window: &wire::LimitWindow| Window { limit: window.limit, length: Duration::from_secs(window.seconds.into()) };
    Limit {
        id: limit.id.as_str().into(),
        name: limit.name.as_str().into(),
        per: Per { user: has(wire::LimitPer::User), server, endpoint },
        windows: limit.windows.iter().map(window).collect(),
        max_concurrent: (limit.max_concurrent > 0).then_some(limit.max_concurrent),
        away: match limit.when_away() {
            wire::LimitAway::Unspecified | wire::LimitAway::Share => Away::Share,
            wire::LimitAway::Open => Away::Open,
            wire::LimitAway::Closed => Away::Closed,
        },
        costs: limit.costs.iter().map(|cost| (Pattern::new(&cost.tools), cost.cost)).collect(),
        patterns: named.iter().map(|(_, text)| Arc::from(text.as_str())).collect(),
    }
}

impl Cell {
    /// `first` is the entry of the first name.
    fn add(&mut self, first: u32, named: &[(Kind, &String)]) {
        if named.is_empty() {
            return self.every_message.push(first);
        }
        for (entry, (kind, text)) in (first..).zip(named) {
            match kind {
                Kind::Tool => self.tools.add(entry, [*text]),
                Kind::Prompt => self.prompts.add(entry, [*text]),
                Kind::Resource => self.resources.add(entry, [*text]),
                Kind::Method => self.methods.entry(text.as_str().into()).or_default().push(entry),
            }
        }
    }

    fn each(&self, traffic: Traffic<'_>, mut visit: impl FnMut(u32)) {
        self.every_message.iter().for_each(|entry| visit(*entry));
        self.methods.get(traffic.method).into_iter().flatten().for_each(|entry| visit(*entry));
        match traffic.ask {
            Ask::Tool(name) => self.tools.each(name, visit),
            Ask::Prompt(name) => self.prompts.each(name, visit),
            Ask::Resource(uri) => self.resources.each(uri, visit),
            Ask::Something | Ask::ServerMethod(_) => {}
        }
    }
}
