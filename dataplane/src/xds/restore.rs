//! The start of a node: what is on disk comes in force before anybody can connect, and before a control plane is asked.
//! Called by [`crate::app`] once, before it listens. Revocations first: nothing is served that a restart would un-revoke.

use std::io;
use std::path::Path;
use std::sync::Arc;

use mcp_gateway::proto::config::v1::{Endpoints, Revocation};

use super::last_good::{LastGood, Received};
use super::vault::Vault;
use super::{Stats, store};
use crate::live::Live;
use crate::node::Identity;

/// What came in force from disk, and where to keep what comes next. [`super::Client`] goes on from it.
pub struct Restored {
    pub(super) vault: Arc<Vault>,
    pub(super) last_good: Arc<LastGood>,
    /// The revocations and their version.
    pub(super) revocation: Option<(Revocation, String)>,
    /// The version of the states of endpoints.
    pub(super) endpoints: Option<String>,
    pub(super) received: Option<Received>,
}

/// Puts the stored revocations in force, then the newest snapshot that can be used; an expired certificate does not matter.
/// Blocks for the time of a compilation. Fails only if the state directory cannot be used at all.
pub fn restore(state_dir: &Path, live: &Live, stats: &Stats) -> io::Result<Restored> {
    let vault = Arc::new(Vault::open(state_dir)?);
    let last_good = Arc::new(LastGood::new(state_dir, Arc::clone(&vault)));
    let mut restored = Restored { vault, last_good, revocation: None, endpoints: None, received: None };
    match store::load::<Revocation>(&restored.vault, state_dir, store::REVOCATIONS) {
        Ok(None) => {}
        Ok(Some((revocation, version))) => {
            live.revoke(&revocation);
            restored.revocation = Some((revocation, version));
        }
        Err(error) => {
            tracing::error!("nothing is served until a control plane was reached: {error}");
            return Ok(restored);
        }
    }
    match store::load::<Endpoints>(&restored.vault, state_dir, store::ENDPOINTS) {
        Ok(None) => {}
        Ok(Some((endpoints, version))) => {
            live.set_endpoints(&endpoints);
            restored.endpoints = Some(version);
        }
        // Not worth an outage.
        Err(error) => tracing::error!("every endpoint is in use until a control plane was reached: {error}"),
    }
    let identity = match Identity::load(state_dir) {
        Ok(Some(identity)) => identity,
        // Joining follows, and tells what is wrong.
        Ok(None) | Err(_) => return Ok(restored),
    };
    let Some(found) = restored.last_good.load(&identity) else { return Ok(restored) };
    let (version, report) = (found.snapshot.version(), found.snapshot.report());
    live.swap(found.snapshot);
    stats.swapped(version);
    // A clock that was set back makes it 0.
    let age = found.confirmed.elapsed().unwrap_or_default();
    stats.restored(age);
    tracing::info!(
        config.epoch = version.epoch,
        config.version = version.version,
        "configuration {version} is in force from disk; a control plane confirmed it {} s ago",
        age.as_secs()
    );
    for problem in report {
        tracing::error!(config.epoch = version.epoch, config.version = version.version, "not in force of it: {problem}");
    }
    restored.received = Some(found.received);
    Ok(restored)
}

#[cfg(test)]
mod tests;
