//! The unit of quarantine is the organisation: one that cannot be served as its bundles say keeps its last good configuration, or is denied
//! where there is none, and every other organisation moves on.
//! Called by [`super::compile`]. Never mixes: an organisation is served whole from one version of its own.
//!
//! Where two organisations claim one slug or server id, nobody is ever served by another's rules: whoever had it keeps it for as long as its
//! own bundles do not give it up, and a last good configuration yields to an organisation that has the claim now.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::compile::unfit_header;
use super::model::{Org, Server};
use super::org::{Fault, Read, Stated};
use super::stdio::unfit_variable;
use super::{Digest, Problem, Snapshot};
use crate::proto::config::v1::UpstreamCredential;

/// Why an organisation is not served as a version says, and what it is served from instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// At least one, as found in this version.
    pub problems: Vec<Problem>,
    /// The digest of the last good configuration that stays in force; `None`: there is none, and everything is denied.
    pub serving: Option<Digest>,
}

pub(super) type Orgs = BTreeMap<Arc<str>, Arc<Org>>;
pub(super) type Credentials = HashMap<String, UpstreamCredential>;

/// Who is served from what.
#[derive(Default)]
pub(super) struct Judged {
    pub orgs: Orgs,
    /// By slug, the organisation's id.
    pub slugs: HashMap<Arc<str>, Arc<str>>,
    /// By server id.
    pub servers: HashMap<Arc<str>, (Arc<Org>, Arc<Server>)>,
    pub quarantined: BTreeMap<Arc<str>, Quarantine>,
    /// What the version's secrets do not hold any more, or not so that it could be used, and a last good configuration still names.
    pub kept_credentials: Credentials,
}

/// The credentials of a version.
pub(super) struct Wallet<'s> {
    pub usable: &'s Credentials,
    /// Those that cannot be used, and why.
    pub unusable: &'s HashMap<String, Problem>,
}

/// Something that only one organisation can have.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claim<'a> {
    Slug(&'a str),
    Server(&'a str),
}

/// Decides for every organisation that was read.
pub(super) fn judge(mut read: Vec<Read>, wallet: &Wallet<'_>, previous: Option<&Snapshot>) -> Judged {
    check_credentials(&mut read, wallet);
    settle_claims(&mut read, previous);
    let mut judged = Judged::default();
    let mut refused = Vec::new();
    for Read { id, found } in read {
        match found {
            Ok(org) => judged.add(org),
            Err(fault) => refused.push((id, fault.problems)),
        }
    }
    // Last, so that what is good goes first.
    for (id, problems) in refused {
        judged.fall_back(id, problems, wallet.usable, previous);
    }
    judged
}

fn check_credentials(read: &mut [Read], wallet: &Wallet<'_>) {
    for organisation in read {
        let Ok(org) = &organisation.found else { continue };
        let mut problems: Vec<Problem> = org.servers.values().filter_map(|server| wallet.missing(server)).collect();
        if !problems.is_empty() {
            problems.sort_by_cached_key(ToString::to_string);
            organisation.found = Err(Fault { problems, stated: Stated::of(org) });
        }
    }
}

impl Wallet<'_> {
    /// What is wrong with the credential that a server names.
    fn missing(&self, server: &Server) -> Option<Problem> {
        let credential = server.credential_id.as_deref()?;
        if let Some(found) = self.usable.get(credential) {
            let (resource, credential) = (format!("server {}", server.slug), credential.to_owned());
            return unfit(server, found).map(|expected| Problem::InvalidCredential { resource, credential, expected });
        }
        Some(self.unusable.get(credential).cloned().unwrap_or_else(|| Problem::DanglingCredential {
            server: server.slug.to_string(),
            credential: credential.to_owned(),
        }))
    }
}

/// Why a server cannot use a credential: to a process it is a variable, to every other server a header.
fn unfit(server: &Server, credential: &UpstreamCredential) -> Option<&'static str> {
    if server.stdio.is_some() { unfit_variable(credential) } else { unfit_header(credential) }
}

/// Refuses everybody who claims what is another's.
fn settle_claims(read: &mut [Read], previous: Option<&Snapshot>) {
    let mut losses: Vec<(usize, Problem)> = Vec::new();
    {
        let mut owners: HashMap<Claim<'_>, usize> = HashMap::new();
        let good = read.iter().enumerate().filter_map(|(place, read)| Some((place, read.found.as_ref().ok()?)));
        for (place, org) in good {
            for claim in claims(org) {
                let Some(rival) = owners.insert(claim, place) else { continue };
                let (winner, loser) =
                    if first(claim, &read[rival].id, &read[place].id, previous) { (rival, place) } else { (place, rival) };
                owners.insert(claim, winner);
                losses.push((loser, claim.lost(&read[loser].id, &read[winner].id)));
            }
        }
        for Read { id, found } in read.iter() {
            let Err(fault) = found else { continue };
            let had = previous.and_then(|snapshot| snapshot.org(id)).into_iter().flat_map(|org| claims(org));
            for claim in had.filter(|claim| fault.stated.includes(*claim)) {
                losses.extend(owners.get(&claim).map(|loser| (*loser, claim.lost(&read[*loser].id, id))));
            }
        }
    }
    for (loser, problem) in losses {
        let found = &mut read[loser].found;
        match found {
            Ok(org) => {
                let stated = Stated::of(org);
                *found = Err(Fault { problems: vec![problem], stated });
            }
            Err(fault) => fault.problems.push(problem),
        }
    }
}

