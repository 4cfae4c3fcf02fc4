//! The client against a control plane that the test plays, over real sockets and mutual TLS.

use std::pin::Pin;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use mcp_gateway::proto::config::v1::{
    CredentialShard, EndpointState, EndpointStatus, Endpoints, Global, Secrets, ServerEndpoints, SessionKey,
};
use mcp_gateway::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use mcp_gateway::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use mcp_gateway::seal::seal_secrets;
use mcp_gateway::snapshot::{ContentHash, sign_manifest};
use mcp_gateway::type_url;
use prost::Message;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Streaming};

use super::*;
use crate::node::testing::{Ca, ControlPlane, POOL};
use crate::xds::restore;
use crate::xds::vault::Vault;

/// One stream, as the control plane sees it.
struct Talk {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonce: u32,
}

struct Switchboard {
    streams: mpsc::Sender<Talk>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Switchboard {
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        assert!(request.peer_certs().is_some_and(|certificates| !certificates.is_empty()), "over mutual TLS");
        let (responses, stream) = mpsc::channel(16);
        let talk = Talk { requests: request.into_inner(), responses, nonce: 0 };
        self.streams.send(talk).await.or(Err(Status::unavailable("the test is over")))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Talk {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        timeout(Duration::from_secs(30), self.requests.next()).await.expect("a request").unwrap().unwrap()
    }

    /// The first request of each type.
    async fn hello(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut hello = Vec::new();
        for _ in 0..type_url::BESIDE.len() + type_url::COVERED.len() + 1 {
            hello.push(self.request().await);
        }
        hello
    }

    /// Sends resources of a type and returns the answer.
    async fn send(&mut self, type_url: &str, resources: Vec<Resource>) -> DeltaDiscoveryRequest {
        self.nonce += 1;
        let nonce = format!("n{}", self.nonce);
        let response = DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: nonce.clone(),
            resources,
            ..DeltaDiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.unwrap();
        let answer = self.request().await;
        assert_eq!((answer.type_url.as_str(), answer.response_nonce), (type_url, nonce));
        DeltaDiscoveryRequest { response_nonce: String::new(), ..answer }
    }
}

struct Rig {
    control: ControlPlane,
    streams: mpsc::Receiver<Talk>,
    live: Arc<Live>,
    stats: Arc<Stats>,
    signer: Ed25519KeyPair,
    ca: Ca,
    dir: tempfile::TempDir,
    uplink: Arc<Uplink>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _identity: watch::Sender<Arc<Identity>>,
}

impl Rig {
    async fn start() -> Self {
        let signer = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let mut ca = Ca::new();
        ca.manifest_keys.insert("m1".into(), signer.public_key().as_ref().to_vec());
        let (sender, streams) = mpsc::channel(4);
        let service = AggregatedDiscoveryServiceServer::new(Switchboard { streams: sender });
        let control = ControlPlane::start(&ca, Routes::new(service)).await;
        let dir = tempfile::tempdir().unwrap();
        let identity = ca.identity();
        identity.save(dir.path()).unwrap();
        let (uplink, identity) = control.uplink(identity);
        let (live, stats) = (Arc::new(Live::new().unwrap()), Arc::default());
        let (stop, tasks) = (CancellationToken::new(), JoinSet::new());
        let mut rig = Self { control, streams, live, stats, signer, ca, dir, uplink, stop, tasks, _identity: identity };
        rig.follow();
        rig
    }

    fn follow(&mut self) {
        let client = Client {
            advertise: String::new(),
            uplink: Arc::clone(&self.uplink),
            restored: restore(self.dir.path(), &self.live, &self.stats).unwrap(),
            live: Arc::clone(&self.live),
            stats: Arc::clone(&self.stats),
            state_dir: self.dir.path().to_owned(),
            renewal: Arc::default(),
        };
        self.tasks.spawn(client.run(self.stop.clone()));
    }

    /// Another process on the same state directory.
    async fn restart(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.transpose().unwrap().is_some() {}
        (self.live, self.stats, self.stop) = (Arc::new(Live::new().unwrap()), Arc::default(), CancellationToken::new());
        self.follow();
    }

    async fn talk(&mut self) -> Talk {
        timeout(Duration::from_secs(30), self.streams.recv()).await.expect("a stream").unwrap()
    }

