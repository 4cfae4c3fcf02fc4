//! A control plane for tests: real sockets, real mutual TLS, and a wire that can be cut. What it answers, each test says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use mcp_gateway::proto::node::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use mcp_gateway::proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use mcp_gateway::proto::node::v1::{
    EnrollRequest, EnrollResponse, ManifestKey, NodeCredentials, RecoverRequest, RecoverResponse, RenewRequest, RenewResponse,
    ReportStatusRequest, ReportStatusResponse, ShipRequest, ShipResponse,
};
use mcp_gateway::seal::{PoolKey, seal_pool_key};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::enrol::now;
use super::identity::{Identity, Keys};
use super::uplink::{Replicas, Uplink};

pub(crate) const NODE: &str = "0190a000-0000-7000-8000-00000000000e";
pub(crate) const POOL: &str = "default";

/// The fleet's authority.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub pool_key: PoolKey,
    /// Public keys for manifests.
    pub manifest_keys: BTreeMap<String, Vec<u8>>,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, pool_key: PoolKey::generate().unwrap(), manifest_keys: BTreeMap::new() }
    }

    pub fn pin(&self) -> String {
        use rcgen::PublicKeyData;
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.issuer.key().subject_public_key_info()))
    }

    /// What a control plane answers to a certificate request; the certificate holds from `life.0` to `life.1` seconds from now.
    pub fn credentials(&self, csr: &[u8], hpke_public: &[u8], life: (i64, i64)) -> NodeCredentials {
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |seconds: i64| epoch + Duration::from_secs(u64::try_from(now() + seconds).unwrap());
        request.params.not_before = at(life.0);
        request.params.not_after = at(life.1);
        let uri = format!("spiffe://test/pool/{POOL}/node/{NODE}");
        request.params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        NodeCredentials {
            certificate_pem: request.signed_by(&self.issuer).unwrap().pem(),
            ca_pem: self.issuer.pem(),
            manifest_keys: self
                .manifest_keys
                .iter()
                .map(|(id, key)| ManifestKey { key_id: id.clone(), public_key: key.clone().into() })
                .collect(),
            pool_keys: vec![seal_pool_key(hpke_public, "p1", &self.pool_key).unwrap()],
        }
    }

    /// An enrolled node.
    pub fn identity(&self) -> Identity {
        self.identity_for((-60, 3600))
    }

    /// An enrolled node whose certificate holds from `life.0` to `life.1` seconds from now.
    pub fn identity_for(&self, life: (i64, i64)) -> Identity {
        let keys = Keys::generate().unwrap();
        let credentials = self.credentials(&keys.certificate_request().unwrap(), keys.hpke_public(), life);
        keys.into_identity(NODE, POOL, credentials).unwrap()
    }

    fn server_tls(&self) -> ServerTlsConfig {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let chain = format!("{}{}", leaf.pem(), self.issuer.pem());
        ServerTlsConfig::new()
            .identity(TlsIdentity::from_pem(chain, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(self.issuer.pem()))
            .client_auth_optional(true)
    }
}

/// The part of a control plane that renews certificates, takes nodes back and takes status reports.
#[derive(Clone)]
pub(crate) struct Desk {
    ca: Arc<Ca>,
    pub renewals: Arc<AtomicU32>,
    pub recoveries: Arc<AtomicU32>,
    /// What the node registered.
    pub hpke: watch::Sender<Vec<u8>>,
    /// The last status report.
    pub report: watch::Sender<Option<ReportStatusRequest>>,
}

impl Desk {
    pub fn new(ca: &Arc<Ca>) -> Self {
        Self {
            ca: Arc::clone(ca),
            renewals: Arc::default(),
            recoveries: Arc::default(),
            hpke: watch::Sender::default(),
            report: watch::Sender::new(None),
        }
    }

    pub async fn open(&self) -> ControlPlane {
        let routes = Routes::new(NodeServiceServer::new(self.clone()));
        ControlPlane::start(&self.ca, routes.add_service(EnrollmentServiceServer::new(self.clone()))).await
    }
}

#[tonic::async_trait]
impl EnrollmentService for Desk {
    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<RecoverResponse>, Status> {
        assert!(request.peer_certs().is_none_or(|certificates| certificates.is_empty()), "there is none that holds");
        self.recoveries.fetch_add(1, Relaxed);
        let request = request.into_inner();
        assert_eq!(request.node_id, NODE);
        let credentials = self.ca.credentials(&request.csr, &self.hpke.borrow(), (-60, 7200));
        Ok(Response::new(RecoverResponse { credentials: Some(credentials) }))
    }
}

#[tonic::async_trait]
impl NodeService for Desk {
    type ShipStream = Pin<Box<dyn Stream<Item = Result<ShipResponse, Status>> + Send>>;

    async fn ship(&self, _: Request<Streaming<ShipRequest>>) -> Result<Response<Self::ShipStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        assert!(request.peer_certs().is_some_and(|certificates| !certificates.is_empty()), "over mutual TLS");
        self.renewals.fetch_add(1, Relaxed);
        let request = request.into_inner();
        let credentials = self.ca.credentials(&request.csr, &request.hpke_public_key, (-60, 7200));
        Ok(Response::new(RenewResponse { credentials: Some(credentials) }))
    }

    async fn report_status(&self, request: Request<ReportStatusRequest>) -> Result<Response<ReportStatusResponse>, Status> {
        self.report.send_replace(Some(request.into_inner()));
        Ok(Response::new(ReportStatusResponse::default()))
    }
}

/// A running control plane, and the wire to it.
pub(crate) struct ControlPlane {
    /// Where nodes dial.
    pub replicas: Replicas,
    cuts: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl ControlPlane {
    /// Serves `routes` behind a wire of its own.
    pub async fn start(ca: &Ca, routes: Routes) -> Self {
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serving = Server::builder()
            .tls_config(ca.server_tls())
            .unwrap()
            .add_routes(routes)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tasks.spawn(async move { serving.await.unwrap() });
        let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", wire.local_addr().unwrap().port());
        let cuts = watch::Sender::new(0);
        tasks.spawn(carry(wire, server, cuts.subscribe()));
        Self { replicas: Replicas { endpoints: vec![endpoint], server_name: None }, cuts, _tasks: tasks }
    }

    /// Cuts every connection that is open now; new ones are taken.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Cuts whenever it is told to.
    pub fn cutter(&self) -> impl Fn() + Send + Sync + 'static {
        let cuts = self.cuts.clone();
        move || cuts.send_modify(|count| *count += 1)
    }

    /// A way for the enrolled node `identity`.
    pub fn uplink(&self, identity: Identity) -> (Arc<Uplink>, watch::Sender<Arc<Identity>>) {
        let sender = watch::Sender::new(Arc::new(identity));
        (Arc::new(Uplink::new(self.replicas.clone(), sender.subscribe(), 0)), sender)
    }
}

async fn carry(wire: TcpListener, server: SocketAddr, cuts: watch::Receiver<u64>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = wire.accept().await.unwrap();
        let mut cuts = cuts.clone();
        cuts.mark_unchanged();
        connections.spawn(async move {
            let mut far = TcpStream::connect(server).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}
