//! The private listener: health, readiness, metrics. Asks for no credential and says nothing about callers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::live::Live;
use crate::pipeline::Pipeline;

/// What the pages are made from.
#[derive(Clone)]
struct Pages {
    live: Arc<Live>,
    pipeline: Arc<Pipeline>,
    draining: CancellationToken,
}

/// Serves the pages on `socket` until `stop`.
pub async fn serve(
    socket: TcpListener,
    live: Arc<Live>,
    pipeline: Arc<Pipeline>,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    let pages = Pages { live, pipeline, draining };
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    if let Err(error) = axum::serve(socket, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// Ready means: a configuration is in force and nobody asked us to stop.
async fn ready(State(pages): State<Pages>) -> impl IntoResponse {
    if pages.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    match pages.live.snapshot() {
        None => (StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n".to_owned()),
        Some(config) => {
            let version = config.version();
            (StatusCode::OK, format!("ready, configuration {}.{}\n", version.epoch, version.version))
        }
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], pages.pipeline.metrics_page())
}
