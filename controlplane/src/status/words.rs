//! What nodes say is wrong, in words for people: organisations by slug, and nobody reads of another's. Pure.
//!
//! Nodes write a line per problem; what concerns one organisation begins with `org/<id>: `.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Viewer;

/// What a member reads of a node that refused a version for something outside its organisation.
pub const ELSEWHERE: &str = "refused for a reason outside this organisation: platform administrators see it";
/// What a member reads of a pool that is held.
pub const HELD: &str = "something vanished from the database without a record: platform administrators see what";
/// What a member reads where another organisation is named.
const OTHER: &str = "another organisation";
const PREFIX: &str = "org/";
const ID: usize = 36;

/// The organisations that a line names.
pub fn orgs(line: &str) -> impl Iterator<Item = Uuid> {
    line.match_indices(PREFIX).filter_map(|(at, _)| id_at(line, at))
}

/// The line for the viewer; none: it does not concern the viewer.
pub fn of(line: &str, viewer: &Viewer, slugs: &BTreeMap<Uuid, String>) -> Option<String> {
    let known = |id| slugs.get(&id).map(|slug| format!("organizations/{slug}"));
    match viewer {
        Viewer::Platform => Some(named(line, known)),
        Viewer::Member { org, .. } => {
            let concerns = line.starts_with(PREFIX) && id_at(line, 0) == Some(*org);
            concerns.then(|| named(line, |id| if id == *org { known(id) } else { Some(OTHER.into()) }))
        }
    }
}

fn id_at(line: &str, at: usize) -> Option<Uuid> {
    let id = line.get(at + PREFIX.len()..at + PREFIX.len() + ID)?;
    Uuid::try_parse(id).ok()
}

/// Replaces `org/<id>` by what `name` says; without a name it stays.
fn named(line: &str, name: impl Fn(Uuid) -> Option<String>) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = 0;
    for (at, _) in line.match_indices(PREFIX) {
        if let Some(name) = id_at(line, at).and_then(&name) {
            text.push_str(&line[rest..at]);
            text.push_str(&name);
            rest = at + PREFIX.len() + ID;
        }
    }
    text + &line[rest..]
}
