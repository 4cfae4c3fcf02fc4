//! TLS listeners: accepting with bounded, timed handshakes, and certificates from files that are read again when they change.
//!
//! Knows nothing of what is served. Called by `api` and `nodes`.

use std::{io, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, info, warn};

use crate::tasks::{OnExit, Tasks};

/// A handshake takes at most this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections are closed, and clients come back after a pause.
const HANDSHAKES: usize = 256;
/// The pause after an accept that failed, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Connections whose handshake is done.
pub type Incoming = ReceiverStream<io::Result<TlsStream<TcpStream>>>;

/// Accepts connections until the app stops, each with the settings of that moment.
pub fn accept(tasks: &Tasks, name: &'static str, listener: TcpListener, tls: Arc<ArcSwap<ServerConfig>>) -> Incoming {
    let (sender, receiver) = mpsc::channel(64);
    tasks.spawn(name, OnExit::Stop, accept_all(tasks.clone(), listener, tls, sender));
    ReceiverStream::new(receiver)
}

async fn accept_all(
    tasks: Tasks,
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    done: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let stop = tasks.stop_token().clone();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(cause) => {
                warn!(%cause, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            debug!("too many handshakes at once: a connection was closed");
            continue;
        };
        let (acceptor, done) = (TlsAcceptor::from(tls.load_full()), done.clone());
        tasks.spawn("handshake", OnExit::Ignore, async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE, shake(&acceptor, stream)).await {
                Ok(Ok(stream)) => drop(done.send(Ok(stream)).await), // refused only when the server is gone
                Ok(Err(cause)) => debug!(%cause, "a handshake failed"),
                Err(_) => debug!("a handshake took longer than {HANDSHAKE:?}"),
            }
        });
    }
}

async fn shake(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

/// A certificate chain and its key, both PEM files.
#[derive(Debug, Clone)]
pub struct Files {
    pub certificate: std::path::PathBuf,
    pub key: std::path::PathBuf,
}

/// Why the files do not make a listener.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {cause}")]
    File { path: String, cause: rustls_pki_types::pem::Error },
    #[error("{certificate} and {key}: {cause}")]
    Pair { certificate: String, key: String, cause: rustls::Error },
}

impl Files {
    /// Reads them, and again whenever they change: a bad pair is told of and the last good one kept.
    pub fn follow(self, tasks: &Tasks) -> Result<Arc<ArcSwap<ServerConfig>>, Error> {
        let tls = Arc::new(ArcSwap::from_pointee(self.read()?));
        let (current, stop) = (Arc::clone(&tls), tasks.stop_token().clone());
        tasks.spawn("certificate-files", OnExit::Ignore, async move {
            let mut seen = self.state();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = stop.cancelled() => return,
                }
                let now = self.state();
                if now == seen {
                    continue;
                }
                match self.read() {
                    Ok(fresh) => {
                        info!(certificate = %self.certificate.display(), "the certificate was read again");
                        current.store(Arc::new(fresh));
                        seen = now;
                    }
                    // Half written, perhaps: looked at again until it is whole.
                    Err(cause) => warn!(%cause, "the certificate changed and is not usable; the last good one is kept"),
                }
            }
        });
        Ok(tls)
    }

    fn read(&self) -> Result<ServerConfig, Error> {
        let file = |path: &Path, cause| Error::File { path: path.display().to_string(), cause };
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|cause| file(&self.certificate, cause))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|cause| file(&self.key, cause))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let pair = |cause| Error::Pair {
            certificate: self.certificate.display().to_string(),
            key: self.key.display().to_string(),
            cause,
        };
        let mut config = config.map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// What changes when the files do.
    fn state(&self) -> [Option<(std::time::SystemTime, u64)>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}
