//! Change notifications of both eras: legacy sessions that finished their handshake, and modern
//! `subscriptions/listen` streams. Announces to all of them; who may hear what is decided by the receiver.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use rmcp::RoleServer;
use rmcp::model::ResourceUpdatedNotificationParam;
use rmcp::service::{Peer, SubscriptionSendError, SubscriptionSink};
use tokio::sync::broadcast;

/// What a server may announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The list of tools changed
    Tools,
    /// The list of prompts changed
    Prompts,
    /// The list of resources changed
    Resources,
    /// The resource with this URI was updated
    Resource(String),
}

/// URIs that one legacy session subscribed to.
pub(super) type Watched = Arc<Mutex<HashSet<String>>>;

pub(super) struct Notices {
    changes: broadcast::Sender<Change>,
    legacy: Mutex<Vec<(Peer<RoleServer>, Watched)>>,
}

impl Notices {
    pub(super) fn new() -> Self {
        Self { changes: broadcast::channel(64).0, legacy: Mutex::default() }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    pub(super) fn joined(&self, peer: Peer<RoleServer>, watched: Watched) {
        self.legacy.lock().expect("no holder of this lock can panic").push((peer, watched));
    }

    pub(super) async fn announce(&self, change: Change) {
        // Nobody listening is fine.
        let _ = self.changes.send(change.clone());
        let sessions = {
            let mut legacy = self.legacy.lock().expect("no holder of this lock can panic");
            legacy.retain(|(peer, _)| !peer.is_transport_closed());
            legacy.clone()
        };
        for (peer, watched) in sessions {
            tell_session(&peer, &watched, &change).await;
        }
    }
}

async fn tell_session(peer: &Peer<RoleServer>, watched: &Watched, change: &Change) {
    let told = match change {
        Change::Tools => peer.notify_tool_list_changed().await,
        Change::Prompts => peer.notify_prompt_list_changed().await,
        Change::Resources => peer.notify_resource_list_changed().await,
        Change::Resource(uri) => {
            if !watched.lock().expect("no holder of this lock can panic").contains(uri) {
                return;
            }
            let param = ResourceUpdatedNotificationParam::new(uri.clone());
            peer.notify_resource_updated(param).await
        }
    };
    if let Err(error) = told {
        tracing::debug!(%error, "a session ended before it could be told of {change:?}");
    }
}

/// Sends `change` on a modern listen stream; what the client did not ask for is left out.
pub(super) async fn tell_listener(sink: &SubscriptionSink, change: Change) -> Result<(), SubscriptionSendError> {
    match change {
        Change::Tools => sink.notify_tool_list_changed().await,
        Change::Prompts => sink.notify_prompt_list_changed().await,
        Change::Resources => sink.notify_resource_list_changed().await,
        Change::Resource(uri) => sink.notify_resource_updated(uri).await,
    }
}
