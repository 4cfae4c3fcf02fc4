//! The listener for other nodes. What comes in was taken by one of them from a client, and goes through the whole pipeline here as if it
//! had come straight; or it is a question between nodes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use rustls::crypto::CryptoProvider;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::{FORWARDED_FOR, FORWARDED_ID, tls};
use crate::listener::Handler;
use crate::node::Identity;
use crate::pipeline::Pipeline;
use crate::relay::Body;

/// Answers other nodes.
pub struct Door(pub Arc<Pipeline>);

impl Handler for Door {
    async fn handle(self: Arc<Self>, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        if let Some(path) = request.uri().path().strip_prefix(super::ASIDE) {
            let path = path.to_owned();
            return self.0.answer_node(&path, request).await;
        }
        let headers = request.headers_mut();
        let address = headers.remove(FORWARDED_FOR).and_then(|text| text.to_str().ok()?.parse::<IpAddr>().ok());
        let id = headers.remove(FORWARDED_ID).and_then(|text| Uuid::try_parse(text.to_str().ok()?).ok());
        self.0.clone().forwarded(request, address.unwrap_or(peer.ip()), id.unwrap_or_else(Uuid::now_v7)).await
    }
}

/// An acceptor that shows what the node is now; `None` while it is nobody.
pub fn acceptor(identity: &watch::Receiver<Option<Arc<Identity>>>, provider: &Arc<CryptoProvider>) -> Option<TlsAcceptor> {
    let identity = identity.borrow().clone()?;
    match tls::server(&identity, provider) {
        Ok(config) => Some(TlsAcceptor::from(Arc::new(config))),
        Err(error) => {
            tracing::error!(%error, "this node cannot be reached by others");
            None
        }
    }
}
