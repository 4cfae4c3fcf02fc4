//! The control plane of a measured node: the real one, on a database of its own, in this process. Its node listener is the real one too,
//! but for one call: shipped records are acknowledged and dropped, so that a database does not compete with the load for its processor.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use mcp_gateway::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use mcp_gateway::proto::node::v1::enrollment_service_server::EnrollmentServiceServer;
use mcp_gateway::proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use mcp_gateway::proto::node::v1::{
    RenewRequest, RenewResponse, ReportStatusRequest, ReportStatusResponse, ShipRequest, ShipResponse,
};
use mcpgw_controlplane::ingest::Ingest;
use mcpgw_controlplane::keys::token::Claims;
use mcpgw_controlplane::nodes::enrol::Enrolment;
use mcpgw_controlplane::nodes::fleet::Fleet;
use mcpgw_controlplane::nodes::{listener, service::Service};
use mcpgw_controlplane::testing;
use mcpgw_controlplane::xds::server::Discovery;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::fleet::{Admin, Control};

const MAX_SHIPMENT: usize = 2 << 20;
const TOKEN_LIFE: i64 = 24 * 3600;

/// See the module.
pub struct Desk {
    pub control: Control,
    pub admin: Admin,
    /// Where nodes dial.
    pub address: SocketAddr,
    /// Frames that arrived.
    pub shipped: Arc<AtomicU64>,
    _serving: JoinSet<anyhow::Result<()>>,
}

impl Desk {
    pub async fn open() -> anyhow::Result<Self> {
        let control = Control::with(testing::config(&testing::database().await)).await?;
        let core = control.running.core.clone();
        let socket = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = socket.local_addr()?;
        let keys = core.custody.keys()?;
        let incoming = listener::accept(&core, &keys, socket)?;
        let fleet = Fleet::new(core.overview.replica().to_owned());
        let shipped = Arc::<AtomicU64>::default();
        let real = Service { core: core.clone(), ingest: Ingest::new(&core) };
        let sink = Sink { real, shipped: shipped.clone() };
        let serving = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .add_service(EnrollmentServiceServer::new(Enrolment::new(core.clone())))
            .add_service(NodeServiceServer::new(sink).max_decoding_message_size(MAX_SHIPMENT))
            .add_service(AggregatedDiscoveryServiceServer::new(Discovery::new(core.clone(), fleet.clone())))
            .serve_with_incoming(incoming);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { Ok(serving.await?) });
        let written = fleet.write(core.store.clone(), core.tasks.clone());
        tasks.spawn(async move {
            written.await;
            Ok(())
        });
        let admin = control.owner().await?;
        Ok(Self { control, admin, address, shipped, _serving: tasks })
    }

    /// What a login would give each of `users` users of the organisation.
    pub fn tokens(&self, organization: Uuid, users: usize, roles: &[&str]) -> anyhow::Result<Vec<String>> {
        let core = &self.control.running.core;
        let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
        let token = |number: usize| {
            let claims = Claims {
                iss: core.config.issuer.clone(),
                aud: core.config.gateway_public_url.clone(),
                sub: Uuid::now_v7().to_string(),
                org: Some(organization.to_string()),
                org_slug: Some("bench".to_owned()),
                roles: roles.iter().map(|&role| role.to_owned()).collect(),
                groups: vec!["group-2".to_owned()],
                sid: Uuid::now_v7().to_string(),
                jti: Uuid::now_v7().to_string(),
                iat: now,
                exp: now + TOKEN_LIFE,
                email: format!("user-{number}@example.com"),
                platform_admin: false,
            };
            core.custody.sign_token(&claims).context("signing a token")
        };
        (0..users).map(token).collect()
    }
}

/// NodeService that keeps no records.
struct Sink {
    real: Service,
    shipped: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl NodeService for Sink {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        self.real.renew(request).await
    }

    async fn report_status(&self, request: Request<ReportStatusRequest>) -> Result<Response<ReportStatusResponse>, Status> {
        self.real.report_status(request).await
    }

    type ShipStream = Pin<Box<dyn Stream<Item = Result<ShipResponse, Status>> + Send>>;

    async fn ship(&self, request: Request<Streaming<ShipRequest>>) -> Result<Response<Self::ShipStream>, Status> {
        let shipped = self.shipped.clone();
        let answers = request.into_inner().map(move |run| {
            let ShipRequest { boot_id, lane, frames } = run?;
            shipped.fetch_add(frames.len() as u64, Relaxed);
            Ok(ShipResponse { boot_id, lane, acked_seq: frames.last().map_or(0, |frame| frame.seq) })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
