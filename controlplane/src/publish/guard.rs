//! Rows that vanish without a recorded delete do not reach nodes: a TRUNCATE, a half restored backup, somebody's psql.
//!
//! Compares what a pool would publish with what was published last and what the change log explains. Owns which pools are held;
//! never what is published instead. Called by [`super::publisher`].

use std::collections::{BTreeMap, BTreeSet};

use mcp_gateway::snapshot::Version;
use tracing::{error, info};
use uuid::Uuid;

use super::{Published, build::Orgs, metrics::Metrics};
use crate::store::{
    self, Store,
    holds::{Accounted, Counts, Rows, Totals},
};

#[cfg(test)]
mod tests;

/// See the module.
#[derive(Debug)]
pub struct Guard {
    store: Store,
    /// What this replica published last, by pool.
    last: BTreeMap<String, (Version, Counts)>,
    /// Why a pool is held, by pool.
    holds: BTreeMap<String, String>,
    /// How much there was when a pool was held last: other rows may be the missing ones.
    seen: Option<Totals>,
}

impl Guard {
    pub fn new(store: Store) -> Self {
        Self { store, last: BTreeMap::new(), holds: BTreeMap::new(), seen: None }
    }

    /// Whether the new content of a pool must not be published; `all` are the organisations of every pool.
    pub async fn holds(&mut self, pool: &str, now: &Counts, all: &Orgs, head: Version) -> Result<bool, store::Error> {
        // After a restore what this replica published is of another history: what the restored tables say of themselves counts.
        let last = match self.last.get(pool).filter(|(at, _)| *at <= head) {
            Some(last) => Some(last.clone()),
            None => self.store.scope_counts(pool).await?,
        };
        let why = match last {
            // Nothing is gone: nothing to be explained.
            Some((_, last)) if last.iter().all(|(org, rows)| now.get(org).is_some_and(|now| now.covers(rows))) => None,
            Some((at, last)) => {
                let log = self.store.accounted(pool, at, head).await?;
                let moved = |org: &Uuid| all.get(org).is_some_and(|part| part.pool != pool);
                unaccounted(&last, now, &log, moved).map(|what| {
                    format!(
                        "{what} since version {at}, and no recorded change did that: what was published stays; bring the rows \
                             back, or let it through with `mcpgw config accept --pool {pool} --reason …`"
                    )
                })
            }
            None => None,
        };
        let held = why.is_some();
        match why {
            Some(why) => self.hold(pool, why),
            None => self.release(pool),
        }
        if held {
            self.seen = Some(self.store.totals().await?);
        }
        Ok(held)
    }

    fn hold(&mut self, pool: &str, why: String) {
        if self.holds.get(pool) != Some(&why) {
            error!(pool, "pool {pool} is held: {why}");
            self.holds.insert(pool.to_owned(), why);
        }
    }

    /// The pool's rows are as before, or what is missing is accounted for.
    pub fn release(&mut self, pool: &str) {
        if self.holds.remove(pool).is_some() {
            info!(pool, "pool {pool} is not held any more");
        }
    }

    /// Forgets pools that are no more.
    pub fn keep(&mut self, pools: &BTreeSet<String>) {
        self.last.retain(|pool, _| pools.contains(pool));
        self.holds.retain(|pool, _| pools.contains(pool));
    }

    /// What a pool has now got.
    pub fn published(&mut self, pool: &str, at: Version, counts: Counts) {
        self.last.insert(pool.to_owned(), (at, counts));
    }

    /// Why pools are held; counts them.
    pub fn tell(&self, metrics: &Metrics) -> BTreeMap<String, String> {
        metrics.held.set(i64::try_from(self.holds.len()).unwrap_or(i64::MAX));
        self.holds.clone()
    }

    /// Whether the tables must be read again though there is no new version: what was missing may be back.
    pub async fn must_look(&self) -> Result<bool, store::Error> {
        Ok(!self.holds.is_empty() && self.seen != Some(self.store.totals().await?))
    }
}

/// Whether something was published, or held, of each of these pools and of no other.
pub fn tells_of(published: &Published, pools: &BTreeSet<String>) -> bool {
    published.scopes.keys().chain(published.holds.keys()).collect::<BTreeSet<_>>() == pools.iter().collect()
}

/// What of each organisation of a pool is published.
pub fn counts(orgs: &Orgs) -> Counts {
    orgs.iter().map(|(id, part)| (*id, part.rows)).collect()
}

/// What is missing and not accounted for, if it is more than a guard lets through: more than half of the pool's servers, policies or limits,
/// or all servers, all policies or all limits of an organisation that had servers.
fn unaccounted(last: &Counts, now: &Counts, log: &Accounted, moved: impl Fn(&Uuid) -> bool) -> Option<String> {
    if log.accepted {
        return None;
    }
    let (mut had, mut missing) = ([0_u32; KINDS.len()], [0_u32; KINDS.len()]);
    let mut emptied = Vec::new();
    for (org, rows) in last.iter().filter(|(org, _)| !log.deleted.contains(org) && !moved(org)) {
        let net = log.net.get(org).copied().unwrap_or_default();
        let (was, net) = (each(*rows), [net.0, net.1, net.2]);
        let is = each(now.get(org).copied().unwrap_or_default());
        let gone = |kind: usize| {
            let gone = i64::from(was[kind]) + net[kind] - i64::from(is[kind]);
            u32::try_from(gone).unwrap_or_default().min(was[kind])
        };
        for kind in 0..KINDS.len() {
            had[kind] += was[kind];
            missing[kind] += gone(kind);
        }
        if rows.servers > 0 && (0..KINDS.len()).any(|kind| gone(kind) > 0 && is[kind] == 0) {
            emptied.push(org.to_string());
        }
    }
    let most = (0..KINDS.len()).any(|kind| missing[kind] * 2 > had[kind]);
    if !most && emptied.is_empty() {
        return None;
    }
    let gone = (0..KINDS.len()).filter(|kind| missing[*kind] > 0);
    let gone: Vec<String> = gone.map(|kind| format!("{} of {} {}", missing[kind], had[kind], KINDS[kind])).collect();
    let mut text = format!("{} vanished", gone.join(" and "));
    if !emptied.is_empty() {
        let more = emptied.len().saturating_sub(3);
        emptied.truncate(3);
        text.push_str(&format!(", all servers, all policies or all limits of organisation {}", emptied.join(", ")));
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
    }
    Some(text)
}

/// What is counted, in the order of [`each`].
const KINDS: [&str; 3] = ["servers", "policies", "limits"];

fn each(rows: Rows) -> [u32; KINDS.len()] {
    [rows.servers, rows.policies, rows.limits]
}
