//! A lean simulated node: what a node says on a discovery stream, without anything to serve. It keeps names and hashes, checks what it
//! gets, answers, and comes back with the waiting times of the real one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper_util::rt::TokioIo;
use mcp_gateway::proto::envoy::config::core::v3::Node as Identified;
use mcp_gateway::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mcp_gateway::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mcp_gateway::proto::google::rpc::Status as Refusal;
use mcp_gateway::type_url;
use mcpgw_dataplane::node::BUILD;
use mcpgw_dataplane::xds::machine::{Backoff, Lost};
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::held::{Held, Names, Whole};
use super::report::{Change, Traffic};
use super::socket::{Counted, Passed};

/// As the real node's: until a connection must stand, and a stream be accepted.
const DEADLINE: Duration = Duration::from_secs(10);
const WINDOW: u32 = 4 << 20;
const MAX_RESPONSE: usize = 16 << 20;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// gRPC's length prefix of a message.
const FRAME: usize = 5;
/// google.rpc.Code
const DATA_LOSS: i32 = 15;

/// What a node got when it enrolled, as it lies in its state directory.
#[derive(Deserialize)]
struct Identity {
    node_id: String,
    pool: String,
    certificate_pem: String,
    ca_pem: String,
    private_key_pem: String,
    manifest_keys: BTreeMap<String, String>,
}

/// What all nodes share.
pub(super) struct Common {
    pub address: SocketAddr,
    pub names: Names,
    /// Nodes connect while this holds.
    pub open: watch::Sender<bool>,
    /// Grows whenever every connection is to be lost.
    pub cuts: watch::Sender<u64>,
    /// Something moved on.
    pub moved: Notify,
}

/// How far a node is.
#[derive(Default)]
pub(super) struct Progress {
    /// Streams that were answered with a manifest that holds here.
    pub confirmed: u64,
    /// The version in force.
    pub version: u64,
    /// From the commit of that version until it was in force here.
    pub milliseconds: f64,
    /// How many covered resources it holds.
    pub resources: usize,
    /// Responses that it refused.
    pub refused: u64,
    /// Milliseconds of each compilation, where one compiles.
    pub compiled: Vec<f64>,
    /// Of the stream in use, up to its confirmation.
    pub session: Traffic,
    /// Since the start.
    pub counts: Change,
}

/// See the module.
pub(super) struct Node {
    common: Arc<Common>,
    progress: Arc<Mutex<Progress>>,
    node_id: String,
    pool: String,
    tls: ClientTlsConfig,
    manifest_keys: BTreeMap<String, Vec<u8>>,
    held: Held,
    backoff: Backoff,
    /// The control plane wants to be told what is held name by name.
    spelled_out: bool,
}

