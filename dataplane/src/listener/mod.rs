//! Takes connections: TCP, TLS, HTTP/1.1 and HTTP/2, with caps and deadlines, and drains them on request.
//!
//! Owns sockets until a request's head is read; never looks at a request. Hands each one to the [`Handler`] it was given.

mod patience;
mod seats;
pub mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::{Limits, Timeouts};
use crate::relay::Body;
use crate::tasks::{OnExit, Tasks};

pub use patience::Busy;
use patience::{Patient, Phase};
pub use seats::{Seat, Seats};

/// Answers requests. Implemented by the pipeline; tests may bring their own.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request from `peer`; every failure is an answer too.
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> impl Future<Output = Response<Body>> + Send;
}

/// What a connection that becomes a socket keeps: its place among the connections, and that it may be silent.
#[derive(Clone)]
pub struct Upgradable(#[allow(dead_code, reason = "held, not read")] Arc<(Busy, Arc<Seat>)>);

/// A bound address that does not accept yet.
pub struct Listener {
    socket: TcpListener,
    tls: Tls,
}

/// How connections of a listener are secured.
pub enum Tls {
    /// Not at all.
    None,
    /// With certificates that know by themselves when to change.
    Always(TlsAcceptor),
    /// As is right at that moment; a connection that comes when nothing is gets closed.
    Now(Box<dyn Fn() -> Option<TlsAcceptor> + Send + Sync>),
}

impl Tls {
    /// For one connection; `Err`: it cannot be taken now.
    fn acceptor(&self) -> Result<Option<TlsAcceptor>, ()> {
        match self {
            Self::None => Ok(None),
            Self::Always(acceptor) => Ok(Some(acceptor.clone())),
            Self::Now(acceptor) => acceptor().map(Some).ok_or(()),
        }
    }
}

/// What every connection of the process shares.
pub struct Shared<H> {
    handler: Arc<H>,
    seats: Seats,
    http: auto::Builder<TokioExecutor>,
    timeouts: Timeouts,
    tasks: Tasks,
    draining: CancellationToken,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    pub async fn bind(address: SocketAddr, tls: Tls) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, tls })
    }

    /// Where clients connect.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until draining starts. Connections live on as tasks of their own.
    pub async fn serve<H: Handler>(self, shared: Arc<Shared<H>>) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.draining.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match self.tls.acceptor() {
                    Ok(tls) => shared.welcome(stream, peer, tls),
                    Err(()) => tracing::debug!(%peer, "connection refused: nothing to show yet"),
                },
                Err(error) => pause_after(&error).await,
            }
        }
    }
}

/// A failed accept is the connection's fault (go on) or the process is out of descriptors (let some close first).
async fn pause_after(error: &io::Error) {
    let harmless = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !harmless.contains(&error.kind()) {
        tracing::warn!(%error, "accepting connections failed; trying again in 100 ms");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl<H: Handler> Shared<H> {
    /// `draining` is cancelled when connections should finish what they have and close.
    pub fn new(handler: Arc<H>, limits: &Limits, timeouts: &Timeouts, tasks: Tasks, draining: CancellationToken) -> Self {
        Self {
            handler,
            seats: Seats::new(limits.connections, limits.connections_per_ip),
            http: http(limits),
            timeouts: timeouts.clone(),
            tasks,
            draining,
        }
    }

    fn welcome(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        // No seat: the connection is closed at once, which costs less than letting it wait.
        let Some(seat) = self.seats.take(peer.ip()) else {
            tracing::debug!(%peer, "connection refused: too many");
            return;
        };
        let shared = self.clone();
        self.tasks.spawn("connection", OnExit::Ignore, async move {
            let seat = Arc::new(seat);
            // Answers are written whole; waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            match tls {
                None => shared.converse(stream, peer, seat).await,
                Some(tls) => match tokio::time::timeout(shared.timeouts.tls_handshake, tls.accept(stream)).await {
                    Ok(Ok(stream)) => shared.converse(stream, peer, seat).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                },
            }
        });
    }

    async fn converse<S>(self: Arc<Self>, stream: S, peer: SocketAddr, seat: Arc<Seat>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let phase = Arc::new(Phase::default());
        let io = TokioIo::new(Patient::new(stream, phase.clone(), self.timeouts.headers, self.timeouts.idle));
        let handler = self.handler.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let busy = phase.enter(request.version());
            if request.headers().contains_key(UPGRADE) {
                let busy = phase.enter(request.version());
                request.extensions_mut().insert(Upgradable(Arc::new((busy, seat.clone()))));
            }
            // hyper keeps room for it as long as the connection lasts, and an answer may be a stream of hours.
            let answer = Box::pin(handler.clone().handle(request, peer));
            async move { Ok::<_, Infallible>(answer.await.map(|body| body.holding(busy))) }
        });
        let mut connection = std::pin::pin!(self.http.serve_connection_with_upgrades(io, service));
        let outcome = tokio::select! {
            biased;
            outcome = connection.as_mut() => outcome,
            () = self.draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%peer, error, "connection ended");
        }
    }
}

fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    // Deadlines are Patient's: hyper's own header deadline would also end connections that are merely idle.
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.header_fields)
        .max_buf_size(header_bytes.max(64 << 10))
        .keep_alive(true);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    http
}
