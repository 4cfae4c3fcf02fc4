//! A proxy in front of the gateway that only watches: it streams both ways and notes every `Mcpgw-Request-Id` that a client received.
//! Clients that we do not control cannot be asked what they saw; this can.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio_util::sync::CancellationToken;

use crate::serve::Served;

/// A running witness; dropping it stops it.
pub struct Witness {
    served: Served,
    seen: Arc<Seen>,
}

struct Seen {
    gateway: SocketAddr,
    client: Client<HttpConnector, Body>,
    request_ids: Mutex<Vec<String>>,
}

impl Witness {
    /// In front of a gateway that listens on `gateway`.
    pub async fn before(gateway: SocketAddr) -> anyhow::Result<Self> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let seen = Arc::new(Seen { gateway, client, request_ids: Mutex::default() });
        let router = Router::new().fallback(forward).with_state(seen.clone());
        let served = Served::start(SocketAddr::from(([127, 0, 0, 1], 0)), router, CancellationToken::new()).await?;
        Ok(Self { served, seen })
    }

    /// The same path, through the witness.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.served.address())
    }

    /// Every request id seen so far; an answer without one is noted as an empty text.
    pub fn request_ids(&self) -> Vec<String> {
        self.seen.request_ids.lock().expect("nothing panics while it is held").clone()
    }
}

async fn forward(State(seen): State<Arc<Seen>>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = Uri::builder().scheme("http").authority(seen.gateway.to_string()).path_and_query(path).build() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    match seen.client.request(request).await {
        Ok(answer) => {
            let id = answer.headers().get("mcpgw-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
            seen.request_ids.lock().expect("nothing panics while it is held").push(id.to_owned());
            answer.map(Body::new).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
