//! What running rollouts would make of their organisations, encoded like any other. Called by [`super::publisher`], within the moment that it reads.

use std::{collections::BTreeMap, sync::Arc};

use tracing::error;

use super::{
    build::{OrgPart, Orgs},
    publisher::{Error, encode_orgs},
};
use crate::{
    keys::Keys,
    store::{self, rollouts::Running},
};

/// An organisation as a running rollout would have it.
pub struct Candidate {
    pub rollout: Running,
    /// What stands in its place at all other nodes.
    stable: Arc<OrgPart>,
    pub part: Arc<OrgPart>,
}

/// The candidates of the rollouts that are running, by pool; `known` ones are taken over where nothing about them changed. One that cannot be
/// read is left out: then its canaries get what all others do, do not take it, for it is older, and the rollout halts for that.
pub async fn read(
    tx: &mut store::Connection,
    known: &BTreeMap<String, Candidate>,
    parts: &Orgs,
    keys: &Arc<Keys>,
) -> Result<BTreeMap<String, Candidate>, Error> {
    let mut candidates = BTreeMap::new();
    for rollout in store::rollouts::running(tx).await? {
        let Some(stable) = parts.get(&rollout.org_id).cloned() else { continue };
        let known = known.get(&rollout.pool);
        let known = known.filter(|known| known.rollout == rollout && Arc::ptr_eq(&known.stable, &stable));
        let part = match known {
            Some(known) => Some(Arc::clone(&known.part)),
            None => read_one(tx, &rollout, &stable, keys).await?,
        };
        let Some(part) = part else { continue };
        candidates.insert(rollout.pool.clone(), Candidate { rollout, stable, part });
    }
    Ok(candidates)
}

/// Encodes a candidate, with the keys that the organisation has now.
async fn read_one(
    tx: &mut store::Connection,
    rollout: &Running,
    stable: &OrgPart,
    keys: &Arc<Keys>,
) -> Result<Option<Arc<OrgPart>>, Error> {
    // Within a savepoint: a candidate in a form that this version does not know must not end the reading of everything else.
    let mut part = store::begin_within(tx).await?;
    let rows = match store::rollouts::candidate(&mut part, rollout.id).await {
        Ok(Some(rows)) => rows,
        Ok(None) => return Ok(None),
        Err(store::Error::Internal(cause)) => {
            error!(%cause, rollout = %rollout.id, "the candidate of rollout {} cannot be read: abort it", rollout.id);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let api_keys = BTreeMap::from([(rollout.org_id, stable.keys.values().flatten().cloned().collect())]);
    Ok(encode_orgs(Arc::clone(keys), vec![rows], api_keys).await?.remove(&rollout.org_id))
}
