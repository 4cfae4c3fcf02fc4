//! Policies compiled into an index by (server, subject, kind, name), and the one engine that decides calls and lists.
//!
//! A decision looks at rules that name the server, one of the caller's subjects, and the name asked for; the others cost nothing.

use std::sync::Arc;

use hashbrown::HashMap;

use super::index::{ANY_SERVER, Names, Subjects, ordinal_of};
use super::model::{Org, Server};
use crate::proto::config::v1 as wire;

/// Whom a decision is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The user id, `key:<key id>`, or `anonymous`.
    pub subject: &'a str,
    /// The API key that was presented.
    pub api_key: Option<&'a str>,
    pub roles: &'a [String],
    pub groups: &'a [String],
    /// Whether nobody was recognised; then only rules with `anonymous: true` match.
    pub anonymous: bool,
}

/// What a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A tool by name.
    Tool(&'a str),
    /// A prompt by name.
    Prompt(&'a str),
    /// A resource by URI.
    Resource(&'a str),
    /// Whether any rule could allow the caller anything on this server.
    Something,
    /// A request of the server to the client, by method: allowed unless a rule denies it.
    ServerMethod(&'a str),
}

/// What was decided, and by which rule.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'a> {
    pub allowed: bool,
    /// The deciding rule; `None` when nothing matched.
    pub rule: Option<&'a Rule>,
    /// A shadow rule that would have decided otherwise, and whether it would have allowed.
    pub shadow: Option<(&'a Rule, bool)>,
    /// How many rules were looked at.
    pub evaluated: u32,
}

/// A policy as decisions and records name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    pub id: Arc<str>,
    pub name: Arc<str>,
    /// Whether a match allows; otherwise it denies.
    pub allow: bool,
    /// Whether the rule only records.
    pub shadow: bool,
}

/// Rules by server, then subject, then name.
#[derive(Default)]
pub(super) struct Index {
    rules: Vec<Rule>, // sorted by name: the first match decides which rule is named
    subjects: Subjects,
    cells: HashMap<(u32, u32), Cell>, // (server ordinal or ANY_SERVER, subject ordinal)
    /// Whether any rule names a method.
    has_methods: bool,
}

/// What one subject's rules say about one server.
#[derive(Default)]
struct Cell {
    tools: Names,
    prompts: Names,
    resources: Names,
    methods: HashMap<Box<str>, Vec<u32>>,
    /// The first enforced allow rule, if any.
    allows: Option<u32>,
}

impl Org {
    /// Decides. Deny beats allow; nothing matching is a deny, except for [`Ask::ServerMethod`].
    #[must_use]
    pub fn judge(&self, server: &Server, subject: &Subject<'_>, ask: Ask<'_>) -> Verdict<'_> {
        self.index.judge(server.ordinal, subject, ask)
    }

    /// Whether no rule is about questions of servers at all, whoever asks: then [`Ask::ServerMethod`] is always allowed.
    #[must_use]
    pub fn allows_all_questions(&self) -> bool {
        !self.index.has_methods
    }
}

impl Index {
    /// Compiles validated policies; `ordinals` maps the slugs of callable servers.
    pub(super) fn build<'p>(
        policies: impl IntoIterator<Item = &'p wire::Policy>,
        ordinals: &HashMap<Arc<str>, Arc<Server>>,
    ) -> Self {
        let mut policies: Vec<_> = policies.into_iter().collect();
        policies.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut index = Self::default();
        for policy in policies {
            index.add(policy, ordinals);
        }
        index
    }

    fn add(&mut self, policy: &wire::Policy, ordinals: &HashMap<Arc<str>, Arc<Server>>) {
        let position = u32::try_from(self.rules.len()).expect("an organisation has fewer than 2^32 policies");
        let allow = policy.effect() == wire::Effect::Allow;
        let shadow = policy.mode() == wire::Mode::Shadow;
        self.rules.push(Rule { id: policy.id.as_str().into(), name: policy.name.as_str().into(), allow, shadow });
        let Some(matching) = &policy.r#match else {
            return;
        };
        self.has_methods |= !matching.methods.is_empty();
        let subjects = policy.subjects.as_ref().map(|subjects| self.subjects.intern(subjects)).unwrap_or_default();
        for slug in &policy.servers {
            let server = ordinal_of(slug, ordinals);
            for (server, subject) in server.into_iter().flat_map(|server| subjects.iter().map(move |subject| (server, *subject)))
            {
                let cell = self.cells.entry((server, subject)).or_default();
                cell.add(position, matching);
                if allow && !shadow && cell.allows.is_none() {
                    cell.allows = Some(position);
                }
            }
        }
    }

    fn judge(&self, server: u32, subject: &Subject<'_>, ask: Ask<'_>) -> Verdict<'_> {
        let mut tally = Tally::default();
        self.subjects.each(subject, |subject| {
            for server in [server, ANY_SERVER] {
                if let Some(cell) = self.cells.get(&(server, subject)) {
                    cell.each(ask, |rule| tally.count(rule, &self.rules[rule as usize]));
                }
            }
        });
        tally.verdict(&self.rules, matches!(ask, Ask::ServerMethod(_)))
    }
}

/// The earliest matching rule of each kind.
#[derive(Default)]
struct Tally {
    deny: Option<u32>,
    allow: Option<u32>,
    shadow_deny: Option<u32>,
    shadow_allow: Option<u32>,
    evaluated: u32,
}

impl Tally {
    fn count(&mut self, position: u32, rule: &Rule) {
        self.evaluated += 1;
        let slot = match (rule.allow, rule.shadow) {
            (false, false) => &mut self.deny,
            (true, false) => &mut self.allow,
            (false, true) => &mut self.shadow_deny,
            (true, true) => &mut self.shadow_allow,
        };
        *slot = Some(slot.map_or(position, |earlier| earlier.min(position)));
    }

    fn verdict(self, rules: &[Rule], allowed_by_default: bool) -> Verdict<'_> {
        let rule = |position: Option<u32>| position.map(|position| &rules[position as usize]);
        let allowed = self.deny.is_none() && (allowed_by_default || self.allow.is_some());
        let shadow = match (allowed, self.shadow_deny, self.shadow_allow) {
            (true, Some(deny), _) => Some((&rules[deny as usize], false)),
            (false, None, Some(allow)) if self.deny.is_none() => Some((&rules[allow as usize], true)),
            (true | false, _, _) => None,
        };
        Verdict { allowed, rule: rule(self.deny.or(self.allow)), shadow, evaluated: self.evaluated }
    }
}

impl Cell {
    fn add(&mut self, rule: u32, matching: &wire::Match) {
        self.tools.add(rule, &matching.tools);
        self.prompts.add(rule, &matching.prompts);
        self.resources.add(rule, &matching.resources);
        for method in &matching.methods {
            self.methods.entry(method.as_str().into()).or_default().push(rule);
        }
    }

    fn each(&self, ask: Ask<'_>, mut visit: impl FnMut(u32)) {
        match ask {
            Ask::Tool(name) => self.tools.each(name, visit),
            Ask::Prompt(name) => self.prompts.each(name, visit),
            Ask::Resource(uri) => self.resources.each(uri, visit),
            Ask::Something => self.allows.into_iter().for_each(visit),
            Ask::ServerMethod(method) => self.methods.get(method).into_iter().flatten().for_each(|rule| visit(*rule)),
        }
    }
}
