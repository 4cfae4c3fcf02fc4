//! Housekeeping by one replica at a time: partitions ahead, what is too old to keep, streams of replicas that died, calls that will
//! never end.
//!
//! Started by `app`; all SQL is in `store::maintenance`. A database that is away only delays it.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use tracing::{debug, info, warn};

use crate::{
    app::Core,
    ingest::names::Names,
    open::chain,
    store::{self, Store},
};

/// Between two runs, give or take a fifth.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// How often streams of dead replicas are looked for.
const SWEEP: Duration = Duration::from_secs(15);
/// Partitions are made this many days ahead.
const DAYS_AHEAD: i32 = 7;

/// Runs until the app stops.
pub fn spawn(core: &Core) {
    let metrics = Metrics::register(&core.metrics);
    core.tasks.supervise("maintenance", {
        let core = core.clone();
        move || {
            let metrics = metrics.clone();
            every(core.clone(), EVERY, move |core| clean(core.store, metrics.clone()))
        }
    });
    core.tasks.supervise("sweep", {
        let core = core.clone();
        move || every(core.clone(), SWEEP, |core| sweep(core.store, core.names))
    });
}

async fn every<F>(core: Core, period: Duration, work: impl Fn(Core) -> F)
where
    F: Future<Output = Result<(), store::Error>>,
{
    let stop = core.tasks.stop_token().clone();
    loop {
        if let Err(error) = work(core.clone()).await {
            warn!(error = %chain(&error), "housekeeping failed and will be tried again");
        }
        tokio::select! {
            () = tokio::time::sleep(period.mul_f64(rand::random_range(0.8..1.2))) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What housekeeping watches.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    misplaced: Family<Table, Gauge>,
}

/// The label of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Table {
    log: &'static str,
}

impl Metrics {
    fn register(metrics: &crate::metrics::Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let help = "Rows in the default partition of a log, as the last housekeeping of this replica found: their clocks are wrong, \
                        or their day's partition was not made in time";
            registry.register("log_rows_misplaced", help, this.misplaced.clone());
        });
        this
    }
}

/// One run, unless another replica is at it.
pub async fn clean(store: Store, metrics: Metrics) -> Result<(), store::Error> {
    let Some(mut leader) = store.lead_maintenance().await? else {
        debug!("another replica keeps house");
        return Ok(());
    };
    leader.create_partitions(DAYS_AHEAD).await?;
    let logs = leader.expire_request_logs().await?;
    let records = leader.expire_audit_logs().await?;
    let rest = leader.expire_rest().await?;
    if logs + records + rest > 0 {
        info!(
            logs,
            records,
            rest,
            "deleted {logs} request logs, {records} administrative records and {rest} other rows that are too old to keep"
        );
    }
    for (log, rows) in leader.misplaced().await? {
        let log = log.as_str();
        metrics.misplaced.get_or_create(&Table { log }).set(rows);
        if rows > 0 {
            warn!(log, rows, "{rows} rows of {log} are in no day's partition: look for nodes whose clocks are wrong");
        }
    }
    Ok(())
}

async fn sweep(store: Store, names: Arc<Names>) -> Result<(), store::Error> {
    let forgotten = store.forget_stale_streams().await?;
    if forgotten > 0 {
        info!("{forgotten} nodes were connected to a replica that is gone");
    }
    let interrupted = store.interrupt_lost_calls(&names).await?;
    if interrupted > 0 {
        info!("{interrupted} calls were interrupted: their nodes are gone, or stopped before the calls ended");
    }
    Ok(())
}
