//! A node as tests see one: a real client over real TLS that knows nothing but the protocol. Compiled for tests and under the feature
//! `testing`; never part of a release.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test that cannot go on says where by panicking

use std::{collections::BTreeMap, net::SocketAddr};

use mcp_gateway::{
    proto::{
        config::v1::Manifest,
        envoy::{
            config::core::v3::Node,
            service::discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse,
                aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
            },
        },
        google::rpc::Status as GoogleStatus,
        node::v1::{
            EnrollRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient,
            node_service_client::NodeServiceClient,
        },
    },
    seal::NodeKeyPair,
    snapshot::Staged,
    type_url::{COVERED, MANIFEST, REVOCATION},
};
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use uuid::Uuid;

use crate::{
    domain::ids,
    store::{
        change::{Change, Kind, Operation, Row, Sealed, Touched},
        join_tokens::{self, JoinToken},
        nodes::Node as NodeRow,
    },
    testing::Running,
};

/// Keys of a node, and where it joins.
pub struct Client {
    pub key: KeyPair,
    pub hpke: NodeKeyPair,
    pub address: String,
    /// PEM.
    pub ca: String,
}

/// A node that joined.
pub struct Joined {
    pub client: Client,
    pub response: EnrollResponse,
}

/// A type that no control plane of ours has resources of.
const FOREIGN: &str = "type.googleapis.com/test.Foreign";

/// An open discovery stream.
pub struct Discovering {
    pub say: mpsc::Sender<DeltaDiscoveryRequest>,
    pub hear: Streaming<DeltaDiscoveryResponse>,
}

/// A token that works for `ttl` seconds (negative: it expired).
pub async fn token(running: &Running, pool: &str, ttl: i64) -> String {
    let (id, secret) = (ids::public_id(), ids::secret());
    let now = chrono::Utc::now();
    let token = JoinToken {
        id: id.clone(),
        pool: pool.into(),
        labels: std::collections::BTreeMap::new(),
        expires_at: now + chrono::Duration::seconds(ttl),
        used_at: None,
        node_id: None,
        created_at: now,
    };
    let mut connection = running.core.store.connection().await.unwrap();
    join_tokens::insert(&mut connection, &token, &ids::sha256(&secret)).await.unwrap();
    format!("mcpgwj_{id}_{}", *secret)
}

impl Client {
    pub fn of(running: &Running) -> Self {
        let keys = running.core.custody.keys().unwrap();
        Self {
            key: KeyPair::generate().unwrap(),
            hpke: NodeKeyPair::generate().unwrap(),
            address: format!("https://localhost:{}", running.addresses.node.port()),
            ca: super::identity::pem(keys.node_ca.current().material.certificate()),
        }
    }

    pub fn csr(&self) -> Vec<u8> {
        CertificateParams::default().serialize_request(&self.key).unwrap().der().to_vec()
    }

    pub fn request(&self, token: &str) -> EnrollRequest {
        EnrollRequest {
            token: token.into(),
            csr: self.csr().into(),
            hpke_public_key: self.hpke.public.clone().into(),
            build: "test".into(),
            display_name: "a node".into(),
        }
    }

    /// A connection, with a client certificate or without.
    pub async fn connect(&self, certificate_pem: Option<&str>) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca)).domain_name("localhost");
        if let Some(certificate) = certificate_pem {
            tls = tls.identity(Identity::from_pem(certificate, self.key.serialize_pem()));
        }
        Endpoint::from_shared(self.address.clone())?.tls_config(tls)?.connect().await
    }

    pub async fn enrol(&self, token: &str) -> Result<EnrollResponse, Status> {
        let channel = self.connect(None).await.unwrap();
        Ok(EnrollmentServiceClient::new(channel).enroll(self.request(token)).await?.into_inner())
    }
}

impl Joined {
    pub async fn to(running: &Running, pool: &str) -> Self {
        let client = Client::of(running);
        let response = client.enrol(&token(running, pool, 60).await).await.unwrap();
        Self { client, response }
    }

    pub fn id(&self) -> uuid::Uuid {
        self.response.node_id.parse().unwrap()
    }

    pub async fn channel(&self) -> Channel {
        let certificate = &self.response.credentials.as_ref().unwrap().certificate_pem;
        self.client.connect(Some(certificate)).await.unwrap()
    }

    pub async fn service(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel().await)
    }

    /// What the node says of itself in its first request.
    pub fn node(&self, facts: &[(&str, &str)]) -> Node {
        let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
        let fields = facts.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect::<BTreeMap<_, _>>();
        Node {
            id: self.response.node_id.clone(),
            cluster: self.response.pool.clone(),
            metadata: Some(prost_types::Struct { fields }),
            ..Node::default()
        }
    }

    /// Opens a stream with these requests; once the publisher has loaded.
    pub async fn discover(&self, first: Vec<DeltaDiscoveryRequest>) -> Result<Discovering, Status> {
        Discovering::on(self.channel().await, first).await
    }

    /// The same node with another replica.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.client.address = format!("https://localhost:{}", address.port());
        self
    }
}

