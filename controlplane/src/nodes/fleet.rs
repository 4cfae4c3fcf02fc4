//! The nodes whose discovery streams are here, what they run, and the row of each in `node_status`.
//!
//! Streams take a [`Seat`] and tell it what happens; one task writes what changed, many nodes in one statement. A node has one seat:
//! a second stream of the same node ends the first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mcp_gateway::snapshot::Version;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    store::{Store, nodes::Seen},
    tasks::Tasks,
};

/// How often streams that are open are confirmed; a replica that does not is believed dead after 45 s.
const CONFIRM: Duration = Duration::from_secs(10);
/// The pause after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Names this run of this replica.
    replica: String,
    state: Mutex<State>,
    dirty: Notify,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<Uuid, Stream>,
    /// What the database does not know yet.
    unwritten: BTreeMap<Uuid, Seen>,
    opened: u64,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    superseded: CancellationToken,
}

/// A node's open stream. Dropped, the node is not connected here any more.
#[derive(Debug)]
pub struct Seat {
    fleet: Fleet,
    node_id: Uuid,
    number: u64,
    superseded: CancellationToken,
}

impl Fleet {
    pub fn new(replica: String) -> Self {
        let (state, dirty) = (Mutex::new(State::default()), Notify::new());
        Self { inner: Arc::new(Inner { replica, state, dirty }) }
    }

    /// Names this run of this replica.
    pub fn replica(&self) -> &str {
        &self.inner.replica
    }

    /// Takes the node's seat; whoever had it is told to go.
    pub fn seat(&self, node_id: Uuid) -> Seat {
        let superseded = CancellationToken::new();
        let mut state = self.state();
        state.opened += 1;
        let number = state.opened;
        let before = state.streams.insert(node_id, Stream { number, superseded: superseded.clone() });
        if let Some(before) = before {
            warn!(node.id = %node_id, "node {node_id} opened a second stream: the first one ends");
            before.superseded.cancel();
        }
        self.note(state, node_id, |seen| seen.connected = true);
        Seat { fleet: self.clone(), node_id, number, superseded }
    }

    /// How many streams are open here.
    pub fn len(&self) -> usize {
        self.state().streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps `node_status` current until the app stops, then says that nobody is connected here.
    pub async fn write(self, store: Store, tasks: Tasks) {
        let stop = tasks.stop_token().clone();
        let mut confirm = tokio::time::interval(CONFIRM);
        confirm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inner.dirty.notified() => {}
                _ = confirm.tick() => self.confirm(),
                () = stop.cancelled() => break,
            }
            if !self.flush(&store).await {
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => self.inner.dirty.notify_one(),
                    () = stop.cancelled() => break,
                }
            }
        }
        self.part();
        self.flush(&store).await;
    }

    /// Writes what changed. False: it did not work and is kept.
    async fn flush(&self, store: &Store) -> bool {
        let unwritten = std::mem::take(&mut self.state().unwritten);
        if unwritten.is_empty() {
            return true;
        }
        let rows: Vec<Seen> = unwritten.values().cloned().collect();
        match store.note_seen(self.replica(), &rows).await {
            Ok(()) => true,
            Err(error) => {
                debug!(%error, "the state of {} nodes is not written yet", rows.len());
                let mut state = self.state();
                for (node_id, older) in unwritten {
                    let newer = state.unwritten.remove(&node_id);
                    state.unwritten.insert(node_id, newer.map_or(older.clone(), |newer| merged(older, newer)));
                }
                false
            }
        }
    }

    /// Open streams are written again, so that other replicas see that they are.
    fn confirm(&self) {
        let mut state = self.state();
        let nodes: Vec<Uuid> = state.streams.keys().copied().collect();
        for node_id in nodes {
            state.unwritten.entry(node_id).or_insert_with(|| seen(node_id)).connected = true;
        }
    }

    fn part(&self) {
        let mut state = self.state();
        let nodes: Vec<Uuid> = state.streams.keys().copied().collect();
        for node_id in nodes {
            state.unwritten.entry(node_id).or_insert_with(|| seen(node_id)).connected = false;
        }
    }

    fn note(&self, mut state: MutexGuard<'_, State>, node_id: Uuid, edit: impl FnOnce(&mut Seen)) {
        edit(state.unwritten.entry(node_id).or_insert_with(|| seen(node_id)));
        drop(state);
        self.inner.dirty.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The node runs this version, except for what `problems` name.
    pub fn applied(&self, version: Version, problems: Vec<String>) {
        self.note(|seen| {
            seen.applied = Some(version);
            seen.refused = Some(Version::default());
            seen.problems = Some(problems);
        });
    }

    /// The node refused something of this version and runs what it ran.
    pub fn refused(&self, version: Version, problems: Vec<String>) {
        self.note(|seen| {
            seen.refused = Some(version);
            seen.problems = Some(problems);
        });
    }

    /// Where other nodes reach the node, as it says; empty: nowhere.
    pub fn advertises(&self, address: String) {
        self.note(|seen| seen.advertise = Some(address));
    }

    /// Resolves when another stream of the node takes the seat.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    fn note(&self, edit: impl FnOnce(&mut Seen)) {
        let state = self.fleet.state();
        // What an older stream of the node says does not count any more.
        if state.streams.get(&self.node_id).is_some_and(|stream| stream.number == self.number) {
            self.fleet.note(state, self.node_id, |seen| {
                seen.connected = true;
                edit(seen);
            });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.fleet.state();
        if state.streams.get(&self.node_id).is_some_and(|stream| stream.number == self.number) {
            state.streams.remove(&self.node_id);
            self.fleet.note(state, self.node_id, |seen| seen.connected = false);
        }
    }
}

fn seen(node_id: Uuid) -> Seen {
    Seen { node_id, connected: true, applied: None, refused: None, problems: None, advertise: None }
}

fn merged(older: Seen, newer: Seen) -> Seen {
    Seen {
        applied: newer.applied.or(older.applied),
        refused: newer.refused.or(older.refused),
        problems: newer.problems.or(older.problems),
        advertise: newer.advertise.or(older.advertise),
        ..newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwritten(fleet: &Fleet) -> Vec<Seen> {
        std::mem::take(&mut fleet.state().unwritten).into_values().collect()
    }

    const NODE: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_seat_says_what_its_node_runs() {
        let fleet = Fleet::new("r".into());
        let seat = fleet.seat(NODE);
        assert_eq!(unwritten(&fleet), [seen(NODE)]);
        let version = Version { epoch: 1, version: 7 };
        seat.applied(version, Vec::new());
        let newer = Version { epoch: 1, version: 8 };
        seat.refused(newer, vec!["bad".into()]);
        let expected = Seen { applied: Some(version), refused: Some(newer), problems: Some(vec!["bad".into()]), ..seen(NODE) };
        assert_eq!(unwritten(&fleet), [expected]);
        drop(seat);
        assert_eq!(unwritten(&fleet), [Seen { connected: false, ..seen(NODE) }]);
        assert!(fleet.is_empty());
    }

    #[tokio::test]
    async fn a_second_stream_of_a_node_ends_the_first_and_outlives_it() {
        let fleet = Fleet::new("r".into());
        let first = fleet.seat(NODE);
        let second = fleet.seat(NODE);
        first.superseded().await;
        first.applied(Version { epoch: 1, version: 1 }, Vec::new());
        drop(first);
        assert_eq!(unwritten(&fleet), [seen(NODE)], "the first has nothing to say any more");
        second.applied(Version { epoch: 1, version: 2 }, Vec::new());
        assert_eq!(unwritten(&fleet).len(), 1);
        assert_eq!(fleet.len(), 1);
    }
}
