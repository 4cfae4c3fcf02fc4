//! Rows to bundles to a signed manifest, per pool, encoded once and shared by every stream.
//!
//! Owns what is published; never talks to a node. Called by `app`; read by [`crate::xds`] and [`crate::api`].

pub mod build;
mod candidates;
mod guard;
pub mod metrics;
pub mod publisher;
pub mod scope;
mod settle;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{
    app::Core,
    store::publish::{Head, Voids},
};
use metrics::Metrics;
use publisher::Publisher;
use scope::{Beside, Scope};

/// Everything published, as of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The version that was read. A scope's own version is the last one that changed it.
    pub head: Head,
    /// By pool.
    pub scopes: BTreeMap<String, Arc<Scope>>,
    /// By pool: what its canaries get instead, while a rollout runs.
    pub trials: BTreeMap<String, Arc<Trial>>,
    /// By pool.
    pub beside: BTreeMap<String, Arc<Beside>>,
    pub voids: Arc<Voids>,
    /// By pool: why its newest content is not published (see [`guard`]). Its scope is an older one, or there is none.
    pub holds: BTreeMap<String, String>,
}

/// What the canaries of a running rollout get. Who they are is a matter of the version, like the rest: the same on every replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub rollout: Uuid,
    pub canaries: BTreeSet<Uuid>,
    pub scope: Arc<Scope>,
}

impl Published {
    /// What a node of a pool gets; none: there is no such pool.
    pub fn scope(&self, pool: &str, node: Uuid) -> Option<&Arc<Scope>> {
        let trial = self.trials.get(pool).filter(|trial| trial.canaries.contains(&node));
        trial.map(|trial| &trial.scope).or_else(|| self.scopes.get(pool))
    }
}

/// What is published, and its changes. None before the first load: nothing is served then, rather than nothing at all.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publications {
    published: watch::Sender<Option<Arc<Published>>>,
    wake: Arc<Notify>,
    metrics: Metrics,
}

impl Publications {
    /// Publishes nothing until [`Publications::start`].
    pub fn new(metrics: &crate::metrics::Metrics) -> Self {
        Self { published: watch::Sender::new(None), wake: Arc::new(Notify::new()), metrics: Metrics::register(metrics) }
    }

    /// Starts publishing. Database and keys have been reached.
    pub fn start(&self, core: &Core) {
        core.tasks.supervise("publisher", {
            let (core, this) = (core.clone(), self.clone());
            move || Publisher::new(core.clone(), this.metrics.clone(), this.published.clone()).run(Arc::clone(&this.wake))
        });
        core.tasks.supervise("config-listener", {
            let (core, wake) = (core.clone(), Arc::clone(&self.wake));
            move || publisher::listen(core.clone(), Arc::clone(&wake))
        });
    }

    /// As of now.
    pub fn now(&self) -> Option<Arc<Published>> {
        self.published.borrow().clone()
    }

    /// To wait for changes with.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.published.subscribe()
    }

    /// Looks at the database now rather than within a second.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}
