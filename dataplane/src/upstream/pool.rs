//! Connections to servers that speak HTTP/1.1 without TLS, lent to one call at a time.
//!
//! A call takes an idle connection or opens one; when its answer has been read to the end, the connection is idle again. Nothing is
//! spawned, looked up or copied for a call that a connection of its own would not need too: what a general pool does for every request
//! costs about as much as the request. Never sends anything twice. What it must not do (TLS, HTTP/2) is the business of hyper-util's
//! client beside it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::Executor as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower_service::Service as _;

use super::Failure;

type Sender = SendRequest<Full<Bytes>>;

/// Idle connections kept per server.
const IDLE: usize = super::IDLE_PER_HOST;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    connector: HttpConnector,
    hosts: Arc<RwLock<HashMap<Box<str>, Arc<Host>>>>,
}

/// One server, by host and port.
struct Host {
    name: HeaderValue,
    /// The newest last.
    idle: Mutex<Vec<(Instant, Sender)>>,
}

/// The body of an answer. Read to its end it gives its connection back; dropped before, the connection closes, which is how a server
/// learns that nobody waits any more.
pub struct Received {
    body: Incoming,
    lease: Option<Lease>,
}

/// A connection that a call has.
struct Lease {
    sender: Sender,
    host: Arc<Host>,
}

impl Pool {
    /// Must be made within a runtime: connections nobody took for a while are closed by a task that ends with the pool.
    pub fn new(connector: HttpConnector) -> Self {
        let hosts = Arc::<RwLock<HashMap<Box<str>, Arc<Host>>>>::default();
        let kept = Arc::downgrade(&hosts);
        TokioExecutor::new().execute(async move {
            loop {
                // Age is what is waited for here, not an event.
                tokio::time::sleep(super::IDLE_FOR).await;
                let Some(hosts) = kept.upgrade() else { return };
                hosts
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|_, host| host.sweep() || Arc::strong_count(host) > 1);
            }
        });
        Self { connector, hosts }
    }

    /// Sends a request to an absolute `http` URI.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Received>, Failure> {
        let uri = std::mem::take(request.uri_mut());
        let host = self.host(&uri)?;
        *request.uri_mut() = Uri::from(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        request.headers_mut().insert(HOST, host.name.clone());
        while let Some(mut sender) = host.take().await {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(received(response, sender, host)),
                // The server closed the connection while it was idle, before anything was written: another one will do.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Broke(error.into_error().into())),
                },
            }
        }
        let mut sender = self.connect(uri).await?;
        let response = sender.send_request(request).await.map_err(|error| Failure::Broke(error.into()))?;
        Ok(received(response, sender, host))
    }

    fn host(&self, uri: &Uri) -> Result<Arc<Host>, Failure> {
        let authority = uri.authority().ok_or_else(|| Failure::Connect("the URL names no host".into()))?;
        if let Some(host) = self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(authority.as_str()) {
            return Ok(host.clone());
        }
        let name = authority.as_str().rsplit('@').next().unwrap_or_default();
        let name = name.strip_suffix(":80").unwrap_or(name);
        let name = HeaderValue::from_str(name).map_err(|error| Failure::Connect(error.into()))?;
        let host = Arc::new(Host { name, idle: Mutex::default() });
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        Ok(hosts.entry_ref(authority.as_str()).or_insert(host).clone())
    }

    async fn connect(&self, uri: Uri) -> Result<Sender, Failure> {
        let mut connector = self.connector.clone();
        std::future::poll_fn(|cx| connector.poll_ready(cx)).await.map_err(|error| Failure::Connect(error.into()))?;
        let io = connector.call(uri).await.map_err(|error| Failure::Connect(error.into()))?;
        let (sender, connection) = http1::handshake(io).await.map_err(|error| Failure::Connect(error.into()))?;
        TokioExecutor::new().execute(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a server ended");
            }
        });
        Ok(sender)
    }
}

fn received(response: Response<Incoming>, sender: Sender, host: Arc<Host>) -> Response<Received> {
    response.map(|body| Received { body, lease: Some(Lease { sender, host }) })
}

impl Host {
    /// A connection that can be used now.
    async fn take(&self) -> Option<Sender> {
        loop {
            let (since, mut sender) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() > super::IDLE_FOR || sender.is_closed() {
                continue;
            }
            // Its task may not have run since the end of the answer before.
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn give_back(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push((Instant::now(), sender));
        }
    }

    /// Closes what has been idle for too long; whether anything is left.
    fn sweep(&self) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, sender)| since.elapsed() <= super::IDLE_FOR && !sender.is_closed());
        !idle.is_empty()
    }
}

impl Received {
    /// Of a connection that somebody else keeps.
    pub(super) fn kept_elsewhere(body: Incoming) -> Self {
        Self { body, lease: None }
    }

    fn ended(&mut self) {
        if let Some(Lease { sender, host }) = self.lease.take() {
            host.give_back(sender);
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = Pin::new(&mut self.body).poll_frame(cx);
        match &next {
            Poll::Ready(None) => self.ended(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.ended(),
            Poll::Ready(Some(Err(_))) => self.lease = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // An answer without a body is at its end before anybody reads it.
        if self.body.is_end_stream() {
            self.ended();
        }
    }
}
