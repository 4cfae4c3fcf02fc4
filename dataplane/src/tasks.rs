//! Every task of the data plane: each has a name and an answer to its death.
//!
//! Owns the tracker and the stop signal; never decides what a task does. Called wherever something runs beside a request.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What happens when a task ends although nobody asked the process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// The process cannot serve without it: everything is asked to stop.
    Stop,
    /// The loss is logged as an error; traffic goes on.
    Report,
    /// The task is expected to end.
    Ignore,
}

/// Spawns, counts and stops tasks. Clones share one tracker and one stop signal.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Cancelled when a task may not even finish what it does.
    drop_all: CancellationToken,
    runtime: Handle,
}

impl Tasks {
    /// Tasks that run on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), drop_all: CancellationToken::new(), runtime }
    }

    /// The same tasks (one tracker, one stop signal), spawned on another runtime.
    pub fn on(&self, runtime: Handle) -> Self {
        Self { runtime, ..self.clone() }
    }

    /// Runs `future` under `name`. The future should watch [`Tasks::stopping`] and end soon after.
    pub fn spawn<F>(&self, name: &'static str, on_exit: OnExit, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, drop_all) = (self.stop.clone(), self.drop_all.clone());
        // What wraps it would hold it once where it was captured and once where it runs, for as long as it runs.
        let future = Box::pin(future);
        let watched = async move {
            let mut exit = Exit { name, on_exit, stop, finished: false };
            exit.finished = drop_all.run_until_cancelled(future).await.is_some();
        };
        self.tracker.spawn_on(watched, &self.runtime);
    }

    /// Cancelled when everything should stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits at most `deadline` for every task to end by itself, then drops those that have not; true if all ended.
    pub async fn finish(&self, deadline: Duration) -> bool {
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return true;
        }
        self.drop_all.cancel();
        self.tracker.wait().await;
        false
    }

    /// Asks every task to stop and waits at most `deadline`; true if all have ended.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Runs on every way out of a task: return, panic, or the runtime's end.
struct Exit {
    name: &'static str,
    on_exit: OnExit,
    stop: CancellationToken,
    finished: bool,
}

impl Drop for Exit {
    fn drop(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        let how = if self.finished { "returned" } else { "panicked" };
        match self.on_exit {
            OnExit::Ignore => {}
            OnExit::Report => tracing::error!(task = self.name, "task {} {how}", self.name),
            OnExit::Stop => {
                tracing::error!(task = self.name, "task {} {how}; stopping", self.name);
                self.stop.cancel();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OnExit, Tasks};
    use std::time::Duration;
    use tokio::runtime::Handle;

    #[tokio::test]
    async fn a_needed_task_that_panics_stops_the_others() {
        let tasks = Tasks::new(Handle::current());
        let stopping = tasks.stopping();
        tasks.spawn("waits", OnExit::Report, async move { stopping.cancelled().await });
        tasks.spawn("dies", OnExit::Stop, async { panic!("on purpose") });
        tasks.stopping().cancelled().await;
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }
}
