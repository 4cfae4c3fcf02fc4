//! What organisations in quarantine are served from, in a form that outlives the process: their bundles as they were when they were good.
//! A node keeps it beside the snapshot, in a file that only it can have written; no manifest covers it any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::org::read_org;
use super::quarantine::{Judged, Quarantine};
use super::staged::Held;
use super::{ContentHash, Snapshot};
use crate::proto::config::v1::UpstreamCredential;

/// By the id of the organisation. Those that are denied are here, too, with nothing to be served from.
pub type Fallbacks = BTreeMap<String, Fallback>;

/// The last good configuration of one organisation.
#[derive(Clone, Default, PartialEq)]
pub struct Fallback {
    /// By name, as received.
    pub bundles: BTreeMap<String, Bytes>,
    /// What its servers name and the secrets of the version do not hold any more; in plain text.
    pub credentials: Vec<UpstreamCredential>,
}

/// Says how many; contents are secret.
impl std::fmt::Debug for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fallback({} bundles, {} credentials)", self.bundles.len(), self.credentials.len())
    }
}

impl Snapshot {
    /// What [`super::restore`] needs beside the resources of this version to come to the same.
    #[must_use]
    pub fn fallbacks(&self) -> Fallbacks {
        self.quarantined.keys().map(|id| (id.to_string(), self.fallback(id))).collect()
    }

    fn fallback(&self, id: &str) -> Fallback {
        let Some(org) = self.org(id) else { return Fallback::default() };
        let kept = org.servers.values().filter_map(|server| self.kept_credentials.get(server.credential_id.as_deref()?));
        Fallback {
            bundles: org.bundles.iter().map(|(name, held)| (name.clone(), held.body.clone())).collect(),
            credentials: kept.cloned().collect(),
        }
    }

    /// A snapshot of nothing but fallbacks, for the compilation to fall back to. What does not compile any more is not in it.
    pub(super) fn of_fallbacks(fallbacks: &Fallbacks) -> Self {
        let credentials: HashMap<_, _> = fallbacks
            .values()
            .flat_map(|fallback| &fallback.credentials)
            .map(|credential| (credential.id.clone(), credential.clone()))
            .collect();
        let mut judged = Judged::default();
        for (id, fallback) in fallbacks {
            let held: Vec<(&str, Held)> = fallback
                .bundles
                .iter()
                .map(|(name, body)| (name.as_str(), Held { hash: ContentHash::of(body), body: body.clone() }))
                .collect();
            let held: Vec<(&str, &Held)> = held.iter().map(|(name, held)| (*name, held)).collect();
            if !held.is_empty()
                && let Ok(org) = read_org(id, &held, None).found
            {
                judged.add(org);
            }
            let quarantine = Quarantine { problems: Vec::new(), serving: None };
            judged.quarantined.insert(Arc::from(id.as_str()), quarantine);
        }
        Self { credentials, ..Self::of(judged) }
    }
}
