//! A node whose certificate expired while it could not renew comes back by itself: it proves that it holds the key pair that it
//! registered, by a certificate request of that key. No client certificate is asked for.
//!
//! Whoever repeats a request that it saw gains nothing: the certificate is of the node's own key, and pool keys are sealed to the key
//! that is stored. Bounded per node and day; every outcome is in the audit log. Called by [`super::enrol`].

use mcp_gateway::proto::node::v1::{RecoverRequest, RecoverResponse};
use serde_json::json;
use tracing::info;
use uuid::Uuid;

use super::{
    enrol::{self, Error},
    identity::{self, Identity},
    service::MAX_BUILD,
};
use crate::{
    app::Core,
    store::{
        change::{Actor, Begun, Kind, Operation, Origin, Touched},
        nodes::{self, Enrolled},
    },
};

const METHOD: &str = "/mcpgw.node.v1.EnrollmentService/Recover";
/// What the records call it.
pub(super) const ACTION: &str = "node.recover";
/// A node that needs this more often within a day needs a person.
pub const PER_DAY: usize = 3;

/// A fresh certificate for the registered key, or why not.
pub(super) async fn recover(core: &Core, request: &RecoverRequest, address: &str) -> Result<RecoverResponse, Error> {
    if request.build.len() > MAX_BUILD || request.build.contains('\0') {
        return Err(Error::Request(format!("build: expected at most {MAX_BUILD} bytes, without NUL")));
    }
    let key = identity::requested_key(&request.csr)?;
    let known = Uuid::try_parse(&request.node_id).ok();
    let result = match known {
        Some(id) => attempt(core, id, request, key, address).await,
        None => Err(Error::NotRegistered),
    };
    if let Err(Error::NotRegistered | Error::TooOften) = &result {
        let resource = known.map_or_else(|| "nodes/-".to_owned(), |id| format!("nodes/{id}"));
        enrol::refused(core, ACTION, &resource, address).await;
    }
    result
}

async fn attempt(
    core: &Core,
    node_id: Uuid,
    request: &RecoverRequest,
    key: [u8; 32],
    address: &str,
) -> Result<RecoverResponse, Error> {
    let pool = core.store.node(node_id).await?.ok_or(Error::NotRegistered)?.pool;
    // Before the transaction: making the pool's keys takes a connection of its own.
    let keys = core.custody.with_pool(&pool).await?;
    let actor = Actor { id: node_id.to_string(), name: format!("node:{node_id}"), address: address.to_owned() };
    let origin = Origin { actor, ..Origin::system(METHOD) };
    let Begun::Fresh(mut change) = core.store.begin(origin).await? else { return Err(Error::NotRegistered) };
    let registered = nodes::registered(change.connection(), node_id, &pool, &key).await?.ok_or(Error::NotRegistered)?;
    if registered.recoveries >= PER_DAY {
        return Err(Error::TooOften);
    }
    let identity = Identity { node_id, pool };
    let hpke = &registered.hpke_public_key;
    let (leaf, credentials) = enrol::credentials(&keys, &identity, &core.config.trust_domain, &request.csr, hpke)?;
    let node = Enrolled {
        id: node_id,
        display_name: "",
        pool: &identity.pool,
        spki_sha256: leaf.spki_sha256,
        hpke_public_key: hpke,
        certificate_expires_at: leaf.expires_at,
    };
    nodes::recovered(change.connection(), &node).await?;
    change.touch(Touched::aside(Kind::Node, Operation::Update, format!("nodes/{node_id}")));
    change.action(ACTION);
    change.detail(json!({ "pool": identity.pool, "build": request.build, "today": registered.recoveries + 1 }));
    change.seal().await?.commit(&[]).await?;
    info!(node.id = %node_id, "node {node_id} came back with its registered key after its certificate had expired");
    Ok(RecoverResponse { credentials: Some(credentials) })
}

#[cfg(test)]
mod tests;
