//! Connections to nodes by their id: the address is the pool's to say, the name in the certificate has to be that node's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::tls;
use crate::live::Live;
use crate::node::Identity;

/// Until the other node must have answered the handshake.
const DEADLINE: Duration = Duration::from_secs(2);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dialler {
    live: Arc<Live>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    provider: Arc<CryptoProvider>,
    /// Made with the identity that it names.
    config: Arc<Mutex<Option<MadeWith>>>,
}

type MadeWith = (Arc<Identity>, Arc<ClientConfig>);

impl Dialler {
    pub fn new(live: Arc<Live>, identity: watch::Receiver<Option<Arc<Identity>>>, provider: Arc<CryptoProvider>) -> Self {
        Self { live, identity, provider, config: Arc::default() }
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let identity = self.identity.borrow().clone().ok_or_else(|| io::Error::other("no identity yet"))?;
        let mut kept = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*kept
            && Arc::ptr_eq(of, &identity)
        {
            return Ok(config.clone());
        }
        let config = Arc::new(tls::client(&identity, &self.provider).map_err(io::Error::other)?);
        *kept = Some((identity, config.clone()));
        Ok(config)
    }

    async fn dial(self, uri: Uri) -> io::Result<Wire> {
        let node = uri.host().unwrap_or_default().to_owned();
        let peers = self.live.peers();
        let address = peers.iter().find(|peer| peer.node_id == node).map(|peer| peer.address.clone());
        let address = address.ok_or_else(|| io::Error::other("the node is not known in the pool"))?;
        let name = ServerName::try_from(node).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.config()?);
        let dialled = async {
            let stream = TcpStream::connect(&*address).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await
        };
        let dialled = tokio::time::timeout(DEADLINE, dialled).await;
        dialled.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())).map(|stream| Wire(TokioIo::new(stream)))
    }
}

impl Service<Uri> for Dialler {
    type Response = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// A connection, as the client wants it.
pub(super) struct Wire(TokioIo<TlsStream<TcpStream>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: hyper::rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
