//! The node listener: one port, TLS with a certificate of the node CA, a client certificate asked for and checked by each service.
//!
//! Owns its certificate and whose client certificates are believed. Called by [`super::spawn`]; accepting is in `tls`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::{net::TcpListener, time::Instant};
use tracing::error;

use super::identity;
use crate::{
    app::Core,
    keys::{Keys, State},
    tasks::OnExit,
    tls::{self, Incoming},
};

/// The name that the listener's certificate always carries, whatever the settings say.
const OWN_NAME: &str = "control-plane";

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
    core.tasks.spawn("node-certificate", OnExit::Ignore, renew(core.clone(), Arc::clone(&tls), authorities(keys)));
    Ok(tls::accept(&core.tasks, "node-accept", listener, tls))
}

/// Replaces the listener's own certificate at half of its life, and when the authorities have moved on.
async fn renew(core: Core, tls: Arc<ArcSwap<ServerConfig>>, mut served: Vec<(String, State)>) {
    let stop = core.tasks.stop_token();
    let mut news = core.custody.watch();
    let mut due = Instant::now() + identity::LISTENER_LIFETIME / 2;
    loop {
        let timed = tokio::select! {
            () = tokio::time::sleep_until(due) => true,
            Ok(()) = news.changed() => false,
            () = stop.cancelled() => return,
        };
        let Some(keys) = news.borrow_and_update().clone() else { continue };
        let authorities = authorities(&keys);
        if !timed && authorities == served {
            continue;
        }
        match config(&keys, &core.config.node_server_names) {
            Ok(fresh) => {
                tls.store(Arc::new(fresh));
                served = authorities;
            }
            Err(cause) => error!(%cause, "the node listener keeps its certificate"),
        }
        due = Instant::now() + identity::LISTENER_LIFETIME / 2;
    }
}

/// What the listener's settings are made of, as far as it can change.
fn authorities(keys: &Keys) -> Vec<(String, State)> {
    keys.node_ca.iter().map(|ca| (ca.id.clone(), ca.state)).collect()
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
