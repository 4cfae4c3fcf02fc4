//! Keeps the identity fresh: a new certificate, a new key pair and the current keys at half of the certificate's life; once it has
//! expired, a new certificate for the registered key pair. A failure is told and tried again; it never stops traffic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcp_gateway::proto::node::v1::RenewRequest;
use mcp_gateway::proto::node::v1::node_service_client::NodeServiceClient;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::enrol::now;
use super::identity::{Identity, IdentityError, Keys};
use super::recover::{RecoverError, recover_into};
use super::uplink::{Uplink, UplinkError, whole};

/// Until the control plane must have answered.
const DEADLINE: Duration = Duration::from_secs(15);
/// The clock on the wall may jump while a process sleeps: it is looked at this often.
const LOOK: Duration = Duration::from_secs(60);
/// Waits after failures: from, and at most.
const WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Renewals that somebody asked for come no closer together than this.
const ASKED_GAP: Duration = Duration::from_secs(30);

/// Owns the identity of the running process.
pub struct Renewal {
    state_dir: PathBuf,
    identity: watch::Sender<Arc<Identity>>,
    asked: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("{0}")]
    Refused(String),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Silent,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

impl Renewal {
    pub fn new(state_dir: PathBuf, identity: Identity) -> Self {
        Self { state_dir, identity: watch::Sender::new(Arc::new(identity)), asked: Arc::default() }
    }

    /// The identity and its changes.
    #[must_use]
    pub fn identity(&self) -> watch::Receiver<Arc<Identity>> {
        self.identity.subscribe()
    }

    /// Notify it to renew soon: something is signed or sealed with a key that this node does not know.
    #[must_use]
    pub fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    /// Runs until `stop`.
    pub async fn run(self, uplink: Arc<Uplink>, stop: CancellationToken) {
        let mut failures = 0;
        let mut due = half_life(&self.identity.borrow());
        let mut last: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.asked.notified() => {
                    if let Some(left) = last.and_then(|at| ASKED_GAP.checked_sub(at.elapsed())) {
                        // Not now, but not forgotten: whoever asked will not ask again.
                        due = due.min(now() + i64::try_from(left.as_secs()).unwrap_or(0) + 1);
                        continue;
                    }
                }
                () = reached(due) => {}
            }
            last = Some(Instant::now());
            match self.renew(&uplink).await {
                Ok(identity) => {
                    failures = 0;
                    due = half_life(&identity);
                    tracing::info!(node.id = %identity.node_id, "renewed the node's certificate");
                    self.identity.send_replace(Arc::new(identity));
                }
                Err(error) => {
                    self.tell(&error);
                    let ceiling = WAITS.0.saturating_mul(1 << failures.min(8)).min(WAITS.1);
                    let wait = ceiling.mul_f64(rand::random_range(0.2..1.0));
                    due = now() + i64::try_from(wait.as_secs()).unwrap_or(0).max(1);
                    failures += 1;
                }
            }
        }
    }

    async fn renew(&self, uplink: &Uplink) -> Result<Identity, RenewError> {
        let old = Arc::clone(&self.identity.borrow());
        if old.is_expired(now()) {
            return Ok(recover_into(&self.state_dir, uplink.replicas(), &old).await?);
        }
        let link = uplink.link().await?;
        let keys = Keys::generate()?;
        let request =
            RenewRequest { csr: keys.certificate_request()?.into(), hpke_public_key: keys.hpke_public().to_vec().into() };
        let answer = tokio::time::timeout(DEADLINE, NodeServiceClient::new(link.channel.clone()).renew(request)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                uplink.discard(&link).await;
                return Err(RenewError::Refused(whole(&status)));
            }
            Err(_) => {
                uplink.discard(&link).await;
                return Err(RenewError::Silent);
            }
        };
        let identity = keys.into_identity(&old.node_id, &old.pool, answer.credentials.unwrap_or_default())?;
        let dir = self.state_dir.clone();
        let (identity, saved) = tokio::task::spawn_blocking(move || {
            let saved = identity.save(&dir);
            (identity, saved)
        })
        .await
        .expect("saving does not panic");
        if let Err(error) = saved {
            // It works until a restart, and the old one on disk may still work after it.
            tracing::error!("the renewed identity could not be saved: {error}");
        }
        Ok(identity)
    }

    fn tell(&self, error: &RenewError) {
        let identity = self.identity.borrow();
        let (left, node) = (identity.not_after - now(), &identity.node_id);
        if left > 0 {
            tracing::warn!("the certificate of node {node} could not be renewed, it holds for {left} s more: {error}");
        } else {
            tracing::error!(
                "the certificate of node {node} has expired, and the node is not back yet: {error}; traffic goes on under the last \
                 configuration, and it tries again"
            );
        }
    }
}

/// When to renew: in the middle of the certificate's life, give or take 5 %, seconds since the Unix epoch.
fn half_life(identity: &Identity) -> i64 {
    let life = identity.not_after - identity.not_before;
    identity.not_before + life * rand::random_range(45..=55) / 100
}

#[cfg(test)]
mod tests;

async fn reached(due: i64) {
    loop {
        let left = u64::try_from(due - now()).unwrap_or(0);
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(left).min(LOOK)).await;
    }
}
