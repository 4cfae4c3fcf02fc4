//! `/health`, `/ready`, `/metrics` and `/.well-known/jwks.json`, which need no credential and tell no secret; and the endpoints of
//! [`crate::api::rest`], which judge their callers themselves.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tokio::net::TcpListener;
use tracing::error;

use crate::{
    api::rest,
    app::{Core, Opening},
    tasks::OnExit,
};

const PING: Duration = Duration::from_secs(2);

/// Serves until the app stops.
pub fn spawn(core: &Core, listener: TcpListener) {
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/.well-known/jwks.json", get(jwks))
        .with_state(core.clone())
        .merge(rest::router(core));
    let stop = core.tasks.stop_token().clone();
    core.tasks.spawn("http", OnExit::Stop, async move {
        if let Err(cause) = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
        {
            error!(%cause, "the HTTP listener failed");
        }
    });
}

/// 200 when this replica can take changes; else 503 and why not.
async fn ready(State(core): State<Core>) -> Response {
    let opening = core.opened.borrow().clone();
    let why = match opening {
        Opening::Waiting(why) => why.unwrap_or_else(|| "starting".into()),
        Opening::Failed(why) => why,
        Opening::Open(_) => match tokio::time::timeout(PING, core.store.ping()).await {
            Ok(Ok(())) => return "ready\n".into_response(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database does not answer".into(),
        },
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

async fn metrics(State(core): State<Core>) -> Response {
    core.overview.sample(&core).await;
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], core.metrics.text()).into_response()
}

/// The public keys of access tokens (RFC 7517, RFC 8037).
async fn jwks(State(core): State<Core>) -> Response {
    let Ok(keys) = core.custody.keys() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let key = |k: &crate::keys::Key<crate::keys::SigningKey>| {
        let x = URL_SAFE_NO_PAD.encode(k.material.public());
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": k.id, "x": x })
    };
    Json(json!({ "keys": keys.jwt.iter().map(key).collect::<Vec<_>>() })).into_response()
}
