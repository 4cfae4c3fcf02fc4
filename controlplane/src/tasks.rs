//! Every background task of this process: spawned here, named, with an answer to its death.
//!
//! Never decides what a task does. Called by `app` and by whoever starts a loop or a connection; drained by `app`.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, error, info_span, warn};

/// What to do when a task ends before the process is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// The process cannot do without it: stop everything.
    Stop,
    /// Its end is normal, such as that of a connection.
    Ignore,
}

/// The tasks of one app. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Tasks {
    /// `stop` ends every task; a task with [`OnExit::Stop`] that ends cancels it.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop }
    }

    /// Cancelled when the app is to stop. Tasks that hold something to put away listen to it.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs `future` to its end.
    pub fn spawn<F>(&self, name: &'static str, on_exit: OnExit, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        let watched = async move {
            let died = AssertUnwindSafe(future).catch_unwind().await.is_err();
            if died {
                error!(task = name, "task {name} panicked");
            }
            match on_exit {
                OnExit::Stop if !stop.is_cancelled() => {
                    error!(task = name, "task {name} ended, which this process cannot do without: stopping");
                    stop.cancel();
                }
                OnExit::Stop | OnExit::Ignore => debug!(task = name, "task {name} ended"),
            }
        };
        self.tracker.spawn(watched.instrument(info_span!(parent: None, "task", name)));
    }

    /// Runs what `make` returns again and again until the app stops, pausing longer while it keeps dying young.
    pub fn supervise<M, F>(&self, name: &'static str, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        let watched = async move {
            let mut pause = FIRST_PAUSE;
            while !stop.is_cancelled() {
                let started = Instant::now();
                let died = AssertUnwindSafe(make()).catch_unwind().await.is_err();
                if stop.is_cancelled() {
                    break;
                }
                pause = if started.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                warn!(task = name, panicked = died, "task {name} ended; starting it again in {pause:?}");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => break,
                }
            }
        };
        self.tracker.spawn(watched.instrument(info_span!(parent: None, "task", name)));
    }

    /// Waits for every task. Call after cancelling the stop token. False: some were still running at the deadline.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_vital_task_stops_the_app() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("vital", OnExit::Stop, async {});
        tasks.stop_token().cancelled().await;
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_panic_in_a_connection_stops_nothing() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("connection", OnExit::Ignore, async { panic!("boom") });
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert!(!tasks.stop_token().is_cancelled());
    }

    #[tokio::test]
    async fn a_supervised_task_is_started_again_after_a_panic() {
        let tasks = Tasks::new(CancellationToken::new());
        let stop = tasks.stop_token().clone();
        let mut runs = 0;
        tasks.supervise("loop", move || {
            runs += 1;
            let (stop, run) = (stop.clone(), runs);
            async move {
                match run {
                    1 => panic!("first run"),
                    _ => stop.cancel(),
                }
            }
        });
        assert!(tasks.drain(Duration::from_secs(60)).await);
        assert!(tasks.stop_token().is_cancelled());
    }
}
