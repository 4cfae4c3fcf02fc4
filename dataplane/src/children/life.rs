//! The life of one child, shared by its users, its keeper and the list of children; and the keeper, the task that ends it.
//! Never starts anything. The keeper returns when nothing of the child is left.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::ChildStdin;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a child may take to end by itself when its stdin was closed, before it is sent TERM.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long it may take in all.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// How much longer than that the helper may take.
const SLACK: Duration = Duration::from_secs(1);
/// How long the helper may take to kill everything.
const BURIAL: Duration = Duration::from_secs(12);

/// Why a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It did so by itself.
    Itself,
    /// It was asked to.
    Stopped,
    /// It was killed without being asked.
    Killed,
    /// Nobody used it any more.
    Dropped,
    /// It wrote nothing that could be a message, again and again.
    Garbage,
    /// It left a message unread in the middle.
    Deaf,
    /// This process stops.
    Shutdown,
}

impl Why {
    /// Whether the server is to blame.
    pub(super) fn is_failure(self) -> bool {
        match self {
            Self::Itself | Self::Garbage | Self::Deaf => true,
            Self::Stopped | Self::Killed | Self::Dropped | Self::Shutdown => false,
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub why: Why,
    /// Its exit code, 128 and the number of the signal that ended it; none if it could not be told.
    pub code: Option<i32>,
    /// How long it lived.
    pub lived: Duration,
}

/// What went to and fro.
#[derive(Debug, Default)]
pub(super) struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    garbage: AtomicU64,
}

impl Counts {
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn garbage(&self) {
        self.garbage.fetch_add(1, Ordering::Relaxed);
    }

    /// Sent, received, and what was no message.
    pub(super) fn all(&self) -> [u64; 3] {
        [&self.sent, &self.received, &self.garbage].map(|count| count.load(Ordering::Relaxed))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) id: Uuid,
    pub(super) pid: u32,
    pub(super) counts: Counts,
    pub(super) started: Instant,
    stdin: Mutex<Option<ChildStdin>>,
    why: OnceLock<Why>,
    asked: CancellationToken,
    killed: CancellationToken,
    ended: watch::Sender<Option<Ended>>,
}

impl Life {
    pub(super) fn new(id: Uuid, pid: u32, stdin: ChildStdin) -> Self {
        Self {
            id,
            pid,
            counts: Counts::default(),
            started: Instant::now(),
            stdin: Mutex::new(Some(stdin)),
            why: OnceLock::new(),
            asked: CancellationToken::new(),
            killed: CancellationToken::new(),
            ended: watch::Sender::new(None),
        }
    }

    /// Held for one attempt to write, never while waiting.
    pub(super) fn stdin(&self) -> MutexGuard<'_, Option<ChildStdin>> {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the child to end; the first reason counts.
    pub(super) fn ask(&self, why: Why) {
        let _ = self.why.set(why);
        drop(self.stdin().take());
        self.asked.cancel();
    }

    /// Its stdout has ended. Unless it was asked to end, that is its own doing.
    pub(super) fn fell_silent(&self) {
        let _ = self.why.set(Why::Itself);
    }

    pub(super) fn kill(&self) {
        self.killed.cancel();
        self.ask(Why::Killed);
    }

    pub(super) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    pub(super) async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let known = ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended);
        // Only a keeper that was dropped together with its runtime says nothing.
        known.unwrap_or(Ended { why: Why::Shutdown, code: None, lived: self.started.elapsed() })
    }

    /// Waits for the end of the helper, which is the end of everything below it, and sees to it that it comes.
    pub(super) async fn keep(&self, mut helper: tokio::process::Child, stopping: CancellationToken) -> Ended {
        let status = tokio::select! {
            status = helper.wait() => status.ok(),
            () = self.asked() => self.end(&mut helper).await,
            () = stopping.cancelled() => {
                self.ask(Why::Shutdown);
                self.end(&mut helper).await
            }
        };
        self.ask(Why::Itself);
        let why = self.why.get().copied().unwrap_or(Why::Itself);
        Ended { why, code: status.and_then(|status| status.code()), lived: self.started.elapsed() }
    }

    /// Nothing is left to wait for.
    pub(super) fn settle(&self, ended: Ended) {
        self.ended.send_replace(Some(ended));
    }

    /// The closed stdin should do; then the helper is told to kill, and then killed.
    async fn end(&self, helper: &mut tokio::process::Child) -> Option<ExitStatus> {
        tokio::select! {
            status = timeout(DEADLINE + SLACK, helper.wait()) => if let Ok(status) = status { return status.ok() },
            () = self.killed.cancelled() => {}
        }
        // Not waited for yet, so the number is still the helper's.
        let pid = helper.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::QUIT);
        }
        if let Ok(status) = timeout(BURIAL, helper.wait()).await {
            return status.ok();
        }
        tracing::error!(
            pid = self.pid,
            "the helper of a server's process does not end; it is killed, and may leave something behind"
        );
        let _ = helper.kill().await;
        None
    }
}

/// Tells those who wait for the end of a child, whatever becomes of its keeper.
pub(super) struct Settled(pub(super) Arc<Life>);

impl Drop for Settled {
    fn drop(&mut self) {
        if self.0.ended.borrow().is_none() {
            self.0.ask(Why::Shutdown);
            self.0.settle(Ended { why: Why::Shutdown, code: None, lived: self.0.started.elapsed() });
        }
    }
}
