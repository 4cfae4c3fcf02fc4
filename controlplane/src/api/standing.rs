//! Answers that go on: a stream lasts while its caller is there, may still read what it reads, and this replica runs.
//!
//! Knows nothing of what is said. Called by the nouns that follow or watch the logs of an organisation.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use uuid::Uuid;

use super::{access::Pass, admitted, caller::Caller, error::Error, logs::scope};
use crate::{app::Core, follow::Seat, tasks::OnExit};

/// How often the caller's right is looked at. Tests need not wait for it.
const RECHECK: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// Answers that wait for the transport, at most: a slow reader slows its stream down.
const ROOM: usize = 2;

pub type Answers<T> = ReceiverStream<Result<T, Status>>;
/// Where a stream's answers go.
pub type Say<T> = mpsc::Sender<Result<T, Status>>;

/// A stream's caller, and what it reads.
pub struct Standing {
    pub core: Core,
    /// Whose logs; none: all.
    pub org: Option<Uuid>,
    parent: String,
    pass: Pass,
    _seat: Seat,
}

impl Standing {
    /// Judges the caller, and gives it a seat.
    pub async fn of<Q>(core: &Core, request: Request<Q>, parent: impl Fn(&Q) -> &str) -> Result<(Self, Q), Error> {
        let pass = Pass::of(&request)?;
        let (caller, request) = admitted(request)?;
        let parent = parent(&request).to_owned();
        let seat = core.arrivals.seat(caller.user);
        let seat = seat.ok_or(Error::Exhausted("too many follow: end a stream of yours, or try again in a moment"))?;
        let org = scope(&caller, &mut *core.store.connection().await?, &parent).await?;
        Ok((Self { core: core.clone(), org, parent, pass, _seat: seat }, request))
    }

    /// Starts `work`, which says something whenever it likes, and ends it when the stream must end.
    pub fn start<T: Send + 'static, W>(self, name: &'static str, work: impl FnOnce(Say<T>) -> W) -> Answers<T>
    where
        W: Future<Output = Result<Infallible, Error>> + Send + 'static,
    {
        self.until_done(name, |say| {
            let work = work(say);
            async move { work.await.map(|never| match never {}) }
        })
    }

    /// As [`Standing::start`], for work that comes to an end of its own.
    pub fn until_done<T: Send + 'static, W>(self, name: &'static str, work: impl FnOnce(Say<T>) -> W) -> Answers<T>
    where
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (say, hear) = mpsc::channel(ROOM);
        let work = work(say.clone());
        let tasks = self.core.tasks.clone();
        tasks.spawn(name, OnExit::Ignore, async move {
            let end = tokio::select! {
                done = work => done.err().map(Status::from),
                status = self.end() => Some(status),
                () = say.closed() => None,
            };
            if let Some(why) = end {
                // Without room the caller does not read: it learns of the end by the end.
                let _ = say.try_send(Err(why));
            }
        });
        ReceiverStream::new(hear)
    }

    /// Returns when the stream must end.
    async fn end(&self) -> Status {
        let stop = self.core.tasks.stop_token();
        let mut rechecks = interval_at(Instant::now() + RECHECK, RECHECK);
        rechecks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let expiry = tokio::time::sleep(self.pass.expires().duration_since(SystemTime::now()).unwrap_or_default());
        tokio::pin!(expiry);
        loop {
            tokio::select! {
                _ = rechecks.tick() => match self.recheck().await {
                    // A database that is away takes nobody's rights away.
                    Ok(()) | Err(Error::Away) => {}
                    Err(error) => return error.into(),
                },
                () = &mut expiry => return Status::unauthenticated("the access token has expired: go on with a new one"),
                () = stop.cancelled() => return Status::unavailable("this replica is stopping: go on at another one"),
            }
        }
    }

    /// Looks at what the caller may read now.
    async fn recheck(&self) -> Result<(), Error> {
        let caller: Caller = self.pass.again(&self.core).await?;
        let now = scope(&caller, &mut *self.core.store.connection().await?, &self.parent).await?;
        if now == self.org { Ok(()) } else { Err(Error::NotFound(self.parent.clone())) }
    }
}
