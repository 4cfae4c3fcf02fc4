//! Comes back after the certificate expired: with the key pair that the control plane has registered, over TLS that only the known
//! authorities vouch for. No client certificate is shown, there is none that holds.
//!
//! One attempt per call; [`super::renew`] and [`super::enrol`] say when. Traffic never waits for it.

use std::path::Path;
use std::time::Duration;

use mcp_gateway::proto::node::v1::RecoverRequest;
use mcp_gateway::proto::node::v1::enrollment_service_client::EnrollmentServiceClient;
use tonic::{Code, Status};

use super::BUILD;
use super::identity::{Identity, IdentityError};
use super::uplink::{Replicas, UplinkError, dial_known, whole};

/// Until the control plane must have answered.
const DEADLINE: Duration = Duration::from_secs(15);

/// Why the node is not back.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoverError {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Silent,
    #[error("{0}")]
    Failed(String),
    #[error("the control plane refused: {0}; the node needs a new join token (`mcpgw node join-token create`)")]
    Refused(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A fresh certificate for the keys of `expired`, together with what goes with it now.
pub(super) async fn recover(replicas: &Replicas, expired: &Identity) -> Result<Identity, RecoverError> {
    let channel = dial_known(replicas, &expired.ca_pem).await?;
    let keys = expired.keys()?;
    let request =
        RecoverRequest { node_id: expired.node_id.clone(), csr: keys.certificate_request()?.into(), build: BUILD.to_owned() };
    let answer = tokio::time::timeout(DEADLINE, EnrollmentServiceClient::new(channel).recover(request)).await;
    let answer = answer.map_err(|_elapsed| RecoverError::Silent)?.map_err(|status| refusal(&status))?.into_inner();
    Ok(keys.into_identity(&expired.node_id, &expired.pool, answer.credentials.unwrap_or_default())?)
}

/// As [`recover`], and on disk: what it returns works until a restart even if that fails.
pub(super) async fn recover_into(state_dir: &Path, replicas: &Replicas, expired: &Identity) -> Result<Identity, RecoverError> {
    let fresh = recover(replicas, expired).await?;
    if let Err(error) = fresh.save(state_dir) {
        tracing::error!("the recovered identity could not be saved: {error}");
    }
    tracing::info!(node.id = %fresh.node_id, "node {} is back with a fresh certificate after its own had expired", fresh.node_id);
    Ok(fresh)
}

fn refusal(status: &Status) -> RecoverError {
    match status.code() {
        Code::PermissionDenied | Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
            RecoverError::Refused(status.message().to_owned())
        }
        _ => RecoverError::Failed(whole(status)), // tonic's own classes of failure: the next attempt may fare better
    }
}
