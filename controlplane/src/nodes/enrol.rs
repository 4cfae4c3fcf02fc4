//! First contact: a one-time join token becomes a node and its credentials. Exactly one caller wins a token, however many try.
//!
//! Owns EnrollmentService; nodes that come back after their certificate expired are for [`super::recover`]. Every outcome is in the audit log; a refusal does not say why to the caller.

use std::time::Instant;

use mcp_gateway::{
    proto::node::v1::{
        EnrollRequest, EnrollResponse, ManifestKey, NodeCredentials, RecoverRequest, RecoverResponse,
        enrollment_service_server::EnrollmentService,
    },
    seal::seal_pool_key,
};
use serde_json::json;
use tonic::{Request, Response, Status};
use tracing::info;
use uuid::Uuid;

use super::{
    identity::{self, Identity, Leaf},
    pace::Pace,
    peer, recover,
};
use crate::{
    app::Core,
    domain::{Labels, ids},
    keys::{self, Keys},
    store::{
        self,
        audit::Entry,
        change::{Actor, Begun, Change, Kind, Operation, Origin, Touched},
        join_tokens,
        nodes::{self, Enrolled},
    },
};

const METHOD: &str = "/mcpgw.node.v1.EnrollmentService/Enroll";
/// Enrolments that may begin per second, and as many recoveries: whoever has no token or key must not fill the audit log.
const PER_SECOND: u32 = 20;
/// What a node may call itself, in characters.
const MAX_NAME: usize = 200;

/// EnrollmentService.
#[derive(Debug)]
pub struct Enrolment {
    core: Core,
    pace: Pace,
    recoveries: Pace,
}

/// Why a node gets no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the join token is unknown, was used before, or has expired")]
    Token,
    #[error("there is no such node, it was removed, or this is not the key that it registered")]
    NotRegistered,
    #[error(
        "the node came back {} times within a day with its certificate expired: see why it cannot renew; a new join token lets it join \
         again (`mcpgw node join-token create`)",
        recover::PER_DAY
    )]
    TooOften,
    #[error("{0}")]
    Request(String),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
}

impl From<identity::Error> for Error {
    fn from(error: identity::Error) -> Self {
        Self::Request(error.to_string())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::Token | Error::NotRegistered => Self::permission_denied(error.to_string()),
            Error::TooOften => Self::failed_precondition(error.to_string()),
            Error::Request(_) => Self::invalid_argument(error.to_string()),
            Error::Store(error) => peer::status(error),
            Error::Keys(keys::Error::NotLoaded) => Self::unavailable(error.to_string()),
            Error::Keys(keys::Error::Store(error)) => peer::status(error),
            Error::Keys(keys::Error::WrongMasterKey { .. } | keys::Error::Malformed { .. } | keys::Error::Unreadable) => {
                tracing::error!(%error, "a node's call failed");
                Self::internal("an internal error; the control plane's log says more")
            }
        }
    }
}

/// A join token taken apart. Its secret is only ever hashed.
struct Token {
    id: String,
    secret_sha256: [u8; 32],
}

impl Token {
    /// `mcpgwj_<id>_<secret>`, with or without the pin behind it.
    fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('.').map_or(text, |(token, _)| token);
        let (id, secret) = text.strip_prefix("mcpgwj_")?.split_once('_')?;
        (ids::is_public_id(id) && secret.len() < 200).then(|| Self { id: id.to_owned(), secret_sha256: ids::sha256(secret) })
    }
}

impl Enrolment {
    pub fn new(core: Core) -> Self {
        let pace = || Pace::new(PER_SECOND, Instant::now());
        Self { core, pace: pace(), recoveries: pace() }
    }

    async fn enrol(&self, request: &EnrollRequest, address: &str) -> Result<EnrollResponse, Error> {
        let name_fits = request.display_name.chars().count() <= MAX_NAME && !request.display_name.contains('\0');
        if !name_fits {
            return Err(Error::Request(format!("display_name: expected at most {MAX_NAME} characters, without NUL")));
        }
        let Some(token) = Token::parse(&request.token) else {
            self.refused("joinTokens/-", address).await;
            return Err(Error::Token);
        };
        let resource = format!("joinTokens/{}", token.id);
        let Some(known) = self.core.store.join_token(&token.id).await? else {
            self.refused(&resource, address).await;
            return Err(Error::Token);
        };
        // Before the transaction: making the pool's keys takes a connection of its own.
        let keys = self.core.custody.with_pool(&known.pool).await?;
        let node_id = Uuid::now_v7();
        let actor = Actor { id: node_id.to_string(), name: format!("node:{node_id}"), address: address.to_owned() };
        let origin = Origin { actor, ..Origin::system(METHOD) };
        let Begun::Fresh(mut change) = self.core.store.begin(origin).await? else { return Err(Error::Token) };
        let used = join_tokens::consume(change.connection(), &token.id, &token.secret_sha256, node_id).await?;
        let Some((pool, labels)) = used else {
            drop(change);
            self.refused(&resource, address).await;
            return Err(Error::Token);
        };
        // From here on a failure gives the token back: the transaction ends without a commit.
        let identity = Identity { node_id, pool };
        let (leaf, credentials) =
            credentials(&keys, &identity, &self.core.config.trust_domain, &request.csr, &request.hpke_public_key)?;
        self.join(*change, &identity, &leaf, (request, &labels)).await?;
        info!(node.id = %node_id, pool = identity.pool, "node {node_id} joined pool {}", identity.pool);
        Ok(EnrollResponse { node_id: node_id.to_string(), pool: identity.pool, credentials: Some(credentials) })
    }

