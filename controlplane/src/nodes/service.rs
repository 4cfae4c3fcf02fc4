//! What enrolled nodes call beside discovery: fresh certificates, status reports, and the shipping of audit frames.
//!
//! Owns NodeService of the node listener; the admin API's service of the same name is in [`crate::api`].

use std::pin::Pin;

use futures_util::Stream;
use mcp_gateway::{
    proto::node::v1::{
        RenewRequest, RenewResponse, ReportStatusRequest, ReportStatusResponse, ShipRequest, ShipResponse,
        node_service_server::NodeService,
    },
    snapshot::Version,
};
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::{enrol, peer};
use crate::{
    app::Core,
    domain::{found, rules::is_host_port, usage},
    ingest::Ingest,
    store::{
        node_status::{Report, Vitals},
        nodes::Enrolled,
    },
};

/// What a node may say of its software, in bytes.
pub(super) const MAX_BUILD: usize = 100;

/// NodeService.
#[derive(Debug, Clone)]
pub struct Service {
    pub core: Core,
    pub ingest: Ingest,
}

#[tonic::async_trait]
impl NodeService for Service {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let identity = peer::identity(&self.core, &request)?;
        let presented = peer::presented_key(&request);
        let RenewRequest { csr, hpke_public_key } = request.into_inner();
        let keys = self.core.custody.with_pool(&identity.pool).await.map_err(enrol::Error::from)?;
        let trust_domain = &self.core.config.trust_domain;
        let (leaf, credentials) = enrol::credentials(&keys, &identity, trust_domain, &csr, &hpke_public_key)?;
        let node = Enrolled {
            id: identity.node_id,
            display_name: "",
            pool: &identity.pool,
            spki_sha256: leaf.spki_sha256,
            hpke_public_key: &hpke_public_key,
            certificate_expires_at: leaf.expires_at,
        };
        if !self.core.store.renew_node(&node, presented).await.map_err(|error| peer::status(&error))? {
            return Err(peer::removed_status(&identity));
        }
        info!(node.id = %identity.node_id, "renewed the certificate of node {}", identity.node_id);
        Ok(Response::new(RenewResponse { credentials: Some(credentials) }))
    }

    async fn report_status(&self, request: Request<ReportStatusRequest>) -> Result<Response<ReportStatusResponse>, Status> {
        let identity = peer::identity(&self.core, &request)?;
        let status = request.into_inner();
        if !matches!(status.digest.len(), 0 | 32) {
            return Err(Status::invalid_argument("digest: expected 32 bytes, or none"));
        }
        if status.build.len() > MAX_BUILD || status.build.contains('\0') {
            return Err(Status::invalid_argument(format!("build: expected at most {MAX_BUILD} bytes, without NUL")));
        }
        if !status.advertise.is_empty() && !is_host_port(&status.advertise) {
            return Err(Status::invalid_argument("advertise: expected host:port, or nothing"));
        }
        let (usage, found) = (usage::read(&status.limit_usage), found::read(&status.found_servers));
        let report = Report {
            node_id: identity.node_id,
            applied: Version { epoch: status.epoch, version: status.version },
            digest: &status.digest,
            build: &status.build,
            advertise: &status.advertise,
            vitals: Vitals {
                stale_seconds: status.stale_seconds,
                quarantined: status.quarantined,
                spool_frames: status.spool_frames,
                spool_oldest_ms: status.spool_oldest_ms,
                open_streams: status.open_streams,
            },
            usage: &usage,
            found: &found,
        };
        if !self.core.store.note_report(&report).await.map_err(|error| peer::status(&error))? {
            return Err(peer::removed_status(&identity));
        }
        let live_nodes = self.core.store.live_nodes(&identity.pool).await.map_err(|error| peer::status(&error))?;
        Ok(Response::new(ReportStatusResponse { live_nodes }))
    }

    type ShipStream = Pin<Box<dyn Stream<Item = Result<ShipResponse, Status>> + Send>>;

    async fn ship(&self, request: Request<Streaming<ShipRequest>>) -> Result<Response<Self::ShipStream>, Status> {
        let identity = peer::identity(&self.core, &request)?;
        peer::refuse_unknown(&self.core, &identity).await?;
        Ok(Response::new(Box::pin(self.ingest.receive(identity, request.into_inner()))))
    }
}
