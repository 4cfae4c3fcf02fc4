//! The node listener: one port, TLS with a certificate of the node CA, a client certificate asked for and checked by each service.
//!
//! Owns accepting and handshakes, bounded and with deadlines. What is served is given to it. Called by [`super::spawn`].

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, error, warn};

use super::identity;
use crate::{
    app::Core,
    keys::Keys,
    tasks::{OnExit, Tasks},
};

/// A handshake takes at most this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections are closed, and nodes come back after a pause.
const HANDSHAKES: usize = 256;
/// The pause after an accept that failed, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// The name that the listener's certificate always carries, whatever the settings say.
const OWN_NAME: &str = "control-plane";

/// Connections whose handshake is done.
pub type Incoming = ReceiverStream<io::Result<TlsStream<TcpStream>>>;

/// Why the listener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("node listener: {0}")]
    Tls(#[from] rustls::Error),
    #[error("node listener: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Accepts connections until the app stops.
pub fn accept(core: &Core, keys: &Keys, listener: TcpListener) -> Result<Incoming, Error> {
    let tls = Arc::new(ArcSwap::from_pointee(config(keys, &core.config.node_server_names)?));
    let (sender, receiver) = mpsc::channel(64);
    core.tasks.spawn("node-certificate", OnExit::Ignore, renew(core.clone(), Arc::clone(&tls)));
    core.tasks.spawn("node-accept", OnExit::Stop, accept_all(core.tasks.clone(), listener, tls, sender));
    Ok(ReceiverStream::new(receiver))
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
                warn!(%cause, "a node's connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            debug!("too many handshakes at once: a connection was closed");
            continue;
        };
        let (acceptor, done) = (TlsAcceptor::from(tls.load_full()), done.clone());
        tasks.spawn("node-handshake", OnExit::Ignore, async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE, shake(&acceptor, stream)).await {
                Ok(Ok(stream)) => drop(done.send(Ok(stream)).await), // refused only when the server is gone
                Ok(Err(cause)) => debug!(%cause, "a node's handshake failed"),
                Err(_) => debug!("a node's handshake took longer than {HANDSHAKE:?}"),
            }
        });
    }
}

async fn shake(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

/// Replaces the listener's own certificate at half of its life.
async fn renew(core: Core, tls: Arc<ArcSwap<ServerConfig>>) {
    let stop = core.tasks.stop_token();
    loop {
        tokio::select! {
            () = tokio::time::sleep(identity::LISTENER_LIFETIME / 2) => {}
            () = stop.cancelled() => return,
        }
        let keys = match core.custody.keys() {
            Ok(keys) => keys,
            Err(cause) => {
                error!(%cause, "the node listener keeps its certificate");
                continue;
            }
        };
        match config(&keys, &core.config.node_server_names) {
            Ok(fresh) => tls.store(Arc::new(fresh)),
            Err(cause) => error!(%cause, "the node listener keeps its certificate"),
        }
    }
}

/// The chain carries the CA itself: a node that joins knows it by its pin only.
fn config(keys: &Keys, names: &[String]) -> Result<ServerConfig, Error> {
    let mut names = names.to_vec();
    names.push(OWN_NAME.to_owned());
    names.sort();
    names.dedup();
    let ca = &keys.node_ca.current().material;
    let (leaf, key) = identity::for_listener(ca, &names)?;
    let mut roots = RootCertStore::empty();
    for ca in keys.node_ca.iter() {
        roots.add(ca.material.certificate().clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        .with_single_cert(vec![leaf, ca.certificate().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the look at the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
