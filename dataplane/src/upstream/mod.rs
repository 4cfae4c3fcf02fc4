//! The only door to servers: takes nothing but a routed call and gives back the head of its answer.
//!
//! Owns the connection pool and what travels: an allow-list of request headers, never a credential of the client.
//! Never retries a call that may have reached the server. Dropping the future drops the request.

mod detect;
mod doubt;
pub mod era;
mod findings;
mod headers;
pub mod link;
mod pool;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mcp_gateway::proto::config::v1::Transport;
use rustls::crypto::CryptoProvider;

use crate::pipeline::route::Routed;
use crate::pipeline::trail::Trail;

pub(crate) use doubt::Asked;
pub use findings::{Finding, Findings};
pub(crate) use headers::outgoing;
use pool::Pool;
pub use pool::Received;

/// Idle connections kept per server address.
const IDLE_PER_HOST: usize = 256;
/// Less than the 5 s after which Node and uvicorn close idle connections: a call must not meet a closing one.
const IDLE_FOR: Duration = Duration::from_secs(4);

/// Pooled connections to servers. Cheap to clone, and small: every session has some.
#[derive(Clone)]
pub struct Upstreams(Arc<Pools>);

struct Pools {
    /// For `http`.
    plain: Pool,
    /// For `https`, with HTTP/2 where the server offers it.
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// For sockets.
    tls: Arc<rustls::ClientConfig>,
    /// How servers are spoken to that do not say.
    found: detect::Found<Transport>,
    /// Which eras they speak, where they do not say.
    eras: detect::Found<era::Eras>,
}

/// How long the head of a stream is waited for before the client gets its own: servers that hold theirs back until the
/// first event are in use, and the client must neither time out nor look disconnected.
const PATIENCE: Duration = Duration::from_secs(1);
/// The stream's own bound ends the wait before this does.
const LONGEST_WAIT: Duration = Duration::from_hours(48);

/// A head that is still awaited. Dropping it drops the request.
pub type Waiting = Pin<Box<dyn Future<Output = Result<Response<Received>, Fault>> + Send>>;

/// What came of sending a call.
pub enum Sent {
    /// The head of the answer.
    Answered(Response<Received>),
    /// A stream whose server has said nothing yet.
    Waiting(Waiting),
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a connection brought no answer.
enum Failure {
    /// The request never left.
    Connect(Cause),
    /// It may have.
    Broke(Cause),
}

/// Why there is no answer. None of it reaches the client in words: the causes are logged.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The call never left: no connection could be made in time.
    #[error("connecting to {server}: {source}")]
    Connect { server: String, source: Cause },
    /// The connection broke before the answer began; the call may have had effects.
    #[error("waiting for {server}: {source}")]
    Broke { server: String, source: Cause },
    /// No answer began in time; the call may have had effects.
    #[error("{server} did not answer within {} ms", .after.as_millis())]
    Slow { server: String, after: Duration },
}

