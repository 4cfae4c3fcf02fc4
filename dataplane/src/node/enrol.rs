//! First contact: a one-time join token becomes an identity. The key pairs are made here and never leave.
//! Called once at start, when the state directory holds no identity that still works.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcp_gateway::proto::node::v1::EnrollRequest;
use mcp_gateway::proto::node::v1::enrollment_service_client::EnrollmentServiceClient;
use secrecy::SecretString;
use tonic::{Code, Status};

use super::BUILD;
use super::identity::{Identity, IdentityError, Keys};
use super::recover::recover_into;
use super::token::{JoinToken, TokenError};
use super::uplink::{Replicas, UplinkError, dial_pinned, whole};

/// Until the control plane must have answered.
const DEADLINE: Duration = Duration::from_secs(15);
/// Longest wait between attempts to reach a control plane that is not there yet.
const MOST_WAIT: Duration = Duration::from_secs(10);

/// What a node needs to join.
pub struct Enrolment {
    pub replicas: Replicas,
    /// `mcpgwj_<id>_<secret>.<pin>`; only needed while there is no identity.
    pub token: Option<SecretString>,
    /// For people, such as the host name.
    pub display_name: String,
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(
        "this node has no identity and no join token; create one with `mcpgw node join-token create` and set control_plane.join_token"
    )]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the control plane refused the join token ({reason}): it is unknown, used or expired; create another with `mcpgw node join-token create`"
    )]
    Refused { reason: String },
    #[error("the control plane refused the request: {reason}")]
    Rejected { reason: String },
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The identity on disk, or a new one for the join token. Waits for a control plane that is not there yet, as long as it takes.
pub async fn join(state_dir: &Path, enrolment: &Enrolment) -> Result<Identity, EnrolError> {
    let known = Identity::load(state_dir)?;
    if let Some(identity) = known {
        if !identity.is_expired(now()) {
            return Ok(identity);
        }
        return Ok(replace_expired(identity, state_dir, enrolment).await);
    }
    let token = JoinToken::parse(enrolment.token.as_ref().ok_or(EnrolError::NoToken)?)?;
    let mut wait = Duration::from_millis(250);
    loop {
        match enrol(state_dir, &token, enrolment).await {
            Err(EnrolError::Unreachable(reason)) => {
                tracing::warn!("waiting for the control plane to enrol with: {reason}");
                tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
                wait = (wait * 2).min(MOST_WAIT);
            }
            other => return other,
        }
    }
}

/// An expired identity fetches no configuration any more, but it stops no traffic: a failure here is only told, and renewal tries again.
/// A join token is the way out where the node cannot come back as itself.
async fn replace_expired(identity: Identity, state_dir: &Path, enrolment: &Enrolment) -> Identity {
    let node = &identity.node_id;
    match recover_into(state_dir, &enrolment.replicas, &identity).await {
        Ok(fresh) => return fresh,
        Err(error) => {
            tracing::warn!(node.id = %node, "the certificate of node {node} has expired, and it is not back yet: {error}")
        }
    }
    let Some(token) = &enrolment.token else { return identity };
    let attempt = async { enrol(state_dir, &JoinToken::parse(token)?, enrolment).await };
    match attempt.await {
        Ok(fresh) => fresh,
        Err(error) => {
            tracing::error!(node.id = %node, "the certificate of node {node} has expired, and it could not join again: {error}");
            identity
        }
    }
}

/// One attempt. The token is spent as soon as the control plane answers.
async fn enrol(state_dir: &Path, token: &JoinToken, enrolment: &Enrolment) -> Result<Identity, EnrolError> {
    let unreachable = |error: UplinkError| EnrolError::Unreachable(error.to_string());
    let channel = dial_pinned(&enrolment.replicas, token.pin()).await.map_err(unreachable)?;
    let keys = Keys::generate()?;
    let request = EnrollRequest {
        token: token.bearer().to_owned(),
        csr: keys.certificate_request()?.into(),
        hpke_public_key: keys.hpke_public().to_vec().into(),
        build: BUILD.to_owned(),
        display_name: enrolment.display_name.clone(),
    };
    let answer = tokio::time::timeout(DEADLINE, EnrollmentServiceClient::new(channel).enroll(request)).await;
    let answer = match answer {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(refusal(&status)),
        Err(_) => return Err(EnrolError::Unreachable(format!("no answer to the enrolment within {} s", DEADLINE.as_secs()))),
    };
    let credentials = answer.credentials.unwrap_or_default();
    let identity = keys.into_identity(&answer.node_id, &answer.pool, credentials)?;
    identity.save(state_dir)?;
    tracing::info!(node.id = %identity.node_id, pool = %identity.pool, "joined pool {} as node {}", identity.pool, identity.node_id);
    Ok(identity)
}

fn refusal(status: &Status) -> EnrolError {
    let reason = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => EnrolError::Refused { reason },
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => EnrolError::Rejected { reason },
        _ => EnrolError::Unreachable(format!("the enrolment failed: {}", whole(status))),
    }
}

#[cfg(test)]
mod tests;

/// Seconds since the Unix epoch.
pub(super) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}
