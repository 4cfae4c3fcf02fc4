//! ConfigStatusService: where the configuration has arrived, once or watched.
//!
//! Says it for the caller's eyes only; how nodes stand is judged in [`crate::status`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcp_gateway::proto::admin::v1::{
    ConfigStatus, GetConfigStatusRequest, WatchConfigStatusRequest, config_status_service_server::ConfigStatusService,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Api, access::Pass, admitted, aip, error::Error};
use crate::{
    app::Core,
    status::{
        Viewer,
        overview::{self, Overview, Place, Whole},
    },
    tasks::OnExit,
};

/// How often a watcher's right to watch is looked at. Tests need not wait for it.
const RECHECK: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// Room for one status and for the reason of the end.
const ROOM: usize = 2;

type Answers = ReceiverStream<Result<ConfigStatus, Status>>;

#[tonic::async_trait]
impl ConfigStatusService for Api {
    async fn get_config_status(&self, request: Request<GetConfigStatusRequest>) -> Result<Response<ConfigStatus>, Status> {
        let (caller, request) = admitted(request)?;
        let viewer = caller.viewer(&self.core).await?;
        let whole = self.core.overview.within(&self.core, Duration::ZERO).await.map_err(Error::from)?;
        Ok(Response::new(status(&whole, &self.core.overview, &viewer, &request.pool)?))
    }

    type WatchConfigStatusStream = Answers;

    async fn watch_config_status(&self, request: Request<WatchConfigStatusRequest>) -> Result<Response<Answers>, Status> {
        Ok(Response::new(watch(&self.core, request).await?))
    }
}

async fn watch(core: &Core, request: Request<WatchConfigStatusRequest>) -> Result<Answers, Error> {
    let pass = Pass::of(&request)?;
    let (caller, request) = admitted(request)?;
    let viewer = caller.viewer(core).await?;
    let place = core.overview.place(caller.user);
    let place = place.ok_or(Error::Exhausted("too many watch: end a watch of yours, or try again in a moment"))?;
    let shown = core.overview.watch();
    let first = core.overview.within(core, Duration::ZERO).await?;
    let first = status(&first, &core.overview, &viewer, &request.pool)?;
    let (say, hear) = mpsc::channel(ROOM);
    let (core, pool) = (core.clone(), request.pool);
    let watcher = Watcher { core: core.clone(), pass, viewer, pool, shown, say, due: Some(first), last: None, _place: place };
    core.tasks.spawn("config-status-watch", OnExit::Ignore, watcher.run());
    Ok(ReceiverStream::new(hear))
}

/// One watched status.
struct Watcher {
    core: Core,
    pass: Pass,
    viewer: Viewer,
    /// Empty: every pool that the viewer sees.
    pool: String,
    shown: watch::Receiver<Option<Arc<Whole>>>,
    say: mpsc::Sender<Result<ConfigStatus, Status>>,
    /// What is to be said; a newer one takes its place.
    due: Option<ConfigStatus>,
    /// What was said last, without the times that only go on.
    last: Option<ConfigStatus>,
    _place: Place,
}

impl Watcher {
    async fn run(mut self) {
        if let Err(Some(why)) = self.follow().await {
            // Without room the caller does not read: it learns of the end by the end.
            let _ = self.say.try_send(Err(why));
        }
    }

    /// Says what changes until it must end; without a status: the caller is gone.
    async fn follow(&mut self) -> Result<(), Option<Status>> {
        let (stop, say) = (self.core.tasks.stop_token().clone(), self.say.clone());
        let mut rechecks = interval_at(Instant::now() + RECHECK, RECHECK);
        rechecks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let expiry = tokio::time::sleep(self.pass.expires().duration_since(SystemTime::now()).unwrap_or_default());
        tokio::pin!(expiry);
        loop {
            tokio::select! {
                permit = say.reserve(), if self.due.is_some() => {
                    let permit = permit.map_err(|_gone| None)?;
                    if let Some(status) = self.due.take() {
                        self.last = Some(lasting(&status));
                        permit.send(Ok(status));
                    }
                }
                changed = self.shown.changed() => {
                    changed.map_err(|_gone| None)?;
                    self.news()?;
                }
                _ = rechecks.tick() => {
                    self.recheck().await?;
                    self.news()?;
                }
                () = &mut expiry => return Err(Some(Status::unauthenticated("the access token has expired: watch again with a new one"))),
                () = stop.cancelled() => return Err(Some(Status::unavailable("this replica is stopping: watch again"))),
                () = say.closed() => return Err(None),
            }
        }
    }

    /// The newest status is due, if it is not what was said last.
    fn news(&mut self) -> Result<(), Status> {
        // Not looked at yet since this one came: what is due stays due.
        let Some(whole) = self.shown.borrow_and_update().clone() else { return Ok(()) };
        let status = status(&whole, &self.core.overview, &self.viewer, &self.pool)?;
        self.due = (self.last.as_ref() != Some(&lasting(&status))).then_some(status);
        Ok(())
    }

    /// Looks at what the caller may see now. A database that is away takes nobody's rights away.
    async fn recheck(&mut self) -> Result<(), Status> {
        let viewer = async { self.pass.again(&self.core).await?.viewer(&self.core).await };
        match viewer.await {
            Ok(viewer) => self.viewer = viewer,
            Err(Error::Away) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// The status for a viewer.
fn status(whole: &Whole, overview: &Overview, viewer: &Viewer, pool: &str) -> Result<ConfigStatus, Error> {
    let pools = whole.look.pools(pool, viewer);
    let pools = pools.ok_or(Error::Unavailable("nothing is published yet: the configuration is being read"))?;
    if pools.is_empty() && !pool.is_empty() {
        return Err(Error::NotFound(format!("pool {pool}")));
    }
    Ok(ConfigStatus {
        epoch: whole.head.version.epoch,
        version: whole.head.version.version,
        commit_time: Some(aip::timestamp(whole.head.committed_at)),
        published_version: whole.look.published_version().version,
        replica: overview.replica().to_owned(),
        pools,
    })
}

/// A status without what changes all the time.
fn lasting(status: &ConfigStatus) -> ConfigStatus {
    let mut status = status.clone();
    for node in status.pools.iter_mut().flat_map(|pool| &mut pool.nodes) {
        (node.last_seen_time, node.report_time, node.stale_duration) = (None, None, None);
        (node.spool_frames, node.spool_oldest_duration, node.open_streams) = (0, None, 0);
    }
    status
}

impl From<overview::Error> for Error {
    fn from(error: overview::Error) -> Self {
        match error {
            overview::Error::Store(error) => error.into(),
            overview::Error::Slow => Self::Away,
        }
    }
}

impl Pass {
    /// When the caller's token expires.
    pub fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(self.claims.exp).unwrap_or_default())
    }
}
