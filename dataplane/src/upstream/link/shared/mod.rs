//! One process for all sessions of a server on this node. The gateway opens it once, as a client that cannot be asked; each session's
//! `initialize` is answered from that. Requests get numbers of the process', so that answers and progress find their session and no other;
//! news goes to all, updates of resources to those that subscribed, log messages to those that want their level. Tasks (2025-11-25) it has
//! none: whoever knows a task's name may have it, and the process cannot tell sessions apart.
//!
//! The table here finds the process of a registration. One that is registered otherwise is another one: the old process ends with its last
//! session.

mod actor;
mod hub;
mod ids;
mod levels;
mod opening;
mod parts;
mod post;
mod subscriptions;

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use mcp_gateway::proto::config::v1::ClientTransport;
use mcp_gateway::snapshot::Server;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::child;
use super::{Ends, LinkError, Reach, SHARED, Way};
use crate::children::Handle;
use crate::tasks::OnExit;
use actor::{Actor, Event, Join};
use post::{Posted, post};
pub(crate) use subscriptions::is_within;

/// What may wait for a process, of all its sessions.
const QUEUE: usize = 32;
/// How long a process without sessions is kept where the registration does not say how long sessions may be unused.
const LINGER: Duration = Duration::from_secs(60);

/// The shared processes of this node.
#[derive(Clone, Default)]
pub struct Hubs(Arc<Mutex<HashMap<Recipe, Slot>>>);

/// Which process: whatever differs makes another one. Never shown: it holds secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Recipe {
    server_id: Arc<str>,
    org_id: Arc<str>,
    command: Arc<[String]>,
    environment: Vec<(String, String)>,
    directory: Option<String>,
    credential: Option<(String, String)>,
}

/// Where the process of a recipe is.
#[derive(Clone, Default)]
struct Slot {
    /// Held while it is started, and not until it has opened: whoever comes meanwhile waits for the same one.
    to: Arc<tokio::sync::Mutex<Option<Process>>>,
    outdated: CancellationToken,
}

/// A process, as sessions reach it.
#[derive(Clone)]
struct Process {
    id: Uuid,
    to: mpsc::Sender<Event>,
}

impl Hubs {
    /// Connects a session with the server's process, which is started if it is not there.
    pub(super) async fn join(&self, way: &Way, reach: &Reach, ends: Ends) -> Result<(), LinkError> {
        let recipe = Recipe::of(way)?;
        loop {
            let (post, posted) = post();
            let (joined, answer) = oneshot::channel();
            let to = self.slot(&recipe).enter(way, reach, Join { post, linger: linger(&way.server), joined }).await?;
            match answer.await {
                Ok(Ok(session)) => {
                    reach.tasks.spawn("shared-link", OnExit::Ignore, attend(session, ends, posted, to));
                    return Ok(());
                }
                Ok(Err(actor::NotOpened)) => return Err(LinkError::NotOpened),
                // It was about to end.
                Err(_dropped) => {}
            }
        }
    }

    /// Ends a process and starts another in its place, unless sessions that lost it were faster or the server is shared no more.
    pub(crate) async fn restart(&self, way: &Way, reach: &Reach, old: Handle) -> Result<(), LinkError> {
        old.stop();
        old.ended().await;
        if !way.server.stdio.as_ref().is_some_and(|stdio| stdio.shared) {
            return Ok(());
        }
        let slot = self.slot(&Recipe::of(way)?);
        let mut place = slot.to.lock().await;
        if place.as_ref().is_none_or(|process| process.id == old.id()) {
            *place = Some(slot.start(way, reach, None).await?);
        }
        Ok(())
    }

    fn slot(&self, recipe: &Recipe) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.is_used());
        if let Some(slot) = slots.get(recipe) {
            return slot.clone();
        }
        let of_server = slots.iter().filter(|(other, _)| other.server_id == recipe.server_id);
        of_server.for_each(|(_, slot)| slot.outdated.cancel());
        slots.entry(recipe.clone()).or_default().clone()
    }
}

impl Recipe {
    fn of(way: &Way) -> Result<Self, LinkError> {
        let stdio = way.server.stdio.as_ref().ok_or(LinkError::Transport)?;
        Ok(Self {
            server_id: way.server.id.clone(),
            org_id: way.server.org_id.clone(),
            command: stdio.command.clone(),
            environment: stdio.environment.clone(),
            directory: stdio.directory.clone(),
            credential: way.variable.clone(),
        })
    }
}

