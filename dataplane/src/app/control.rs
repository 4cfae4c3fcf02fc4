//! The node's side of the control plane, started: identity, configuration, status, shipping. None of it is ever waited
//! for by a request.

use std::path::PathBuf;
use std::sync::Arc;

use rand::RngExt;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::Spool;
use crate::audit::ship::Shipper;
use crate::config::ControlPlane;
use crate::limits::Limits;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::node::uplink::Replicas;
use crate::node::{self, EnrolError, Enrolment, Identity, Renewal, Report, Uplink};
use crate::tasks::{OnExit, Tasks};
use crate::upstream::Findings;
use crate::xds::{self, Restored};

/// Why the node cannot join its control plane.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("control_plane.join_token_file {}: {source}", path.display())]
    TokenFile { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Enrol(#[from] EnrolError),
}

/// What the node's tasks work on.
pub(super) struct Control {
    pub settings: ControlPlane,
    /// Where other nodes reach this one; empty: nowhere.
    pub advertise: String,
    pub state_dir: PathBuf,
    pub live: Arc<Live>,
    pub restored: Restored,
    pub spool: Arc<Spool>,
    pub limits: Arc<Limits>,
    /// What was found out about servers.
    pub findings: Findings,
    pub metrics: Arc<Metrics>,
    /// Learns who this node is.
    pub known: watch::Sender<Option<Arc<Identity>>>,
    pub tasks: Tasks,
}

impl Control {
    /// Joins and starts the tasks; returns once they run, or with the reason why they cannot.
    pub async fn start(self) -> Result<(), JoinError> {
        let Self { settings, advertise, state_dir, live, restored, spool, metrics, limits, findings, known, tasks } = self;
        let server_name = Some(settings.server_name.clone()).filter(|name| !name.is_empty());
        let replicas = Replicas { endpoints: settings.endpoints.clone(), server_name };
        let token = token(&settings)?;
        let display_name = settings.node_name.unwrap_or_else(host_name);
        let enrolment = Enrolment { replicas: replicas.clone(), token, display_name };
        let identity = node::join(&state_dir, &enrolment).await?;
        live.set_node(identity.node_id.clone());
        let renewal = Renewal::new(state_dir.clone(), identity);
        tasks.spawn("identity", OnExit::Report, tell(renewal.identity(), known, tasks.stopping()));
        let first = rand::rng().random_range(0..usize::from(u16::MAX));
        let uplink = Arc::new(Uplink::new(replicas, renewal.identity(), first));
        let stop = tasks.stopping();
        let client = xds::Client {
            uplink: uplink.clone(),
            live: live.clone(),
            stats: metrics.discovery.clone(),
            advertise: advertise.clone(),
            state_dir,
            restored,
            renewal: renewal.asked(),
        };
        let shipper = Shipper::new(spool.clone(), uplink.clone());
        let (discovery, open_streams) = (metrics.discovery.clone(), metrics.open_streams.clone());
        let every = settings.report_interval;
        let report = Report { live, spool, discovery, open_streams, limits, findings, advertise, every };
        tasks.spawn("renewal", OnExit::Report, renewal.run(uplink.clone(), stop.clone()));
        tasks.spawn("status-report", OnExit::Report, report.run(uplink, stop.clone()));
        tasks.spawn("audit-shipping", OnExit::Stop, shipper.run(stop.clone()));
        tasks.spawn("discovery", OnExit::Stop, client.run(stop));
        Ok(())
    }
}

/// Tells who this node is, now and whenever that changes.
async fn tell(mut from: watch::Receiver<Arc<Identity>>, to: watch::Sender<Option<Arc<Identity>>>, stop: CancellationToken) {
    loop {
        let now = from.borrow_and_update().clone();
        to.send_replace(Some(now));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = from.changed() => if changed.is_err() { return },
        }
    }
}

fn token(settings: &ControlPlane) -> Result<Option<SecretString>, JoinError> {
    let Some(path) = &settings.join_token_file else { return Ok(settings.join_token.clone()) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned().into())),
        // The file is often removed once the node has joined.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(JoinError::TokenFile { path: path.clone(), source }),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".into() } else { name.into() }
}