impl Discovering {
    /// Opens a stream with these requests on a connection.
    pub async fn on(channel: Channel, first: Vec<DeltaDiscoveryRequest>) -> Result<Self, Status> {
        let (say, requests) = mpsc::channel(64);
        for request in first {
            say.send(request).await.unwrap();
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let hear = client.delta_aggregated_resources(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { say, hear })
    }

    /// Says something.
    pub async fn say(&self, request: DeltaDiscoveryRequest) {
        self.say.send(request).await.unwrap();
    }

    /// Refuses a response.
    pub async fn nack(&self, response: &DeltaDiscoveryResponse, code: Code, message: &str) {
        let status = GoogleStatus { code: code.into(), message: message.into(), ..Default::default() };
        let answer = DeltaDiscoveryRequest { error_detail: Some(status), ..answer(response) };
        self.say(answer).await;
    }

    /// Returns once it is certain that the control plane has nothing else to say: a type that is not ours is answered last.
    pub async fn quiet(&mut self) {
        self.say(all(FOREIGN)).await;
        let next = self.next().await;
        assert_eq!(next.type_url, FOREIGN, "nothing was due: {next:?}");
    }

    /// The next response; panics where the stream ended.
    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        self.hear.message().await.unwrap().expect("the stream goes on")
    }

    /// The next response, acknowledged.
    pub async fn ack(&mut self) -> DeltaDiscoveryResponse {
        let response = self.next().await;
        self.say(answer(&response)).await;
        response
    }

    /// How the stream ended.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.hear.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

/// The acknowledgement of a response.
pub fn answer(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
    DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }
}

/// Asks for everything of a type.
pub fn all(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.into(), resource_names_subscribe: vec!["*".into()], ..Default::default() }
}

/// A new version that adds an organisation.
pub async fn add_org(running: &Running, n: u128) -> u64 {
    commit(begin_org(running, n).await, n).await
}

/// A transaction that has written an organisation, and has no version yet.
pub async fn begin_org(running: &Running, n: u128) -> Change {
    let mut change = running.core.store.begin_system("test").await.unwrap();
    let insert = sqlx::query("INSERT INTO organizations (id, slug) VALUES ($1, $2)");
    insert.bind(Uuid::from_u128(n)).bind(format!("org{n}")).execute(change.connection()).await.unwrap();
    change
}

/// Takes a version for what was done to an organisation, and commits it.
pub async fn commit(change: Change, n: u128) -> u64 {
    let sealed = seal(change, n).await;
    let version = sealed.version();
    sealed.commit(&[]).await.unwrap();
    version
}

/// Takes the version, and does not commit yet.
pub async fn seal(mut change: Change, n: u128) -> Sealed {
    let id = Uuid::from_u128(n);
    change.touch(Touched {
        kind: Kind::Organization,
        operation: Operation::Create,
        resource: format!("organizations/org{n}"),
        org: Some((id, format!("org{n}"))),
        row: Row::Organization(id),
        reaches_nodes: true,
        ..Touched::aside(Kind::Organization, Operation::Create, String::new())
    });
    change.seal().await.unwrap()
}

/// Waits until everything committed so far is published.
pub async fn published(running: &Running) {
    let head = running.core.store.head().await.unwrap();
    let mut published = running.core.publications.watch();
    published.wait_for(|published| published.as_ref().is_some_and(|p| p.head.version >= head.version)).await.unwrap();
}

/// Every type, in a node's order; the first request names the node.
pub fn hello(joined: &Joined, facts: &[(&str, &str)]) -> Vec<DeltaDiscoveryRequest> {
    let mut requests: Vec<_> = [REVOCATION].into_iter().chain(COVERED).chain([MANIFEST]).map(all).collect();
    requests[0].node = Some(joined.node(facts));
    requests
}

/// The manifest in a response.
pub fn manifest(response: &DeltaDiscoveryResponse) -> Manifest {
    assert_eq!(response.type_url, MANIFEST);
    Manifest::decode(response.resources[0].resource.as_ref().unwrap().value.as_slice()).unwrap()
}

/// Acknowledges and stages until a manifest comes.
pub async fn until_manifest(stream: &mut Discovering, staged: &mut Staged) -> (Vec<String>, Manifest) {
    let mut types = Vec::new();
    loop {
        let response = stream.ack().await;
        types.push(response.type_url.rsplit('.').next().unwrap().to_owned());
        if response.type_url == MANIFEST {
            return (types, manifest(&response));
        }
        for resource in response.resources.iter().filter(|_| response.type_url != REVOCATION) {
            let body = resource.resource.as_ref().unwrap().value.clone();
            staged.put(&response.type_url, &resource.name, body.into()).unwrap();
        }
    }
}

/// The node's row as soon as it says what is expected.
pub async fn row_where(running: &Running, node: Uuid, fits: impl Fn(&NodeRow) -> bool) -> NodeRow {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..500 {
        let row = running.core.store.node(node).await.unwrap().unwrap();
        if fits(&row) {
            return row;
        }
        ticks.tick().await;
    }
    panic!("{:?}", running.core.store.node(node).await.unwrap())
}
