//! Which children run, how many more may, and what those of each server have said. Plain data under one short lock.
//! Never starts or ends anything itself. Used by `Children`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Backoff;
use super::life::{Ended, Life};
use super::log::Log;
use super::start::{Spec, StartError, Whose};

/// Servers without a child whose last lines are kept although nobody follows them.
const IDLE_LOGS: usize = 256;

/// One child, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStatus {
    /// Ours.
    pub id: Uuid,
    /// The server it is.
    pub server_id: Arc<str>,
    /// Whose server that is.
    pub org_id: Arc<str>,
    /// The session that it serves, or `shared`.
    pub owner: String,
    /// The process that ends with the child and all its descendants: its helper.
    pub pid: u32,
    /// In milliseconds since 1970.
    pub started_at_ms: u64,
    /// Messages that it was sent.
    pub messages_in: u64,
    /// Messages that it sent.
    pub messages_out: u64,
    /// Lines of its stdout that were no messages.
    pub garbage: u64,
    /// How far it is.
    pub state: State,
}

/// How far a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes messages.
    Running,
    /// It was asked to end, and something of it is still there.
    Ending,
}

/// See the module.
pub(super) struct Registry {
    content: Mutex<Content>,
    /// How many seats are taken.
    taken: watch::Sender<usize>,
    log_bytes: usize,
}

struct Content {
    closed: bool,
    taken: usize,
    of_organization: HashMap<Arc<str>, usize>,
    running: HashMap<Uuid, Running>,
    backoff: Backoff,
    logs: HashMap<Arc<str>, Arc<Log>>,
}

struct Running {
    life: Arc<Life>,
    server_id: Arc<str>,
    org_id: Arc<str>,
    owner: String,
    started_at_ms: u64,
}

/// Room for one child, until it is dropped.
pub(super) struct Seat {
    registry: Arc<Registry>,
    id: Uuid,
    server_id: Arc<str>,
    org_id: Arc<str>,
}

impl Registry {
    pub(super) fn new(log_bytes: usize, backoff: Backoff) -> Self {
        let content = Content {
            closed: false,
            taken: 0,
            of_organization: HashMap::new(),
            running: HashMap::new(),
            backoff,
            logs: HashMap::new(),
        };
        Self { content: Mutex::new(content), taken: watch::Sender::new(0), log_bytes }
    }

    /// Room for a child of the server, if there is some.
    pub(super) fn seat(self: &Arc<Self>, spec: &Spec, most: usize, most_of_one: usize) -> Result<Seat, StartError> {
        let mut content = self.lock();
        if content.closed {
            return Err(StartError::Stopping);
        }
        content.backoff.admit(&spec.server_id, Instant::now()).map_err(|until| StartError::Backoff { until })?;
        if content.taken >= most {
            return Err(StartError::Full { whose: Whose::Node });
        }
        let of_organization = content.of_organization.entry(spec.org_id.clone()).or_default();
        if *of_organization >= most_of_one {
            return Err(StartError::Full { whose: Whose::Organization });
        }
        *of_organization += 1;
        content.taken += 1;
        self.taken.send_replace(content.taken);
        let (server_id, org_id) = (spec.server_id.clone(), spec.org_id.clone());
        Ok(Seat { registry: self.clone(), id: Uuid::now_v7(), server_id, org_id })
    }

    /// What the children of a server say is written here.
    pub(super) fn log(&self, server_id: &Arc<str>) -> Arc<Log> {
        let mut content = self.lock();
        if !content.logs.contains_key(server_id) {
            content.forget_idle_logs();
        }
        content.logs.entry(server_id.clone()).or_insert_with(|| Arc::new(Log::new(self.log_bytes))).clone()
    }

    pub(super) fn known_log(&self, server_id: &str) -> Option<Arc<Log>> {
        self.lock().logs.get(server_id).cloned()
    }

    pub(super) fn list(&self) -> Vec<ChildStatus> {
        let mut all: Vec<_> = self.lock().running.values().map(Running::status).collect();
        all.sort_by_key(|status| status.id);
        all
    }

    pub(super) fn life(&self, id: Uuid) -> Option<Arc<Life>> {
        self.lock().running.get(&id).map(|running| running.life.clone())
    }

    /// Lets nobody start any more; what runs.
    pub(super) fn close(&self) -> Vec<Arc<Life>> {
        let mut content = self.lock();
        content.closed = true;
        content.running.values().map(|running| running.life.clone()).collect()
    }

    /// Waits until nothing runs; false if something does at the deadline.
    pub(super) async fn empty(&self, deadline: Duration) -> bool {
        let mut taken = self.taken.subscribe();
        tokio::time::timeout(deadline, taken.wait_for(|taken| *taken == 0)).await.is_ok_and(|waited| waited.is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn forget_idle_logs(&mut self) {
        let runs = |server: &Arc<str>| self.running.values().any(|running| running.server_id == *server);
        let idle = self.logs.iter().filter(|(server, log)| !runs(server) && !log.is_followed());
        let mut idle: Vec<_> = idle.map(|(server, log)| (log.last_ms(), server.clone())).collect();
        idle.sort_unstable();
        for (_, server) in idle.iter().take(idle.len().saturating_sub(IDLE_LOGS - 1)) {
            self.logs.remove(server);
        }
    }
}

impl Running {
    fn status(&self) -> ChildStatus {
        let [messages_in, messages_out, garbage] = self.life.counts.all();
        ChildStatus {
            id: self.life.id,
            server_id: self.server_id.clone(),
            org_id: self.org_id.clone(),
            owner: self.owner.clone(),
            pid: self.life.pid,
            started_at_ms: self.started_at_ms,
            messages_in,
            messages_out,
            garbage,
            state: if self.life.is_asked() { State::Ending } else { State::Running },
        }
    }
}

impl Seat {
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// Its child runs. One that comes too late, because the registry was closed meanwhile, is asked to end.
    pub(super) fn take(&self, life: &Arc<Life>, owner: String, started_at_ms: u64) {
        let (server_id, org_id) = (self.server_id.clone(), self.org_id.clone());
        let running = Running { life: life.clone(), server_id, org_id, owner, started_at_ms };
        let mut content = self.registry.lock();
        content.running.insert(self.id, running);
        if content.closed {
            life.ask(super::life::Why::Shutdown);
        }
    }

    /// Its child has ended; others of the server may have to wait for that.
    pub(super) fn judge(&self, ended: Ended) {
        let mut content = self.registry.lock();
        if ended.why.is_failure() {
            content.backoff.ended(&self.server_id, ended.lived, Instant::now());
        } else {
            content.backoff.stopped(&self.server_id, ended.lived);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut content = self.registry.lock();
        content.running.remove(&self.id);
        content.taken -= 1;
        if let Some(count) = content.of_organization.get_mut(&self.org_id) {
            *count -= 1;
            if *count == 0 {
                content.of_organization.remove(&self.org_id);
            }
        }
        self.registry.taken.send_replace(content.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::lines::Line;
    use crate::children::log::Stream;

    #[test]
    fn lines_that_somebody_follows_are_never_put_away() {
        let registry = Registry::new(1 << 10, Backoff::new(|| 0.0));
        let followed: Arc<str> = "followed".into();
        let (_, mut lines) = registry.log(&followed).follow();
        for number in 0..2 * IDLE_LOGS {
            registry.log(&number.to_string().into());
        }
        assert_eq!(registry.lock().logs.len(), IDLE_LOGS + 1, "others are");
        registry.log(&followed).push(1, Stream::Stderr, &Line::Whole("still".into()));
        assert_eq!(&*lines.try_recv().unwrap().text, "still");
    }
}
