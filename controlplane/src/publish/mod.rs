//! Rows to bundles to a signed manifest, per pool, encoded once and shared by every stream.
//!
//! Owns what is published; never talks to a node. Called by `app`; read by [`crate::xds`] and [`crate::api`].

pub mod build;
pub mod metrics;
pub mod publisher;
pub mod scope;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{Notify, watch};

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
    /// By pool.
    pub beside: BTreeMap<String, Arc<Beside>>,
    pub voids: Arc<Voids>,
}

/// What is published, and its changes. None before the first load: nothing is served then, rather than nothing at all.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publications {
    published: watch::Receiver<Option<Arc<Published>>>,
    wake: Arc<Notify>,
}

impl Publications {
    /// Starts publishing.
    pub fn start(core: &Core) -> Self {
        let (sender, published) = watch::channel(None);
        let wake = Arc::new(Notify::new());
        let metrics = Metrics::register(&core.metrics);
        core.tasks.supervise("publisher", {
            let (core, wake) = (core.clone(), Arc::clone(&wake));
            move || Publisher::new(core.clone(), metrics.clone(), sender.clone()).run(Arc::clone(&wake))
        });
        core.tasks.supervise("config-listener", {
            let (core, wake) = (core.clone(), Arc::clone(&wake));
            move || publisher::listen(core.clone(), Arc::clone(&wake))
        });
        Self { published, wake }
    }

    /// As of now.
    pub fn now(&self) -> Option<Arc<Published>> {
        self.published.borrow().clone()
    }

    /// To wait for changes with.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.published.clone()
    }

    /// Looks at the database now rather than within a second.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}