fn claims(org: &Org) -> impl Iterator<Item = Claim<'_>> {
    [Claim::Slug(&org.slug)].into_iter().chain(org.servers.values().map(|server| Claim::Server(&server.id)))
}

/// Whether `one` goes before `other` where both claim the same: who had it, then who was not in quarantine, then the smaller id.
fn first(claim: Claim<'_>, one: &str, other: &str, previous: Option<&Snapshot>) -> bool {
    let rank = |id: &str| {
        let had = previous.and_then(|snapshot| claim.holder(snapshot)) == Some(id);
        (!had, previous.is_some_and(|snapshot| snapshot.quarantined.contains_key(id)))
    };
    (rank(one), one) < (rank(other), other)
}

impl Claim<'_> {
    /// The id of the organisation that has it.
    fn holder<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s str> {
        match self {
            Self::Slug(slug) => snapshot.slugs.get(*slug).map(|id| &**id),
            Self::Server(id) => snapshot.servers.get(*id).map(|(org, _)| &*org.id),
        }
    }

    fn lost(&self, org: &str, other: &str) -> Problem {
        let (org, other) = (org.to_owned(), other.to_owned());
        match self {
            Self::Slug(slug) => Problem::OrgSlugTaken { org, slug: (*slug).to_owned(), other },
            Self::Server(id) => Problem::ServerIdTaken { org, server: (*id).to_owned(), other },
        }
    }
}

impl Stated {
    fn includes(&self, claim: Claim<'_>) -> bool {
        match (self, claim) {
            (Self::Unreadable, _) => true,
            (Self::Names { slug, .. }, Claim::Slug(claimed)) => slug == claimed,
            (Self::Names { server_ids, .. }, Claim::Server(claimed)) => server_ids.contains(claimed),
        }
    }
}

impl Judged {
    /// Serves an organisation.
    pub fn add(&mut self, org: Arc<Org>) {
        self.slugs.insert(org.slug.clone(), org.id.clone());
        self.servers.extend(org.servers.values().map(|server| (server.id.clone(), (org.clone(), server.clone()))));
        self.orgs.insert(org.id.clone(), org);
    }

    fn fall_back(&mut self, id: Arc<str>, mut problems: Vec<Problem>, usable: &Credentials, previous: Option<&Snapshot>) {
        let good = previous.and_then(|snapshot| Some((snapshot, snapshot.org(&id)?)));
        let serving = good.and_then(|(snapshot, org)| match self.keep(org, usable, snapshot) {
            Ok(()) => Some(org.digest),
            Err(problem) => {
                problems.push(problem);
                None
            }
        });
        self.quarantined.insert(id, Quarantine { problems, serving });
    }

    /// Goes on serving an organisation as it was, unless something of it is another's now.
    fn keep(&mut self, org: &Arc<Org>, usable: &Credentials, previous: &Snapshot) -> Result<(), Problem> {
        let taken = claims(org).find_map(|claim| {
            let owner = match claim {
                Claim::Slug(slug) => self.slugs.get(slug),
                Claim::Server(id) => self.servers.get(id).map(|(org, _)| &org.id),
            };
            owner.map(|owner| claim.lost(&org.id, owner))
        });
        if let Some(problem) = taken {
            return Err(problem);
        }
        let named = org.servers.values().filter_map(|server| Some((server, server.credential_id.as_deref()?)));
        let mut kept = Credentials::new();
        let misses = |server: &Server, id: &str| usable.get(id).is_none_or(|found| unfit(server, found).is_some());
        for (server, id) in named.filter(|(server, id)| misses(server, id)) {
            let Some(credential) = previous.upstream_credential(id) else {
                return Err(Problem::DanglingCredential { server: server.slug.to_string(), credential: id.to_owned() });
            };
            kept.insert(id.to_owned(), credential.clone());
        }
        self.kept_credentials.extend(kept);
        self.add(org.clone());
        Ok(())
    }
}

/// One line per problem, `org/<id>: ` first. The first of every organisation come before all others: a report that is cut leaves nobody out.
pub(super) fn report<'s>(problems: impl Iterator<Item = (&'s str, &'s [Problem])>) -> Vec<String> {
    let mut lines: Vec<(usize, String)> = problems
        .flat_map(|(org, problems)| problems.iter().enumerate().map(move |(place, problem)| (place, line(org, problem))))
        .collect();
    lines.sort_by_key(|(place, _)| *place);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn line(org: &str, problem: &Problem) -> String {
    let text = problem.to_string();
    let bare = text.strip_prefix("org/").unwrap_or(&text);
    let bare = bare.strip_prefix(org).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
    format!("org/{org}: {bare}")
}

#[cfg(test)]
mod tests;
