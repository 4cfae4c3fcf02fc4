//! What is in force right now: one snapshot, one set of revocations with a signal when either changes, and what else travels beside.
//! Owns the swap and the end of old snapshots. Never decides anything. The xDS client swaps; requests and long streams read.

mod drained;

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use mcp_gateway::proto::config::v1::{Endpoints, Peer, Peers, Revocation};
use mcp_gateway::snapshot::{Org, Snapshot};
use tokio::sync::watch;
use uuid::Uuid;

pub use drained::Drained;

/// How long a snapshot that requests still hold waits for the next look at it.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);
/// Snapshots that may wait to be dropped before a swap waits too.
const RETIRED: usize = 64;

/// The configuration in force. Cheap to read from any thread; share it as `Arc<Live>`.
pub struct Live {
    snapshot: ArcSwapOption<Snapshot>,
    revocations: ArcSwap<Revocations>,
    drained: ArcSwap<Drained>,
    peers: ArcSwap<Vec<Peer>>,
    /// The node's own id.
    node: ArcSwap<String>,
    changes: watch::Sender<u64>,
    retired: Mutex<SyncSender<Retired>>,
}

/// What was in force. A stream may hold its organisation for longer than anybody holds the snapshot.
struct Retired {
    snapshot: Arc<Snapshot>,
    /// Those that the next snapshot does not have as they were.
    orgs: Vec<Arc<Org>>,
}

/// What is void before it expires.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    keys: HashSet<String>,
    sessions: HashSet<String>,
    /// Subject to the moment before which its tokens are void, in seconds since the Unix epoch.
    subjects: HashMap<String, i64>,
}

impl Live {
    /// Nothing is in force yet. Starts the thread that drops old snapshots; it ends with this value.
    pub fn new() -> std::io::Result<Self> {
        let (retired, queue) = sync_channel(RETIRED);
        thread::Builder::new().name("snapshot-reclaim".into()).spawn(move || reclaim(&queue))?;
        Ok(Self {
            snapshot: ArcSwapOption::empty(),
            revocations: ArcSwap::default(),
            drained: ArcSwap::default(),
            peers: ArcSwap::default(),
            node: ArcSwap::from_pointee(Uuid::now_v7().to_string()),
            changes: watch::Sender::new(0),
            retired: Mutex::new(retired),
        })
    }

    /// The snapshot in force: one call per request, held to its end. `None` until the first configuration arrived.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// The revocations in force; read again for every message of a long stream.
    #[must_use]
    pub fn revocations(&self) -> Arc<Revocations> {
        self.revocations.load_full()
    }

    /// The endpoints that get no calls. For one look: not to be held over an await.
    #[must_use]
    pub fn drained(&self) -> Guard<Arc<Drained>> {
        self.drained.load()
    }

    /// The pool's nodes and their addresses.
    #[must_use]
    pub fn peers(&self) -> Arc<Vec<Peer>> {
        self.peers.load_full()
    }

    /// The node's id: what the control plane gave it, or what it made up for want of one.
    #[must_use]
    pub fn node(&self) -> Arc<String> {
        self.node.load_full()
    }

    /// Says which node this is.
    pub fn set_node(&self, id: String) {
        self.node.store(Arc::new(id));
    }

    /// Puts a snapshot in force. The one before is dropped by the reclaiming thread, once no request or stream holds anything of it.
    pub fn swap(&self, next: Arc<Snapshot>) {
        let Some(previous) = self.snapshot.swap(Some(next.clone())) else {
            return self.changed_now();
        };
        self.changed_now();
        let stays = |org: &Arc<Org>| next.org(&org.id).is_some_and(|same| Arc::ptr_eq(same, org));
        let orgs = previous.orgs().filter(|org| !stays(org)).cloned().collect();
        let previous = Retired { snapshot: previous, orgs };
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // Only fails when the thread is gone, and then dropping here is all that is left.
        drop(retired.send(previous));
    }

