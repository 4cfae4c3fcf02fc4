//! Who is at the other end of a call on the node listener: the certificate of its connection, checked against what was removed.

use std::net::SocketAddr;

use tonic::{
    Request, Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

use super::identity::{self, Identity};
use crate::{app::Core, store};

/// The node that makes a call. UNAUTHENTICATED: it has no certificate; PERMISSION_DENIED: it is no node of ours, or was removed.
pub fn identity<T>(core: &Core, request: &Request<T>) -> Result<Identity, Status> {
    let certificates = request.peer_certs();
    let Some(leaf) = certificates.as_ref().and_then(|certificates| certificates.first()) else {
        return Err(Status::unauthenticated("a node's certificate is needed here: enrol first"));
    };
    let identity = Identity::of_certificate(leaf, &core.config.trust_domain)
        .map_err(|error| Status::permission_denied(error.to_string()))?;
    refuse_removed(core, &identity)?;
    Ok(identity)
}

/// SHA-256 of the SubjectPublicKeyInfo of the certificate that a call was made with.
pub fn presented_key<T>(request: &Request<T>) -> Option<[u8; 32]> {
    identity::certified_key(request.peer_certs()?.first()?)
}

/// Refuses a node that was removed, as far as this replica has heard.
pub fn refuse_removed(core: &Core, identity: &Identity) -> Result<(), Status> {
    let removed = core.publications.now().is_some_and(|published| published.voids.nodes.contains(&identity.node_id));
    if removed { Err(removed_status(identity)) } else { Ok(()) }
}

/// Refuses a node that the database does not know in this pool. While the database is away the certificate is enough: it is less than
/// a day old, and removals of a day are remembered.
pub async fn refuse_unknown(core: &Core, identity: &Identity) -> Result<(), Status> {
    match core.store.is_member(identity.node_id, &identity.pool).await {
        Ok(true) | Err(store::Error::Away(_)) => Ok(()),
        Ok(false) => Err(removed_status(identity)),
        Err(error) => Err(status(&error)),
    }
}

/// What a node that was removed gets.
pub fn removed_status(identity: &Identity) -> Status {
    Status::permission_denied(format!("node {} is not a node of pool {} any more", identity.node_id, identity.pool))
}

/// What a node gets when the store does not do it. Nothing of the cause: that is in the log.
pub fn status(error: &store::Error) -> Status {
    match error {
        store::Error::Away(_) | store::Error::Contended => Status::unavailable(error.to_string()),
        store::Error::NotFound(_)
        | store::Error::Taken(_)
        | store::Error::Stale(_)
        | store::Error::Invalid(_)
        | store::Error::Precondition(_)
        | store::Error::Settings(_)
        | store::Error::Corrupt(_)
        | store::Error::Internal(_) => {
            tracing::error!(error = %crate::open::chain(error), "a node's call failed");
            Status::internal("an internal error; the control plane's log says more")
        }
    }
}

/// Where a call came from.
pub fn address<T>(request: &Request<T>) -> Option<SocketAddr> {
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    connection.get_ref().remote_addr()
}