impl Node {
    /// The node that enrolled in `state_dir`.
    pub(super) fn load(state_dir: &Path, common: Arc<Common>, progress: Arc<Mutex<Progress>>) -> anyhow::Result<Self> {
        let identity: Identity = serde_json::from_str(&std::fs::read_to_string(state_dir.join("identity.json"))?)?;
        let decoded = identity.manifest_keys.into_iter().map(|(id, key)| Ok((id, BASE64_STANDARD.decode(key)?)));
        Ok(Self {
            common,
            progress,
            manifest_keys: decoded.collect::<anyhow::Result<_>>().context("a manifest key")?,
            tls: ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(identity.ca_pem))
                .identity(tonic::transport::Identity::from_pem(identity.certificate_pem, identity.private_key_pem))
                .domain_name("localhost"),
            node_id: identity.node_id,
            pool: identity.pool,
            held: Held::default(),
            backoff: Backoff::new(rand::random::<f64>),
            spelled_out: false,
        })
    }

    /// Makes it keep contents and compile them.
    pub(super) fn keep_contents(&mut self, state_dir: &Path) -> anyhow::Result<()> {
        let identity = mcpgw_dataplane::node::Identity::load(state_dir)?.context("no identity")?;
        self.held.whole = Some(Whole::new(identity.pool_keys));
        Ok(())
    }

    /// Until it is dropped.
    pub(super) async fn run(mut self) {
        let mut open = self.common.open.subscribe();
        loop {
            if open.wait_for(|open| *open).await.is_err() {
                return;
            }
            let lost = self.session().await;
            tokio::time::sleep(self.backoff.next(lost)).await;
        }
    }

    async fn session(&mut self) -> Lost {
        let mut cuts = self.common.cuts.subscribe();
        let passed = Arc::new(Passed::default());
        let Ok(Ok(channel)) = timeout(DEADLINE, self.dial(Arc::clone(&passed))).await else { return Lost::Failed };
        let (outbound, requests) = mpsc::channel(64);
        self.progress().session = Traffic::default();
        for request in self.hello() {
            if self.say(&outbound, request).await.is_err() {
                return Lost::Failed;
            }
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let accepted = timeout(DEADLINE, client.delta_aggregated_resources(ReceiverStream::new(requests))).await;
        let mut responses = match accepted {
            Ok(Ok(responses)) => responses.into_inner(),
            Ok(Err(status)) => return self.ended(&status),
            Err(_) => return Lost::Failed,
        };
        loop {
            tokio::select! {
                message = responses.message() => match message {
                    Ok(Some(response)) => {
                        self.spelled_out = false;
                        self.backoff.succeeded();
                        if self.heard(&response, &outbound, &passed).await.is_err() {
                            return Lost::Failed;
                        }
                    }
                    Ok(None) => return Lost::Closed,
                    Err(status) => return self.ended(&status),
                },
                _ = cuts.changed() => return Lost::Failed,
            }
        }
    }

    async fn dial(&self, passed: Arc<Passed>) -> anyhow::Result<Channel> {
        let address = self.common.address;
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .tls_config(self.tls.clone())?;
        let connect = move |_| {
            let connecting = Counted::connect(address, Arc::clone(&passed));
            async move { connecting.await.map(TokioIo::new) }
        };
        Ok(endpoint.connect_with_connector(tower::service_fn(connect)).await?)
    }

    /// As the real node: who it is and what it runs, then every type. What it holds is said by one digest.
    fn hello(&self) -> Vec<DeltaDiscoveryRequest> {
        let text = |value: String| Value { kind: Some(Kind::StringValue(value)) };
        let mut fields = BTreeMap::from([("build".to_owned(), text(BUILD.to_owned()))]);
        let brief = self.held.applied.is_some() && !self.spelled_out;
        if let Some((version, digest)) = self.held.applied {
            fields.insert("epoch".to_owned(), text(version.epoch.to_string()));
            fields.insert("applied_version".to_owned(), text(version.version.to_string()));
            fields.insert("digest".to_owned(), text(digest.to_string()));
        }
        if brief {
            fields.insert("holds".to_owned(), text("digest".to_owned()));
        }
        let mut node = Some(Identified {
            id: self.node_id.clone(),
            cluster: self.pool.clone(),
            metadata: Some(Struct { fields }),
            user_agent_name: "mcpgw-scale".to_owned(),
            user_agent_version: BUILD.to_owned(),
        });
        let request = |type_url: &str| DeltaDiscoveryRequest {
            node: node.take(),
            type_url: type_url.to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: match type_url::COVERED.contains(&type_url) && brief {
                true => BTreeMap::new(),
                false => self.held.versions(type_url),
            },
            ..DeltaDiscoveryRequest::default()
        };
        type_url::BESIDE.into_iter().chain(super::distributed()).map(request).collect()
    }

    async fn say(&self, outbound: &mpsc::Sender<DeltaDiscoveryRequest>, request: DeltaDiscoveryRequest) -> Result<(), ()> {
        let size = (request.encoded_len() + FRAME) as u64;
        {
            let mut progress = self.progress();
            progress.session.messages_sent += size;
            progress.counts.bytes_sent += size;
        }
        timeout(DEADLINE, outbound.send(request)).await.map_err(drop)?.map_err(drop)
    }

    async fn heard(
        &mut self,
        response: &DeltaDiscoveryResponse,
        outbound: &mpsc::Sender<DeltaDiscoveryRequest>,
        passed: &Passed,
    ) -> Result<(), ()> {
        let size = (response.encoded_len() + FRAME) as u64;
        let taken = self.held.take(response, &self.common.names, &self.manifest_keys);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0;
        let error_detail = match &taken {
            Ok(_) => None,
            Err(error) => Some(Refusal { code: DATA_LOSS, message: format!("{error:#}"), details: Vec::new() }),
        };
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        self.say(outbound, answer).await?;
        let mut progress = self.progress();
        progress.session.messages_received += size;
        progress.counts.count(response, size);
        progress.resources = self.held.len();
        if let Some(whole) = &self.held.whole {
            progress.compiled.clone_from(&whole.took);
        }
        match taken {
            Err(_) => progress.refused += 1,
            Ok(made_at) => {
                if let (Some(made_at), Some((version, _))) = (made_at, self.held.applied) {
                    progress.version = version.version;
                    progress.milliseconds = now - made_at as f64;
                }
                if response.type_url == type_url::MANIFEST && progress.session.socket_received == 0 {
                    progress.confirmed += 1;
                    progress.session.socket_received = passed.received.load(Relaxed);
                    progress.session.socket_sent = passed.sent.load(Relaxed);
                }
            }
        }
        drop(progress);
        self.common.moved.notify_one();
        Ok(())
    }

    fn ended(&mut self, status: &Status) -> Lost {
        match status.code() {
            Code::ResourceExhausted => {
                Lost::Busy { retry_after: status.get_details_retry_info().and_then(|retry| retry.retry_delay) }
            }
            Code::FailedPrecondition => {
                self.spelled_out = true;
                Lost::Unknown
            }
            _ => Lost::Failed,
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