    /// Puts a set of revocations in force, in place of the one before.
    pub fn revoke(&self, revocation: &Revocation) {
        self.revocations.store(Arc::new(Revocations::from(revocation)));
        self.changed_now();
    }

    /// Replaces what is known of endpoints. Calls in flight are not touched.
    pub fn set_endpoints(&self, endpoints: &Endpoints) {
        self.drained.store(Arc::new(Drained::from(endpoints)));
    }

    /// Replaces the addresses of the pool's nodes.
    pub fn set_peers(&self, peers: Peers) {
        self.peers.store(Arc::new(peers.peers));
    }

    /// Changes whenever a snapshot or revocations came in force: open streams are judged again then.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed_now(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Revocations {
    /// Whether the API key with this id was revoked.
    #[must_use]
    pub fn key_revoked(&self, key_id: &str) -> bool {
        self.keys.contains(key_id)
    }

    /// Whether the login session with this id (the claim `sid`) was revoked.
    #[must_use]
    pub fn session_revoked(&self, session_id: &str) -> bool {
        self.sessions.contains(session_id)
    }

    /// Whether a token of `subject` issued at `issued_at` (seconds since the Unix epoch) is void.
    #[must_use]
    pub fn subject_void(&self, subject: &str, issued_at: i64) -> bool {
        self.subjects.get(subject).is_some_and(|not_before| issued_at < *not_before)
    }
}

impl From<&Revocation> for Revocations {
    fn from(revocation: &Revocation) -> Self {
        let mut subjects = HashMap::new();
        for revoked in &revocation.subjects {
            let not_before = subjects.entry(revoked.subject.clone()).or_insert(i64::MIN);
            *not_before = revoked.not_before.max(*not_before);
        }
        Self {
            keys: revocation.api_keys.iter().cloned().collect(),
            sessions: revocation.login_sessions.iter().cloned().collect(),
            subjects,
        }
    }
}

/// Holds what was in force until nobody else does, so that freeing it never happens on a request thread.
fn reclaim(queue: &Receiver<Retired>) {
    let (mut snapshots, mut orgs) = (Vec::new(), Vec::new());
    loop {
        let is_idle = snapshots.is_empty() && orgs.is_empty();
        let next = if is_idle { queue.recv().map_err(RecvTimeoutError::from) } else { queue.recv_timeout(RECLAIM_EVERY) };
        match next {
            Ok(retired) => {
                snapshots.push(retired.snapshot);
                orgs.extend(retired.orgs);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Nobody can take a new reference to what is no longer in force, so a count of one stays one.
        snapshots.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        orgs.retain(|org| Arc::strong_count(org) > 1);
    }
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::config::v1::RevokedSubject;

    use super::*;

    #[test]
    fn revocations_name_keys_sessions_and_the_moment_of_a_subject() {
        let revoked = |not_before| RevokedSubject { subject: "u1".into(), not_before };
        let revocations = Revocations::from(&Revocation {
            api_keys: vec!["k1".into()],
            login_sessions: vec!["s1".into()],
            subjects: vec![revoked(100), revoked(50)],
            newest_us: 0,
        });
        assert!(revocations.key_revoked("k1") && !revocations.key_revoked("k2"));
        assert!(revocations.session_revoked("s1") && !revocations.session_revoked("k1"));
        assert!(revocations.subject_void("u1", 99), "issued before");
        assert!(!revocations.subject_void("u1", 100) && !revocations.subject_void("u2", 0));
    }

    #[test]
    fn a_revocation_is_in_force_and_announced_before_the_call_returns() {
        let live = Live::new().unwrap();
        let changes = live.changed();
        live.revoke(&Revocation { api_keys: vec!["k1".into()], ..Revocation::default() });
        assert!(live.revocations().key_revoked("k1"));
        assert_eq!(*changes.borrow(), 1);
        assert!(live.snapshot().is_none());
    }
}
