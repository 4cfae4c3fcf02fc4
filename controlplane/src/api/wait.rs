//! Waiting until every connected node runs a version. A node whose pool the version did not change runs it already; one that changes
//! streams just now is waited for.
//!
//! Any replica can be asked: what nodes run is in the database, whichever replica holds their streams.

use std::{sync::Arc, time::Duration};

use mcp_gateway::{
    proto::admin::v1::{WaitConfigVersionRequest, WaitConfigVersionResponse},
    snapshot::Version,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, PreconditionViolation, StatusExt};

use super::{caller::Caller, error::Error};
use crate::{
    app::Core,
    publish::Published,
    status::{self, Look, Viewer},
    store::nodes::Node,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// How often the database is asked what nodes run.
const LOOK: Duration = Duration::from_millis(50);
/// Nodes that a message names; the details name all of them.
const NAMED: usize = 10;

/// Returns when every connected node runs at least the version. Members of an organisation wait for the nodes of its pool, platform
/// administrators for all.
pub async fn for_version(
    core: &Core,
    caller: &Caller,
    request: WaitConfigVersionRequest,
) -> Result<WaitConfigVersionResponse, Status> {
    let deadline = Instant::now() + timeout(request.timeout)?;
    let viewer = caller.viewer(core).await?;
    let mut published = core.publications.watch();
    let read = published.wait_for(|now| now.as_ref().is_some_and(|now| now.head.version.version >= request.version));
    match timeout_at(deadline, read).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err(Status::unavailable("this replica is stopping: ask again")),
        Err(_) => return Err(unknown(core, request.version)),
    }
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut present = core.store.present_nodes().await.map_err(Error::from)?;
        present.retain(|node| viewer.sees(&node.pool));
        let now = published.borrow().clone();
        let arrived = present.iter().all(|node| runs(now.as_ref(), node, request.version));
        if arrived || Instant::now() >= deadline {
            let look = Look::at(core, present).await.map_err(Error::from)?;
            if arrived {
                let connected = look.nodes.iter().filter(|node| node.connected);
                return Ok(WaitConfigVersionResponse { nodes: connected.map(|node| look.wire(node, &viewer)).collect() });
            }
            let behind: Vec<&Node> = look.nodes.iter().filter(|node| !runs(now.as_ref(), node, request.version)).collect();
            return Err(late(request.version, &behind, &look, &viewer));
        }
    }
}

/// Whether a node runs what holds for its pool at `wanted`, or something newer.
fn runs(published: Option<&Arc<Published>>, node: &Node, wanted: u64) -> bool {
    let Some(published) = published else { return false };
    let wanted = Version { epoch: published.head.version.epoch, version: wanted };
    let of_pool = published.scope(&node.pool, node.id).map(|scope| scope.version);
    node.applied >= wanted || of_pool.is_some_and(|of_pool| node.applied >= of_pool)
}

fn timeout(given: Option<prost_types::Duration>) -> Result<Duration, Error> {
    let Some(given) = given else { return Ok(DEFAULT_TIMEOUT) };
    let timeout = Duration::try_from(given).ok().filter(|timeout| *timeout <= MAX_TIMEOUT);
    timeout.ok_or_else(|| Error::invalid("timeout", "expected 0 s to 5 minutes"))
}

fn unknown(core: &Core, wanted: u64) -> Status {
    let newest = core.publications.now().map_or(0, |now| now.head.version.version);
    Status::deadline_exceeded(format!("version {wanted} is not published; the newest is {newest}"))
}

fn late(wanted: u64, behind: &[&Node], look: &Look, viewer: &Viewer) -> Status {
    let state = |node: &Node| match look.problems(node, viewer).first() {
        Some(problem) => format!("runs version {}; it refused a newer one: {problem}", node.applied.version),
        None => format!("runs version {}", node.applied.version),
    };
    let mut named: Vec<String> =
        behind.iter().take(NAMED).map(|node| format!("{} {}", status::name(node), state(node))).collect();
    if behind.len() > NAMED {
        named.push(format!("and {} more", behind.len() - NAMED));
    }
    let text =
        format!("{} of {} connected nodes do not run version {wanted}: {}", behind.len(), look.nodes.len(), named.join("; "));
    let violation = |node: &&Node| PreconditionViolation::new("CONFIG_VERSION", status::name(node), state(node));
    let violations: Vec<_> = behind.iter().map(violation).collect();
    Status::with_error_details(Code::DeadlineExceeded, text, ErrorDetails::with_precondition_failure(violations))
}
