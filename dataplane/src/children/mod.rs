//! Child processes that cannot outlive us: each runs under a small helper, this binary again as `supervise`.
//! The helper lives only while a pipe from us is open, so even our SIGKILL ends the child and all its descendants.
//! Never speaks MCP and never decides who may use a child.

mod backoff;
mod child;
pub mod helper;
mod life;
mod lines;
mod log;
mod recipe;
mod registry;
mod start;
mod supervised;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use uuid::Uuid;

use crate::config;
use crate::tasks::{OnExit, Tasks};
use life::{Life, Settled, Why};
use registry::{Registry, Seat};

pub use child::{Child, Garbage, Handle, Receiver, Sender};
pub use life::{Ended, Why as EndedWhy};
pub use log::{LogLine, Stream};
pub use recipe::{Program, Recipe};
pub use registry::{ChildStatus, State};
pub use start::{Spec, StartError, Whose};
pub use supervised::{Error as SupervisedError, Supervised};

/// How long what was killed may take to be gone when this process stops.
const LAST: Duration = Duration::from_secs(2);

/// The MCP servers that this process runs. Clones are the same.
#[derive(Clone)]
pub struct Children {
    shared: Arc<Shared>,
}

struct Shared {
    settings: config::Children,
    program: Program,
    tasks: Tasks,
    registry: Arc<Registry>,
}

impl Children {
    /// None yet. Whatever `program` is has to have the hidden command `supervise`.
    pub fn new(settings: config::Children, program: Program, tasks: Tasks) -> Self {
        let log_bytes = usize::try_from(settings.stderr_bytes).unwrap_or(usize::MAX);
        let registry = Arc::new(Registry::new(log_bytes, backoff::Backoff::new(rand::random::<f64>)));
        Self { shared: Arc::new(Shared { settings, program, tasks, registry }) }
    }

    /// Starts one. It ends when the returned value is dropped, at the latest.
    pub async fn start(&self, spec: Spec) -> Result<Child, StartError> {
        let settings = &self.shared.settings;
        if !settings.enabled {
            return Err(StartError::Disabled);
        }
        let seat = self.shared.registry.seat(&spec, settings.max, settings.max_per_organization)?;
        let shared = self.shared.clone();
        // Looks at the disk, and waits until the helper is on its way.
        let started = tokio::task::spawn_blocking(move || shared.spawn(seat, spec)).await;
        started.unwrap_or_else(|lost| Err(StartError::Spawn(io::Error::other(lost))))
    }

    /// What runs, oldest first.
    pub fn list(&self) -> Vec<ChildStatus> {
        self.shared.registry.list()
    }

    /// Asks one to end, as [`Child::stop`] does; false if there is none of that id.
    pub fn stop(&self, id: Uuid) -> bool {
        let life = self.shared.registry.life(id);
        life.map(|life| life.ask(Why::Stopped)).is_some()
    }

    /// Watches one; none if there is none of that id.
    pub fn get(&self, id: Uuid) -> Option<Handle> {
        self.shared.registry.life(id).map(Handle::of)
    }

    /// The last lines that children of a server wrote to stderr, and to stdout without being messages.
    pub fn logs(&self, server_id: &str) -> Vec<LogLine> {
        self.shared.registry.known_log(server_id).map(|log| log.lines()).unwrap_or_default()
    }

    /// The last lines, and every one after that. Whoever is too slow is told how many were missed.
    pub fn follow(&self, server_id: &Arc<str>) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        self.shared.registry.log(server_id).follow()
    }

    /// Starts no more and asks all to end; those that have not at the deadline are killed. False if something may be left.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let running = self.shared.registry.close();
        running.iter().for_each(|life| life.ask(Why::Shutdown));
        if self.shared.registry.empty(deadline).await {
            return true;
        }
        self.shared.registry.close().iter().for_each(|life| life.kill());
        self.shared.registry.empty(LAST).await
    }
}

impl Shared {
    fn spawn(&self, seat: Seat, spec: Spec) -> Result<Child, StartError> {
        let recipe = start::recipe(&spec, &self.settings)?;
        let mut helper = start::command(&recipe, &self.program, &self.settings).spawn().map_err(StartError::Spawn)?;
        let pipes = (helper.id(), helper.stdin.take(), helper.stdout.take(), helper.stderr.take());
        let (Some(pid), Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(StartError::Spawn(io::Error::other("the helper has ended, or has no pipes")));
        };
        let log = self.registry.log(&spec.server_id);
        let life = Arc::new(Life::new(seat.id(), pid, stdin));
        seat.take(&life, spec.owner, log::now_ms());
        tracing::debug!(server = %spec.server_id, pid, "started a process of server {}", spec.server_id);
        let (said, heard) = tokio::sync::oneshot::channel::<()>();
        let taken_down = log::take_down(stderr, pid, log.clone());
        self.tasks.spawn("child-stderr", OnExit::Ignore, async move {
            let _said = said;
            taken_down.await;
        });
        let (stopping, settled) = (self.tasks.stopping(), Settled(life.clone()));
        self.tasks.spawn("child-keeper", OnExit::Ignore, async move {
            // Dropped in reverse order, whatever becomes of this task: the seat is free before anybody hears of the end.
            let settled = settled;
            let seat = seat;
            let ended = settled.0.keep(helper, stopping).await;
            // Nobody has the other end of its stderr any more: what there is to read will have been read at once.
            let _ = tokio::time::timeout(LAST, heard).await;
            tracing::debug!(server = %spec.server_id, pid, why = ?ended.why, code = ended.code, "a server's process ended");
            seat.judge(ended);
            drop(seat);
            settled.0.settle(ended);
        });
        Ok(Child::new(life, stdout, log, &self.settings))
    }
}
