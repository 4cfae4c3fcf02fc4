//! Keeps on disk what is in force, behind the stream and never in its way: a newer configuration replaces one that waits. So do newer
//! states of endpoints. Revocations are not kept here: their acknowledgement waits for the disk.
//! Also notes there, once a minute, that the configuration is still the one. A disk that fails stops nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::last_good::{LastGood, Received};
use super::vault::Vault;
use super::{Stats, store};

/// How often a confirmation is noted: what `mcpgw_config_stale_seconds` may be wrong by after a crash.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Keeper {
    pub last_good: Arc<LastGood>,
    pub stats: Arc<Stats>,
    /// What came in force last.
    pub in_force: watch::Receiver<Option<Received>>,
    /// The states of endpoints that came last, as received.
    pub endpoints: watch::Receiver<Vec<u8>>,
    pub vault: Arc<Vault>,
    pub state_dir: PathBuf,
}

impl Keeper {
    /// Runs until nothing can come in force any more, and everything that did is on disk.
    pub async fn run(mut self) {
        let mut minute = interval(CONFIRM_EVERY);
        minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // Before the other, which says when it is over; once this one is over there is nothing to see here.
                Ok(()) = self.endpoints.changed() => self.save_endpoints().await,
                changed = self.in_force.changed() => match changed {
                    Ok(()) => self.save().await,
                    Err(_) => return, // the last one was seen
                },
                _ = minute.tick() => self.confirm().await,
            }
        }
    }

    async fn save(&mut self) {
        let Some(received) = self.in_force.borrow_and_update().clone() else { return };
        let last_good = Arc::clone(&self.last_good);
        let saved = spawn_blocking(move || last_good.save(&received)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        match saved {
            Ok(()) => {
                self.stats.saved.fetch_add(1, Relaxed);
                tracing::debug!("the configuration in force is on disk");
            }
            Err(error) => {
                self.stats.save_failures.fetch_add(1, Relaxed);
                tracing::error!("the configuration is in force, but not on disk: a restart falls back to an older one: {error}");
            }
        }
    }

    async fn save_endpoints(&mut self) {
        let body = self.endpoints.borrow_and_update().clone();
        let (vault, dir) = (Arc::clone(&self.vault), self.state_dir.clone());
        let saved = spawn_blocking(move || store::save(&vault, &dir, store::ENDPOINTS, &body)).await;
        if let Err(error) = saved.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::error!("the states of endpoints are in force, but not on disk: a restart falls back to older ones: {error}");
        }
    }

    async fn confirm(&self) {
        let Some(received) = self.in_force.borrow().clone().filter(|_| self.stats.is_confirmed()) else { return };
        let last_good = Arc::clone(&self.last_good);
        let noted = spawn_blocking(move || last_good.confirm(&received.manifest)).await;
        if let Ok(Err(error)) = noted {
            tracing::debug!("the confirmation of the configuration is not noted on disk: {error}");
        }
    }
}
