//! The backend's HTTP face: `/mcp` (with every request's headers noted) and `/stats` (GET reads, DELETE
//! resets). Validation of Host, Origin and MCP headers is rmcp's.

use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::routing::get;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

use super::Shared;
use super::server::Session;

pub(super) fn router(shared: &Arc<Shared>, config: StreamableHttpServerConfig) -> axum::Router {
    let each_session = shared.clone();
    let service = StreamableHttpService::new(move || Ok(Session::new(each_session.clone())), shared.sessions.clone(), config);
    let stats = shared.stats.clone();
    let note = move |request: Request, next: Next| {
        let stats = stats.clone();
        async move {
            let (parts, body) = request.into_parts();
            stats.arrived(&parts);
            next.run(Request::from_parts(parts, body)).await
        }
    };
    let (read, reset) = (shared.stats.clone(), shared.stats.clone());
    axum::Router::new()
        .nest_service("/mcp", service)
        .layer(middleware::from_fn(note))
        .route("/stats", get(async move || Json(read.snapshot())).delete(async move || reset.reset()))
}
