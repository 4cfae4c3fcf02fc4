//! Counts that the nodes of a fleet share, in Redis: one script decides for all counts of a call, on the clock of Redis.
//!
//! Owns when Redis is asked, when a token in hand or a refusal in memory answers for it, and what happens while it is away. Called by
//! [`super::Limits`] only. Never decides for one count of a call and not for another.

mod breaker;
mod decide;
mod held;
mod keeper;
mod lease;
mod link;
mod question;
mod script;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::memory::{Locked, Memory, Spot};
use super::window::Micros;
use super::{Clock, Stats};
use crate::config;
use breaker::Breaker;
use link::Link;
use mcp_gateway::snapshot::Window;

pub(super) use held::Held;
pub use link::LinkError;
pub use question::Question;

/// What the keeper is asked to do at most; more is asked for again.
const ERRANDS: usize = 1024;

/// See the module.
pub(super) struct Shared {
    memory: Arc<Memory>,
    settings: config::Redis,
    link: Link,
    breaker: Mutex<Breaker>,
    /// Redis is not asked.
    away: AtomicBool,
    /// Until when what Redis says is not yet all that nodes admitted.
    settling_until: AtomicU64,
    /// When Redis last answered.
    answered: AtomicU64,
    /// Nodes that are alive, as the control plane said; 0: it did not.
    nodes: AtomicU32,
    errands: (mpsc::Sender<Errand>, Mutex<Option<mpsc::Receiver<Errand>>>),
    woken: Notify,
    stats: Arc<Stats>,
    clock: Clock,
}

/// What is to be told to Redis, or asked for, beside calls: of one window of a count.
#[derive(Debug, Clone, Copy)]
struct Errand {
    spot: Spot,
    window: Window,
}

impl Shared {
    pub fn new(settings: config::Redis, memory: Arc<Memory>, stats: Arc<Stats>, clock: Clock) -> Self {
        stats.away(true);
        stats.nodes(settings.assumed_nodes);
        let (sender, receiver) = mpsc::channel(ERRANDS);
        Self {
            memory,
            link: Link::new(settings.clone()),
            settings,
            breaker: Mutex::default(),
            away: AtomicBool::new(true),
            settling_until: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            nodes: AtomicU32::new(0),
            errands: (sender, Mutex::new(Some(receiver))),
            woken: Notify::new(),
            stats,
            clock,
        }
    }

    /// So many nodes are alive.
    pub fn live_nodes(&self, nodes: u32) {
        if nodes > 0 {
            self.nodes.store(nodes, Relaxed);
            self.stats.nodes(nodes);
        }
    }

    /// Among how many nodes a limit is divided.
    fn nodes(&self) -> u32 {
        match self.nodes.load(Relaxed) {
            0 => self.settings.assumed_nodes,
            nodes => nodes,
        }
    }

    fn is_away(&self) -> bool {
        self.away.load(Relaxed)
    }

    fn is_settling(&self, now: Micros) -> bool {
        now < self.settling_until.load(Relaxed)
    }

    /// Redis answered.
    fn succeeded(&self, now: Micros) {
        self.answered.store(now, Relaxed);
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).answered(now);
    }

    /// Redis did not; it is left alone if that was once too often, or nobody is there.
    fn failed(&self, error: &LinkError, now: Micros) {
        let too_often = self.breaker.lock().unwrap_or_else(PoisonError::into_inner).failed(now);
        if (too_often || error.is_final()) && !self.away.swap(true, Relaxed) {
            self.stats.away(true);
            self.link.hang_up();
            self.woken.notify_one();
            tracing::warn!(
                "the counts of limits that nodes share are out of reach: {error}. Until they are back every limit does what it says for \
                 that case, by itself among {} nodes; is Redis running at redis.url, reachable and not overloaded?",
                self.nodes()
            );
        }
    }

    /// Has the keeper look at a window; if it is busy, the next call asks again.
    fn nudge(&self, spot: Spot, window: Window) {
        let _full = self.errands.0.try_send(Errand { spot, window });
    }
}