    async fn join(
        &self,
        mut change: Change,
        identity: &Identity,
        leaf: &Leaf,
        (request, labels): (&EnrollRequest, &Labels),
    ) -> Result<(), Error> {
        let node = Enrolled {
            id: identity.node_id,
            display_name: &request.display_name,
            pool: &identity.pool,
            spki_sha256: leaf.spki_sha256,
            hpke_public_key: &request.hpke_public_key,
            certificate_expires_at: leaf.expires_at,
        };
        nodes::insert_node(change.connection(), &node, labels).await?;
        change.touch(Touched::aside(Kind::Node, Operation::Create, format!("nodes/{}", identity.node_id)));
        change.action("node.enroll");
        change.detail(json!({ "pool": identity.pool, "display_name": request.display_name, "labels": labels }));
        Ok(change.seal().await?.commit(&[]).await?)
    }

    async fn refused(&self, resource: &str, address: &str) {
        refused(&self.core, "node.enroll", resource, address).await;
    }
}

/// Records an attempt. If even that fails the caller is refused all the same.
pub(super) async fn refused(core: &Core, action: &str, resource: &str, address: &str) {
    let entry = Entry {
        org_id: None,
        org_slug: String::new(),
        actor: &Actor { id: "unknown".into(), name: "unknown".into(), address: address.to_owned() },
        action,
        resource,
        outcome: "denied",
        config_version: 0,
        detail: &json!({}),
    };
    if let Err(error) = core.store.record(&entry).await {
        tracing::error!(%error, "a refused {action} is not in the audit log");
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enrolment {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        self.pace.admit(Instant::now()).map_err(|after| busy("enrolments", after))?;
        let address = caller(&request);
        Ok(Response::new(self.enrol(request.get_ref(), &address).await?))
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<RecoverResponse>, Status> {
        self.recoveries.admit(Instant::now()).map_err(|after| busy("recoveries", after))?;
        let address = caller(&request);
        Ok(Response::new(recover::recover(&self.core, request.get_ref(), &address).await?))
    }
}

fn caller<T>(request: &Request<T>) -> String {
    peer::address(request).map(|address| address.ip().to_string()).unwrap_or_default()
}

/// A certificate for a request's key, and everything else a node needs to take part.
pub(super) fn credentials(
    keys: &Keys,
    identity: &Identity,
    trust_domain: &str,
    csr: &[u8],
    hpke_public_key: &[u8],
) -> Result<(Leaf, NodeCredentials), Error> {
    let leaf = identity::certify(&keys.node_ca.current().material, csr, identity, trust_domain)?;
    let ring = keys.pools.get(&identity.pool).ok_or(keys::Error::NotLoaded)?;
    let sealed = ring.iter().map(|key| seal_pool_key(hpke_public_key, &key.id, &key.material));
    let pool_keys = sealed.collect::<Result<Vec<_>, _>>().map_err(|error| Error::Request(format!("hpke_public_key: {error}")))?;
    let manifest_key = |key: &keys::Key<keys::SigningKey>| ManifestKey {
        key_id: key.id.clone(),
        public_key: key.material.public().to_vec().into(),
    };
    let credentials = NodeCredentials {
        certificate_pem: leaf.pem.clone(),
        ca_pem: keys.node_ca.iter().map(|ca| identity::pem(ca.material.certificate())).collect(),
        manifest_keys: keys.manifest.iter().map(manifest_key).collect(),
        pool_keys,
    };
    Ok((leaf, credentials))
}

/// RESOURCE_EXHAUSTED with the time after which to try again.
pub fn busy(what: &str, after: std::time::Duration) -> Status {
    use tonic_types::{ErrorDetails, StatusExt};
    let text = format!("too many {what} at once: try again in {} ms", after.as_millis());
    Status::with_error_details(tonic::Code::ResourceExhausted, text, ErrorDetails::with_retry_info(Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_tokens_are_read_with_and_without_their_pin() {
        let token = Token::parse("mcpgwj_aaaaaaaaaaaaaaaa_secret").unwrap();
        assert_eq!((token.id.as_str(), token.secret_sha256), ("aaaaaaaaaaaaaaaa", ids::sha256("secret")));
        assert_eq!(Token::parse("mcpgwj_aaaaaaaaaaaaaaaa_secret.00ff").unwrap().secret_sha256, ids::sha256("secret"));
        for wrong in ["", "mcpgwj_", "mcpgwj_short_secret", "mcpgw_aaaaaaaaaaaaaaaa_secret", "mcpgwj_aaaaaaaaaaaaaaaa"] {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
    }
}
