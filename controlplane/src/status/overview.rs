//! The whole fleet at one moment, looked at once for everybody who asks: single answers, watchers, and the metrics page.
//!
//! However many watch, the database is asked by one task, at most twice a second, and only while somebody watches.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Turn, Notify, watch},
    time::Instant,
};
use tracing::debug;
use uuid::Uuid;

use super::{Look, metrics::Metrics};
use crate::{
    app::Core,
    store::{self, nodes::Node, publish::Head},
};

/// The pause between two looks while somebody watches; longer where a look takes long, so that looking costs a tenth at most.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a look may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Watchers of one replica.
const MAX_WATCHERS: usize = 200;
/// Watchers of one user.
const MAX_PER_USER: usize = 10;

/// The newest committed version, and every node.
#[derive(Debug)]
pub struct Whole {
    pub head: Head,
    pub look: Look,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Overview {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    replica: String,
    /// The last look and when it began. Whoever holds it looks; the others wait for what it finds.
    last: Turn<Option<(Instant, Arc<Whole>)>>,
    /// What watchers were shown last.
    shown: watch::Sender<Option<Arc<Whole>>>,
    watchers: Mutex<BTreeMap<Uuid, usize>>,
    watched: Notify,
    metrics: Metrics,
}

/// Why the fleet could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("looking at the nodes took longer than {DEADLINE:?}")]
    Slow,
}

/// A watcher's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    user: Uuid,
}

impl Overview {
    pub fn new(replica: String, metrics: &crate::metrics::Metrics) -> Self {
        let inner = Inner {
            replica,
            last: Turn::default(),
            shown: watch::Sender::new(None),
            watchers: Mutex::default(),
            watched: Notify::new(),
            metrics: Metrics::register(metrics),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Names this run of this replica.
    pub fn replica(&self) -> &str {
        &self.inner.replica
    }

    /// Brings the numbers of the fleet up to date.
    pub async fn sample(&self, core: &Core) {
        self.inner.metrics.sample(core, self).await;
    }

    /// A look that began at most `age` before this call.
    pub async fn within(&self, core: &Core, age: Duration) -> Result<Arc<Whole>, Error> {
        let asked = Instant::now();
        let mut last = self.inner.last.lock().await;
        if let Some((began, whole)) = last.as_ref().filter(|(began, _)| *began + age >= asked) {
            debug!("an answer {:?} old will do", began.elapsed());
            return Ok(Arc::clone(whole));
        }
        let began = Instant::now();
        let whole = tokio::time::timeout(DEADLINE, look(core)).await.map_err(|_elapsed| Error::Slow)??;
        let whole = Arc::new(whole);
        *last = Some((began, Arc::clone(&whole)));
        Ok(whole)
    }

    /// To watch with: changes whenever something did that a viewer may be shown.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Whole>>> {
        self.inner.shown.subscribe()
    }

    /// A place among the watchers; none: there are too many, in all or of this user.
    pub fn place(&self, user: Uuid) -> Option<Place> {
        let mut watchers = self.inner.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.values().sum::<usize>() >= MAX_WATCHERS || watchers.get(&user).is_some_and(|of_user| *of_user >= MAX_PER_USER)
        {
            return None;
        }
        *watchers.entry(user).or_default() += 1;
        self.inner.metrics.watchers.inc();
        drop(watchers);
        self.inner.watched.notify_one();
        Some(Place { inner: Arc::clone(&self.inner), user })
    }

    fn is_watched(&self) -> bool {
        !self.inner.watchers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Looks while somebody watches, until the app stops.
    pub async fn run(self, core: Core) {
        let stop = core.tasks.stop_token().clone();
        loop {
            let pause = if self.is_watched() {
                self.show(&core).await
            } else {
                self.inner.shown.send_replace(None);
                Duration::MAX
            };
            tokio::select! {
                () = self.inner.watched.notified(), if pause == Duration::MAX => {}
                () = tokio::time::sleep(pause), if pause < Duration::MAX => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Shows what changed, and returns how long to wait with the next look.
    async fn show(&self, core: &Core) -> Duration {
        let began = Instant::now();
        match self.within(core, Duration::ZERO).await {
            Ok(whole) => {
                self.inner.shown.send_if_modified(|shown| {
                    let changed = !shown.as_ref().is_some_and(|shown| same(shown, &whole));
                    if changed {
                        *shown = Some(whole);
                    }
                    changed
                });
            }
            // Watchers keep what they were shown; the health of the database is told elsewhere.
            Err(error) => debug!(%error, "cannot look at the nodes"),
        }
        PAUSE.max(began.elapsed() * 9)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut watchers = self.inner.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.metrics.watchers.dec();
        if let Some(of_user) = watchers.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                watchers.remove(&self.user);
            }
        }
    }
}

async fn look(core: &Core) -> Result<Whole, store::Error> {
    // What is published may be newer than this head, never older than what a later look sees.
    let head = core.store.head().await?;
    let nodes = core.store.all_nodes().await?;
    Ok(Whole { head, look: Look::at(core, nodes).await? })
}

/// Whether two looks show the same, save for times that only go on.
fn same(one: &Whole, other: &Whole) -> bool {
    fn lasting(node: &Node) -> Node {
        Node { last_seen_at: None, reported_at: None, vitals: crate::store::node_status::Vitals::default(), ..node.clone() }
    }
    one.head == other.head
        && one.look.same_publication(&other.look)
        && one.look.nodes.len() == other.look.nodes.len()
        && one.look.nodes.iter().zip(&other.look.nodes).all(|(one, other)| lasting(one) == lasting(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_every_place_and_places_come_back() {
        let overview = Overview::new("r".into(), &crate::metrics::Metrics::default());
        let user = Uuid::from_u128(1);
        let mut held: Vec<_> = (0..MAX_PER_USER).map(|_| overview.place(user).unwrap()).collect();
        assert!(overview.place(user).is_none());
        held.pop();
        held.push(overview.place(user).unwrap());
        for n in 2.. {
            match overview.place(Uuid::from_u128(n)) {
                Some(place) => held.push(place),
                None => break,
            }
        }
        assert_eq!(held.len(), MAX_WATCHERS);
        drop(held);
        assert!(!overview.is_watched());
    }
}
