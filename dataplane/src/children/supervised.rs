//! A child that says nothing but what it logs, and that cannot outlive us. Never knows what it runs.
//! Used by standalone for its private Postgres.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, ChildStderr, ChildStdin};

use super::recipe::{Program, Recipe};

/// How much longer than the helper's own deadline its end may take.
const SLACK: Duration = Duration::from_secs(10);

/// Why a silent child could not be started or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The helper did not start.
    #[error("cannot start the helper process `supervise`")]
    Start(#[source] std::io::Error),
    /// It started without a pipe that was asked for.
    #[error("the helper process `supervise` has no stderr pipe")]
    NoPipe,
    /// It cannot be waited for, or killed.
    #[error("the helper process `supervise` does not end")]
    End(#[source] std::io::Error),
}

/// A child that runs.
#[derive(Debug)]
pub struct Supervised {
    helper: Child,
    lifeline: Option<ChildStdin>,
    deadline: Duration,
}

impl Supervised {
    /// Starts the child. What it writes to stderr comes out of the returned pipe; the child ends when this value is
    /// dropped, and when this process ends, however it ends.
    pub fn start(recipe: &Recipe) -> Result<(Self, ChildStderr), Error> {
        let mut helper = recipe.silent(&Program::default()).spawn().map_err(Error::Start)?;
        let lifeline = helper.stdin.take();
        let stderr = helper.stderr.take().ok_or(Error::NoPipe)?;
        Ok((Self { helper, lifeline, deadline: recipe.deadline }, stderr))
    }

    /// Returns when the child and all its descendants have ended by themselves.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.helper.wait().await
    }

    /// Asks the child to end, and kills what is left after the deadline.
    pub async fn stop(mut self) -> Result<(), Error> {
        drop(self.lifeline.take());
        let wait = tokio::time::timeout(self.deadline + SLACK, self.helper.wait());
        match wait.await {
            Ok(status) => status.map(drop).map_err(Error::End),
            Err(_late) => self.helper.kill().await.map_err(Error::End),
        }
    }
}