impl Upstreams {
    /// A pool that gives up connecting after `connect`; trusts the system's certificate authorities.
    pub fn new(connect: Duration, provider: &Arc<CryptoProvider>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        tcp.set_happy_eyeballs_timeout(Some(Duration::from_millis(250)));
        let plain = Pool::new(tcp.clone());
        tcp.enforce_http(false);
        let tls = tls(provider).with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_only().enable_all_versions().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_FOR)
            .timer(TokioTimer::new())
            .build(connector);
        let (found, eras) = (detect::Found::default(), detect::Found::default());
        Self(Arc::new(Pools { plain, client, tls: Arc::new(tls), found, eras }))
    }

    /// Sends the call and waits for the head of its answer, at most the server's call timeout. A stream of notifications
    /// may have none until there is something to say: it is handed on while it is still waited for.
    pub async fn send(&self, call: &Routed, trail: &mut Trail) -> Result<Sent, Fault> {
        if call.http_method() != Method::GET {
            return self.ask(call, trail).await.map(Sent::Answered);
        }
        let (this, request) = (self.clone(), request(call));
        let mut waiting: Waiting = Box::pin(async move { this.dispatch(request, LONGEST_WAIT).await });
        let sent = Instant::now();
        match tokio::time::timeout(PATIENCE, &mut waiting).await {
            Ok(answer) => answered(answer, sent, trail).map(Sent::Answered),
            Err(_elapsed) => Ok(Sent::Waiting(waiting)),
        }
    }

    /// Sends the call and waits for the head of its answer.
    pub async fn ask(&self, call: &Routed, trail: &mut Trail) -> Result<Response<Received>, Fault> {
        let sent = Instant::now();
        let answer = self.dispatch(request(call), call.timeout()).await;
        answered(answer, sent, trail)
    }

    /// Carries a request of an owned session, whose messages were judged one by one.
    pub(crate) async fn carry(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Result<Response<Received>, Fault> {
        // Boxed: whoever carries something holds a stream afterwards, and would keep room for this as long.
        Box::pin(self.dispatch(request, timeout)).await
    }

    /// How sockets to servers are secured.
    pub(crate) fn tls(&self) -> &Arc<rustls::ClientConfig> {
        &self.0.tls
    }

    /// Tells a server something that no client waits for: the answer is dropped.
    pub async fn tell(&self, url: Uri, headers: HeaderMap, body: Bytes, timeout: Duration) -> Result<(), Fault> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url;
        *request.headers_mut() = headers;
        self.dispatch(request, timeout).await.map(drop)
    }

    async fn dispatch(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Result<Response<Received>, Fault> {
        let uri = request.uri().clone();
        let server = || place(&uri).to_string();
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(Failure::Connect(source))) => {
                self.0.found.forget(&uri);
                self.0.eras.forget(&uri);
                Err(Fault::Connect { server: server(), source })
            }
            Ok(Err(Failure::Broke(source))) => Err(Fault::Broke { server: server(), source }),
            Err(_) => Err(Fault::Slow { server: server(), after: timeout }),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Received>, Failure> {
        if request.uri().scheme() == Some(&Scheme::HTTP) {
            return self.0.plain.send(request).await;
        }
        match self.0.client.request(request).await {
            Ok(response) => Ok(response.map(Received::kept_elsewhere)),
            Err(error) if error.is_connect() => Err(Failure::Connect(error.into())),
            Err(error) => Err(Failure::Broke(error.into())),
        }
    }
}

fn request(call: &Routed) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(call.body()));
    *request.method_mut() = call.http_method().clone();
    *request.uri_mut() = call.url().clone();
    *request.headers_mut() = headers::outgoing(call);
    request
}

fn answered(answer: Result<Response<Received>, Fault>, sent: Instant, trail: &mut Trail) -> Result<Response<Received>, Fault> {
    trail.upstream_answered(sent.elapsed());
    if let Err(fault) = &answer {
        tracing::warn!(request_id = trail.request_id(), error = %chain(fault), "a server failed");
    }
    answer
}

/// Where a call went, for records and logs: scheme, host, port and path, never a query.
pub fn place(uri: &Uri) -> impl std::fmt::Display + '_ {
    std::fmt::from_fn(|out| {
        let host = uri.authority().map_or("", |host| host.as_str());
        write!(out, "{}://{host}{}", uri.scheme_str().unwrap_or("http"), uri.path())
    })
}

type WantsClientCert = rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>;

fn tls(provider: &Arc<CryptoProvider>) -> WantsClientCert {
    use hyper_rustls::ConfigBuilderExt;
    let builder = || {
        rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default TLS versions: it is aws-lc-rs")
    };
    builder().with_native_roots().unwrap_or_else(|error| {
        // A machine without any certificate authority can still serve plain http servers.
        tracing::warn!(%error, "no system certificate authorities: https servers will not be trusted");
        builder().with_root_certificates(rustls::RootCertStore::empty())
    })
}

/// An error with its causes: hyper's own text names only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
