//! The other nodes of the pool: what they own, this node hands on to them, and what they ask of it, it answers. Over mutual TLS, each side
//! a node of the pool; addresses are those of the `Peers` resource. Never decides about a request: whoever owns the session does.

mod dial;
mod serve;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::CryptoProvider;
use tokio::sync::watch;

use crate::live::Live;
use crate::node::Identity;

use dial::Dialler;
pub use serve::{Door, acceptor};

/// Whose request it is, as the node that took it saw; believed from nodes only.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("mcpgw-forwarded-for");
/// The request's id, which goes into the answer and the record.
pub(crate) const FORWARDED_ID: HeaderName = HeaderName::from_static("mcpgw-forwarded-id");
/// What paths between nodes begin with.
pub(crate) const ASIDE: &str = "/-/";

/// How long another node may take to answer what is asked of all.
const ASKED: Duration = Duration::from_secs(3);
const TOO_LONG: &str = "it takes too long";
/// The largest such answer.
const LARGEST: usize = 8 << 20;
/// Idle connections are kept this long.
const IDLE: Duration = Duration::from_secs(60);

/// Why another node has not answered.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("this node has no identity yet")]
    NoIdentity,
    #[error("node {0} is not known in the pool, or cannot be reached from others")]
    Unknown(String),
    #[error("node {node} does not answer: {why}")]
    Silent { node: String, why: String },
}

impl PeerError {
    /// What is the matter, for somebody who knows which node is meant.
    pub fn why(self) -> String {
        match self {
            Self::NoIdentity => Self::NoIdentity.to_string(),
            Self::Unknown(_) => "it is not known in the pool, or cannot be reached from others".to_owned(),
            Self::Silent { why, .. } => why,
        }
    }
}

/// The way to other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    live: Arc<Live>,
    client: Client<Dialler, Full<Bytes>>,
    known: watch::Receiver<Option<Arc<Identity>>>,
}

impl Peers {
    /// `identity` brings what this node shows, once it has something.
    pub fn new(live: Arc<Live>, identity: watch::Receiver<Option<Arc<Identity>>>, provider: &Arc<CryptoProvider>) -> Self {
        let dialler = Dialler::new(live.clone(), identity.clone(), provider.clone());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .timer(TokioTimer::new())
            .set_host(false)
            .build(dialler);
        Self { live, client, known: identity }
    }

    /// Hands a request on to the node that has what it is about.
    pub async fn forward(&self, node: &str, request: Forward) -> Result<Response<Incoming>, PeerError> {
        self.reachable(node)?;
        let mut outgoing = Request::new(Full::new(request.body));
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = uri(node, &request.path).ok_or_else(|| PeerError::Unknown(node.to_owned()))?;
        let mut headers = request.headers;
        for name in [FORWARDED_FOR, FORWARDED_ID, CONTENT_LENGTH] {
            headers.remove(name);
        }
        if !headers.contains_key(UPGRADE) {
            strip(&mut headers);
        }
        let text = |text: String| HeaderValue::from_str(&text).expect("addresses and ids are visible ASCII");
        headers.insert(FORWARDED_FOR, text(request.address.to_string()));
        headers.insert(FORWARDED_ID, text(request.request_id.to_string()));
        *outgoing.headers_mut() = headers;
        let mut answer = self.client.request(outgoing).await.map_err(|error| silent(node, whole(&error)))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            strip(answer.headers_mut());
        }
        Ok(answer)
    }

    /// Asks every other node of the pool; each with its answer, or why there is none.
    pub async fn ask_all(&self, method: Method, path: &str, body: &Bytes) -> Vec<(String, Result<Bytes, PeerError>)> {
        join_all(self.others().into_iter().map(|node| async {
            let answer = self.ask(&node, method.clone(), path, body.clone()).await;
            (node, answer)
        }))
        .await
    }

    /// The ids of all other nodes of the pool.
    pub fn others(&self) -> Vec<String> {
        let own = self.live.node();
        self.live.peers().iter().map(|peer| peer.node_id.clone()).filter(|id| *id != **own).collect()
    }

    /// Asks one node.
    pub async fn ask(&self, node: &str, method: Method, path: &str, body: Bytes) -> Result<Bytes, PeerError> {
        let asked = async {
            let answer = self.begin(node, method, path, body).await?;
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| silent(node, error.to_string()))
        };
        tokio::time::timeout(ASKED, asked).await.unwrap_or_else(|_elapsed| Err(silent(node, TOO_LONG)))
    }

    /// Asks one node for an answer that goes on: only its beginning has to come in time.
    pub async fn open(&self, node: &str, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, PeerError> {
        let asked = self.begin(node, method, path, body);
        tokio::time::timeout(ASKED, asked).await.unwrap_or_else(|_elapsed| Err(silent(node, TOO_LONG)))
    }

    async fn begin(&self, node: &str, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, PeerError> {
        self.reachable(node)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri(node, path).ok_or_else(|| PeerError::Unknown(node.to_owned()))?;
        let answer = self.client.request(request).await.map_err(|error| silent(node, whole(&error)))?;
        if answer.status().is_success() { Ok(answer) } else { Err(silent(node, format!("status {}", answer.status()))) }
    }

    fn reachable(&self, node: &str) -> Result<(), PeerError> {
        if self.known.borrow().is_none() {
            return Err(PeerError::NoIdentity);
        }
        let known = self.live.peers().iter().any(|peer| peer.node_id == node);
        if known { Ok(()) } else { Err(PeerError::Unknown(node.to_owned())) }
    }
}

fn silent(node: &str, why: impl Into<String>) -> PeerError {
    PeerError::Silent { node: node.to_owned(), why: why.into() }
}

/// A request that another node answers.
pub struct Forward {
    pub method: Method,
    /// With its query.
    pub path: String,
    /// As the client sent them, credential included: the other node decides by itself.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub address: IpAddr,
    pub request_id: uuid::Uuid,
}

/// Takes out what is about one connection and not about the message (RFC 9110 section 7.6.1).
fn strip(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, TE, TRAILER, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Nodes are dialled by id.
fn uri(node: &str, path: &str) -> Option<Uri> {
    Uri::builder().scheme("https").authority(node).path_and_query(path).build().ok()
}

fn whole(error: &dyn std::error::Error) -> String {
    crate::node::uplink::whole(error)
}
