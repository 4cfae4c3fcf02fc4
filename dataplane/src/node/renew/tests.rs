//! Renewal against a control plane with real certificates.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use mcp_gateway::proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use mcp_gateway::proto::node::v1::{RenewResponse, ReportStatusRequest, ReportStatusResponse, ShipRequest, ShipResponse};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::node::testing::{Ca, ControlPlane, NODE, POOL};

#[derive(Clone)]
struct Desk {
    ca: Arc<Ca>,
    asked: Arc<AtomicU32>,
}

#[tonic::async_trait]
impl NodeService for Desk {
    type ShipStream = Pin<Box<dyn Stream<Item = Result<ShipResponse, Status>> + Send>>;

    async fn ship(&self, _: Request<Streaming<ShipRequest>>) -> Result<Response<Self::ShipStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        assert!(request.peer_certs().is_some_and(|certificates| !certificates.is_empty()), "over mutual TLS");
        self.asked.fetch_add(1, Relaxed);
        let request = request.into_inner();
        let credentials = self.ca.credentials(&request.csr, &request.hpke_public_key, (-60, 7200));
        Ok(Response::new(RenewResponse { credentials: Some(credentials) }))
    }

    async fn report_status(&self, _: Request<ReportStatusRequest>) -> Result<Response<ReportStatusResponse>, Status> {
        Ok(Response::new(ReportStatusResponse {}))
    }
}

/// Runs renewal of an identity that holds from `life.0` to `life.1` seconds from now, until it is a new one.
async fn renewed(life: (i64, i64), ask: bool) -> Arc<Identity> {
    let ca = Arc::new(Ca::new());
    let desk = Desk { ca: Arc::clone(&ca), asked: Arc::default() };
    let control = ControlPlane::start(&ca, Routes::new(NodeServiceServer::new(desk.clone()))).await;
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::generate().unwrap();
    let credentials = ca.credentials(&keys.certificate_request().unwrap(), keys.hpke_public(), life);
    let renewal = Renewal::new(dir.path().to_owned(), keys.into_identity(NODE, POOL, credentials).unwrap());
    let mut identity = renewal.identity();
    let uplink = Arc::new(Uplink::new(control.replicas.clone(), renewal.identity(), 0));
    if ask {
        renewal.asked().notify_one();
    }
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(renewal.run(Arc::clone(&uplink), stop.clone()));
    tokio::time::timeout(Duration::from_secs(30), identity.changed()).await.expect("it is renewed").unwrap();
    let fresh = Arc::clone(&identity.borrow());
    assert_eq!(Identity::load(dir.path()).unwrap().unwrap().certificate_pem, fresh.certificate_pem, "on disk too");
    uplink.link().await.expect("the new certificate is good for a connection");
    assert_eq!(desk.asked.load(Relaxed), 1);
    stop.cancel();
    tasks.join_all().await;
    fresh
}

#[tokio::test]
async fn a_certificate_is_renewed_past_the_middle_of_its_life() {
    let fresh = renewed((-3600, 3000), false).await;
    assert!(fresh.not_after > now() + 3600);
    assert_eq!(fresh.node_id, NODE);
}

#[tokio::test]
async fn credentials_are_renewed_when_somebody_needs_newer_keys() {
    renewed((-60, 36_000), true).await;
}
