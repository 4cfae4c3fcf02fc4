//! Moves rollouts on by itself: looks once a second, decides by [`decide`], carries out through the same transitions as the RPCs.
//!
//! One replica at a time looks; whatever it decides is judged again under the locks of the transition. Started by `app`. A database that is away
//! only delays it: nodes keep what they run.

mod metrics;

use std::time::Duration;

use serde_json::json;
use tracing::{debug, info, warn};

use crate::{
    api::rollouts::turns,
    app::Core,
    domain::rollout::{
        Halt, Reason, Rollout, State,
        decide::{Decision, decide},
    },
    open::chain,
    store::{
        Error,
        change::{Change, Origin},
        organizations, rollouts,
    },
};
use metrics::Metrics;

/// Between two looks, give or take a fifth.
const EVERY: Duration = Duration::from_secs(1);
const METHOD: &str = "rollouts";

/// Runs until the app stops.
pub fn spawn(core: &Core) {
    let metrics = Metrics::register(&core.metrics);
    core.tasks.supervise("rollouts", {
        let core = core.clone();
        move || run(core.clone(), metrics.clone())
    });
}

async fn run(core: Core, metrics: Metrics) {
    let stop = core.tasks.stop_token().clone();
    let mut failing = false;
    loop {
        match look(&core, &metrics).await {
            Ok(()) => failing = false,
            Err(error) if std::mem::replace(&mut failing, true) => debug!(error = %chain(&error), "rollouts still wait"),
            Err(error) => warn!(error = %chain(&error), "rollouts wait: what nodes run stays as it is"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Looks at every running rollout, unless another replica does, and moves it on where it is time.
async fn look(core: &Core, metrics: &Metrics) -> Result<(), Error> {
    metrics.count(&core.store.count_rollouts().await?);
    for row in core.store.running_rollouts().await? {
        let mut moment = core.store.one_moment().await?;
        if !rollouts::lead(&mut moment).await? {
            return Ok(());
        }
        let facts = rollouts::facts(&mut moment, &row).await?;
        moment.rollback().await?;
        match decide(&row, &facts) {
            Decision::Wait(why) => debug!(rollout = %row.id, "{}: {why}", row.name()),
            Decision::Bake => rollouts::begin_to_bake(&mut *core.store.connection().await?, &row).await?,
            Decision::Advance | Decision::Promote | Decision::Halt(_) => turn(core, metrics, &row).await?,
        }
    }
    Ok(())
}

/// Decides again with everything held, and carries it out.
async fn turn(core: &Core, metrics: &Metrics, seen: &Rollout) -> Result<(), Error> {
    let Some((mut change, row)) = hold(core, seen).await? else { return Ok(()) };
    let facts = rollouts::facts(change.connection(), &row).await?;
    let next = row.step + 1;
    match decide(&row, &facts) {
        Decision::Wait(_) | Decision::Bake => Ok(()),
        Decision::Advance => {
            let row = turns::step(&mut change, row, next, "rollout.advance").await?;
            let detail = json!({ "step": row.step + 1, "canaries": row.canaries.len() });
            info!(rollout = %row.id, "{} is at step {} of {}", row.name(), row.step + 1, row.steps.len());
            finish(change, detail).await
        }
        Decision::Halt(why) => halt(metrics, change, row, why).await,
        Decision::Promote => {
            let name = row.name();
            match promote(change, row).await {
                Ok(version) => {
                    info!(rollout = %seen.id, version, "{name} is promoted as version {version}");
                    Ok(())
                }
                Err(error @ (Error::Invalid(_) | Error::Precondition(_) | Error::Taken(_) | Error::Corrupt(_))) => {
                    let Some((change, row)) = hold(core, seen).await? else { return Ok(()) };
                    halt(metrics, change, row, Halt { reason: Reason::Unpromotable, detail: said(&error) }).await
                }
                Err(error) => Err(error),
            }
        }
    }
}

/// Locks the organisation, then the rollout; none: it is not what was seen any more.
async fn hold(core: &Core, seen: &Rollout) -> Result<Option<(Change, Rollout)>, Error> {
    // Whether most of the organisation goes was asked when the rollout began.
    let mut change =
        core.store.begin_plain(Origin { force: true, reason: seen.reason.clone(), ..Origin::system(METHOD) }).await?;
    let Some(org) = organizations::hold(change.connection(), &seen.org_slug).await? else { return Ok(None) };
    let row = rollouts::lock(change.connection(), org.id, seen.id).await?;
    let same = row.filter(|row| row.state == State::Running && row.meta.revision == seen.meta.revision);
    Ok(same.map(|row| (change, row)))
}

async fn promote(mut change: Change, row: Rollout) -> Result<u64, Error> {
    let org = organizations::hold(change.connection(), &row.org_slug).await?;
    let org = org.ok_or_else(|| Error::NotFound(format!("organizations/{}", row.org_slug)))?;
    let detail = json!({ "started_by": row.actor });
    turns::promote(&mut change, row, org).await?;
    change.detail(detail);
    let sealed = change.seal().await?;
    let version = sealed.version();
    sealed.commit(&[]).await?;
    Ok(version)
}

async fn halt(metrics: &Metrics, mut change: Change, row: Rollout, why: Halt) -> Result<(), Error> {
    warn!(rollout = %row.id, reason = why.reason.as_str(), "{} halts: {}", row.name(), why.detail);
    let detail = json!({ "reason": why.reason.as_str(), "detail": why.detail, "step": row.step + 1 });
    let reason = why.reason;
    turns::halt(&mut change, row, why).await?;
    finish(change, detail).await?;
    metrics.halted(reason);
    Ok(())
}

async fn finish(mut change: Change, detail: serde_json::Value) -> Result<(), Error> {
    change.detail(detail);
    change.seal().await?.commit(&[]).await
}

fn said(error: &Error) -> String {
    match error {
        Error::Invalid(violations) => {
            violations.iter().map(|v| format!("{}: {}", v.field, v.expected)).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}