impl Slot {
    /// Whether somebody is about to enter it, or its process lives.
    fn is_used(&self) -> bool {
        let lives = |place: &Option<Process>| place.as_ref().is_some_and(|process| !process.to.is_closed());
        Arc::strong_count(&self.to) > 1 || self.to.try_lock().is_ok_and(|place| lives(&place))
    }

    /// Tells the process of a session, and starts it if it is not there.
    async fn enter(&self, way: &Way, reach: &Reach, join: Join) -> Result<mpsc::Sender<Event>, LinkError> {
        let mut place = self.to.lock().await;
        let mut join = Event::Join(join);
        if let Some(Process { to, .. }) = place.clone() {
            match to.send(join).await {
                Ok(()) => return Ok(to),
                Err(mpsc::error::SendError(back)) => join = back,
            }
        }
        let process = self.start(way, reach, Some(join)).await?;
        Ok(place.insert(process).to.clone())
    }

    /// Starts a process, for whoever comes first if anybody does.
    async fn start(&self, way: &Way, reach: &Reach, first: Option<Event>) -> Result<Process, LinkError> {
        let child = child::start(way, reach, SHARED).await?;
        let id = child.handle().id();
        let (to, events) = mpsc::channel(QUEUE);
        // There is room for the first one.
        first.into_iter().for_each(|join| drop(to.try_send(join)));
        let (server, patience, linger) = (way.server.slug.clone(), way.server.call_timeout, linger(&way.server));
        let actor = Actor { server, child, events, patience, linger, outdated: self.outdated.clone() };
        reach.tasks.spawn("shared-process", OnExit::Ignore, actor.run());
        Ok(Process { id, to })
    }
}

/// As long as a session of the server's may be unused, its process may be.
fn linger(server: &Server) -> Duration {
    let transports =
        [ClientTransport::StreamableHttp, ClientTransport::HttpSse, ClientTransport::Websocket, ClientTransport::JsonRpc];
    let settings = transports.into_iter().map(|transport| server.client_transports.settings(transport));
    settings.filter(|settings| settings.enabled).filter_map(|settings| settings.session_idle).max().unwrap_or(LINGER)
}

/// Carries one session's messages, until it or the process is over.
async fn attend(session: u64, ends: Ends, mut posted: Posted, hub: mpsc::Sender<Event>) {
    let Ends { mut to, from, closed } = ends;
    let saying = async {
        while let Some(message) = to.recv().await {
            if hub.send(Event::Said { session, message }).await.is_err() {
                // The session hears why, after everything else.
                return pending().await;
            }
        }
    };
    let hearing = async {
        while let Some(heard) = posted.next().await {
            if from.send(heard).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = saying => {}
        () = hearing => {}
        () = closed.cancelled() => {}
    }
    // The process may be gone too.
    let _ = hub.send(Event::Left { session }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(server: &str, program: &str) -> Recipe {
        Recipe {
            server_id: server.into(),
            org_id: "o".into(),
            command: Arc::new([program.to_owned()]),
            environment: Vec::new(),
            directory: None,
            credential: None,
        }
    }

    #[test]
    fn what_is_registered_otherwise_is_another_process_and_what_was_before_is_outdated() {
        let hubs = Hubs::default();
        let (first, other) = (hubs.slot(&recipe("a", "x")), hubs.slot(&recipe("b", "x")));
        let again = hubs.slot(&recipe("a", "x"));
        assert!(Arc::ptr_eq(&first.to, &again.to) && !Arc::ptr_eq(&first.to, &other.to));
        let second = hubs.slot(&Recipe { credential: Some(("KEY".into(), "2".into())), ..recipe("a", "x") });
        assert!(!Arc::ptr_eq(&first.to, &second.to));
        assert_eq!([&first, &second, &other].map(|slot| slot.outdated.is_cancelled()), [true, false, false]);
    }

    #[tokio::test]
    async fn a_place_is_kept_while_somebody_enters_it_or_its_process_lives() {
        let hubs = Hubs::default();
        let known = |hubs: &Hubs| hubs.0.lock().unwrap().len();
        let slot = hubs.slot(&recipe("a", "x"));
        hubs.slot(&recipe("b", "x"));
        hubs.slot(&recipe("c", "x"));
        assert_eq!(known(&hubs), 2, "nobody entered `b`");
        let (to, events) = mpsc::channel(1);
        *slot.to.lock().await = Some(Process { id: Uuid::new_v4(), to });
        drop(slot);
        hubs.slot(&recipe("a", "x"));
        assert_eq!(known(&hubs), 1, "its process lives");
        drop(events);
        hubs.slot(&recipe("d", "x"));
        assert_eq!(known(&hubs), 1, "it has ended");
    }
}