    /// The smallest configuration; `shard` makes it another one.
    fn content(&self, shard: Option<u32>) -> Vec<(&'static str, Resource)> {
        let global = Global { pool: POOL.into(), ..Global::default() };
        let session_key = SessionKey { key_id: "s1".into(), key: vec![1; 32].into(), current: true };
        let secrets = Secrets { session_keys: vec![session_key], credentials: vec![] };
        let sealed = seal_secrets("p1", &self.ca.pool_key, "secrets/default", &secrets);
        let shard = shard.map(|shard| {
            let name = format!("credentials/{POOL}/{shard}");
            (type_url::CREDENTIAL_SHARD, resource(type_url::CREDENTIAL_SHARD, &name, &CredentialShard { shard, keys: vec![] }))
        });
        let mut content = vec![
            (type_url::GLOBAL, resource(type_url::GLOBAL, "global/default", &global)),
            (type_url::SECRET_ENVELOPE, resource(type_url::SECRET_ENVELOPE, "secrets/default", &sealed)),
        ];
        content.extend(shard);
        content
    }

    fn manifest(&self, version: u64, content: &[(&'static str, Resource)]) -> Resource {
        let mut staged = Staged::new();
        for (type_url, resource) in content {
            staged.put(type_url, &resource.name, resource.resource.clone().unwrap().value.into()).unwrap();
        }
        let mut manifest = Manifest {
            epoch: 1,
            version,
            scope: POOL.into(),
            digest: staged.digest().as_bytes().to_vec().into(),
            ..Manifest::default()
        };
        sign_manifest(&mut manifest, "m1", &self.signer);
        resource(type_url::MANIFEST, "manifest/default", &manifest)
    }

    /// Sends a whole configuration; returns the answer to its manifest.
    async fn publish(&self, talk: &mut Talk, version: u64, content: &[(&'static str, Resource)]) -> DeltaDiscoveryRequest {
        for (type_url, resource) in content {
            let answer = talk.send(type_url, vec![resource.clone()]).await;
            assert_eq!(answer.error_detail, None);
        }
        talk.send(type_url::MANIFEST, vec![self.manifest(version, content)]).await
    }

    fn version(&self) -> u64 {
        self.live.snapshot().map_or(0, |snapshot| snapshot.version().version)
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.transpose().unwrap().is_some() {}
    }
}

fn resource(type_url: &str, name: &str, message: &impl Message) -> Resource {
    let value = message.encode_to_vec();
    Resource {
        version: ContentHash::of(&value).to_string(),
        resource: Some(prost_types::Any { type_url: type_url.into(), value }),
        name: name.into(),
        aliases: vec![],
    }
}

#[tokio::test]
async fn an_acknowledged_manifest_is_in_force_and_a_refused_one_leaves_what_was() {
    let mut rig = Rig::start().await;
    let mut talk = rig.talk().await;
    talk.hello().await;
    assert_eq!(rig.version(), 0);
    let changes = rig.live.changed();
    assert_eq!(rig.publish(&mut talk, 1, &rig.content(None)).await.error_detail, None);
    assert_eq!((rig.version(), *changes.borrow()), (1, 1), "in force before it is acknowledged");
    assert!(rig.stats.connected());
    // A shard outside its range does not compile.
    let refused = rig.publish(&mut talk, 2, &rig.content(Some(3))).await;
    assert_eq!(refused.error_detail, None, "an empty shard is fine");
    let wrong = CredentialShard { shard: 9, keys: vec![] };
    let mut content = rig.content(None);
    content.push((type_url::CREDENTIAL_SHARD, resource(type_url::CREDENTIAL_SHARD, "credentials/default/3", &wrong)));
    let refused = rig.publish(&mut talk, 3, &content).await.error_detail.expect("shard 9 under the name of shard 3");
    assert!(refused.message.contains("credentials/default/3"), "{}", refused.message);
    assert_eq!((rig.version(), rig.stats.nacks.load(Relaxed)), (2, 1));
    rig.end().await;
}

#[tokio::test]
async fn a_cut_connection_is_opened_again_and_nothing_is_sent_twice() {
    let mut rig = Rig::start().await;
    let mut talk = rig.talk().await;
    talk.hello().await;
    let content = rig.content(None);
    rig.publish(&mut talk, 1, &content).await;
    rig.control.cut();
    let mut talk = rig.talk().await;
    let hello = talk.hello().await;
    assert_eq!(rig.version(), 1, "traffic goes on");
    assert!(hello.iter().all(|request| request.initial_resource_versions.is_empty()), "the digest says what is held");
    let resumed = talk.send(type_url::MANIFEST, vec![rig.manifest(1, &content)]).await;
    assert_eq!(resumed.error_detail, None);
    assert_eq!(rig.stats.swaps.load(Relaxed), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_restarted_node_goes_on_from_disk_and_an_unchanged_configuration_costs_one_message() {
    let mut rig = Rig::start().await;
    let mut talk = rig.talk().await;
    talk.hello().await;
    let content = rig.content(None);
    rig.publish(&mut talk, 6, &rig.content(Some(3))).await;
    let removed = DeltaDiscoveryResponse {
        type_url: type_url::CREDENTIAL_SHARD.into(),
        nonce: "removed".into(),
        removed_resources: vec![format!("credentials/{POOL}/3")],
        ..DeltaDiscoveryResponse::default()
    };
    talk.responses.send(Ok(removed)).await.unwrap();
    assert_eq!(talk.request().await.error_detail, None);
    assert_eq!(rig.publish(&mut talk, 7, &content).await.error_detail, None);
    rig.restart().await;
    assert_eq!(rig.version(), 7, "in force before a control plane was asked");
    assert!(!rig.stats.is_confirmed());
    let mut talk = rig.talk().await;
    let hello = talk.hello().await;
    assert!(hello.iter().all(|request| request.initial_resource_versions.is_empty()), "the digest says what is held");
    let older = talk.send(type_url::MANIFEST, vec![rig.manifest(6, &content)]).await;
    assert!(older.error_detail.is_some(), "a restart does not go back");
    assert!(!rig.stats.is_confirmed());
    let resumed = talk.send(type_url::MANIFEST, vec![rig.manifest(7, &content)]).await;
    assert_eq!(resumed.error_detail, None);
    assert_eq!((rig.stats.swaps.load(Relaxed), rig.stats.stale_seconds()), (1, 0));
    rig.end().await;
}

#[tokio::test]
async fn a_revocation_is_in_force_and_on_disk_when_it_is_acknowledged() {
    let mut rig = Rig::start().await;
    let mut talk = rig.talk().await;
    talk.hello().await;
    let revocation = Revocation { api_keys: vec!["abcdefghijklmnop".into()], ..Revocation::default() };
    let sent = resource(type_url::REVOCATION, "revocation/default", &revocation);
    assert_eq!(talk.send(type_url::REVOCATION, vec![sent.clone()]).await.error_detail, None);
    assert!(rig.live.revocations().key_revoked("abcdefghijklmnop"));
    let vault = Vault::open(rig.dir.path()).unwrap();
    assert_eq!(store::load(&vault, rig.dir.path(), store::REVOCATIONS).unwrap(), Some((revocation, sent.version)));
    rig.end().await;
}

#[tokio::test]
async fn states_of_endpoints_are_in_force_when_they_are_acknowledged_and_outlive_the_node() {
    let mut rig = Rig::start().await;
    let mut talk = rig.talk().await;
    talk.hello().await;
    let status = EndpointStatus { url: "http://a.test/".into(), state: EndpointState::Drained.into() };
    let endpoints = Endpoints { servers: vec![ServerEndpoints { server_id: "s1".into(), endpoints: vec![status] }] };
    let sent = resource(type_url::ENDPOINTS, "endpoints/default", &endpoints);
    assert_eq!(talk.send(type_url::ENDPOINTS, vec![sent.clone()]).await.error_detail, None);
    assert!(rig.live.drained().has("s1", &"http://a.test/".parse().unwrap()));
    rig.restart().await;
    assert!(rig.live.drained().has("s1", &"http://a.test/".parse().unwrap()), "before a control plane was asked");
    let hello = rig.talk().await.hello().await;
    let asked = hello.iter().find(|request| request.type_url == type_url::ENDPOINTS).unwrap();
    assert_eq!(asked.initial_resource_versions["endpoints/default"], sent.version);
    rig.end().await;
}

#[tokio::test]
async fn a_busy_control_plane_says_when_to_come_back() {
    use tonic_types::ErrorDetails;
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
    let busy = Status::with_error_details(Code::ResourceExhausted, "too many streams", details);
    assert_eq!(ended(&busy), Lost::Busy { retry_after: Some(Duration::from_secs(7)) });
    assert_eq!(ended(&Status::resource_exhausted("")), Lost::Busy { retry_after: None });
    assert_eq!(ended(&Status::unavailable("")), Lost::Failed);
    assert_eq!(ended(&Status::failed_precondition("")), Lost::Unknown);
}

#[tokio::test]
async fn fresh_credentials_open_a_new_stream() {
    let mut rig = Rig::start().await;
    let mut talk = rig.talk().await;
    talk.hello().await;
    rig._identity.send_replace(Arc::new(rig.ca.identity()));
    rig.talk().await.hello().await;
    rig.end().await;
}
