//! The admin API for those who speak HTTP and JSON: each endpoint is an RPC, called in this process through the same door, so that tokens,
//! roles, filters and errors are those of gRPC.
//!
//! Knows no noun: what a query may say is read from the descriptor of the RPC's request. Mounted by [`crate::http`].

mod codec;
mod failure;
mod query;

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    Router,
    extract::{ConnectInfo, Query, RawPathParams, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::StreamExt as _;
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tonic::{Request, Status, Streaming, client::Grpc, service::Routes, transport::server::TcpConnectInfo};

use self::{codec::Dynamic, failure::Failure};
use super::{access::Access, aip, error::Error};
use crate::app::Core;

/// A way in.
struct Endpoint {
    path: &'static str,
    /// The RPC that answers once.
    once: &'static str,
    /// The parameter that asks for answers that go on, and the RPC that gives them, as server-sent events.
    stream: Option<(&'static str, &'static str)>,
}

const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/admin/logs",
        once: "/mcpgw.admin.v1.LogService/ListRequestLogs",
        stream: Some(("follow", "/mcpgw.admin.v1.LogService/FollowRequestLogs")),
    },
    Endpoint {
        path: "/admin/logs/audit",
        once: "/mcpgw.admin.v1.LogService/ListAuditLogs",
        stream: Some(("follow", "/mcpgw.admin.v1.LogService/FollowAuditLogs")),
    },
    Endpoint { path: "/admin/logs/errors", once: "/mcpgw.admin.v1.LogService/ListErrorGroups", stream: None },
    Endpoint { path: "/admin/logs/gaps", once: "/mcpgw.admin.v1.LogService/ListRecordGaps", stream: None },
    Endpoint { path: "/admin/logs/{request_id}/payload", once: "/mcpgw.admin.v1.LogService/GetRequestPayload", stream: None },
    Endpoint { path: "/admin/logs/{request_id}", once: "/mcpgw.admin.v1.LogService/GetRequestLog", stream: None },
    Endpoint { path: "/admin/limits/usage", once: "/mcpgw.admin.v1.RateLimitService/ListLimitUsage", stream: None },
    Endpoint {
        path: "/admin/stats",
        once: "/mcpgw.admin.v1.StatsService/GetStats",
        stream: Some(("watch", "/mcpgw.admin.v1.StatsService/WatchStats")),
    },
];

/// The services as they stand behind the door.
type Services = Access<Routes>;

/// Every endpoint.
pub fn router(core: &Core) -> Router {
    let services = super::in_process(core);
    ENDPOINTS.iter().fold(Router::new(), |router, endpoint| {
        let services = services.clone();
        let handler = move |path, query, headers, from| async move {
            let asked = Asked { path, query, headers, from };
            answer(services, endpoint, asked).await.unwrap_or_else(IntoResponse::into_response)
        };
        router.route(endpoint.path, get(handler))
    })
}

/// What a request says.
struct Asked {
    path: RawPathParams,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
    from: ConnectInfo<SocketAddr>,
}

async fn answer(services: Services, endpoint: &Endpoint, asked: Asked) -> Result<Response, Failure> {
    let Query(mut parameters) = asked.query.map_err(|error| Error::invalid("query", error.body_text()))?;
    parameters.extend(asked.path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let streams = match endpoint.stream {
        Some((parameter, rpc)) => query::take_flag(&mut parameters, parameter)?.then_some(rpc),
        None => None,
    };
    let rpc = streams.unwrap_or(endpoint.once);
    let method = method(rpc)?;
    if let Some(last) = asked.headers.get("last-event-id").filter(|_| streams.is_some()) {
        // A browser that connects again goes on where it was.
        parameters.retain(|(name, _)| name != "resumeToken" && name != "resume_token");
        parameters.push(("resumeToken".into(), String::from_utf8_lossy(last.as_bytes()).into_owned()));
    }
    let mut request = Request::new(query::message(&method.input(), &parameters)?);
    for value in asked.headers.get_all(header::AUTHORIZATION) {
        // As it came, and as often: whoever judges it judges all of it.
        let value = value.to_str().ok().and_then(|text| text.parse().ok());
        let value = value.ok_or(Error::Unauthenticated("expected one header `authorization: Bearer <access token>`"))?;
        request.metadata_mut().append("authorization", value);
    }
    request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(asked.from.0) });
    let mut grpc = Grpc::new(services).max_decoding_message_size(usize::MAX); // it never leaves this process
    let Ok(()) = grpc.ready().await;
    let (path, codec) = (PathAndQuery::from_static(rpc), Dynamic(method.output()));
    let mut response = if streams.is_some() {
        events(grpc.server_streaming(request, path, codec).await?.into_inner())
    } else {
        json(&grpc.unary(request, path, codec).await?.into_inner())?
    };
    // Logs are nobody's to keep on the way.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn method(rpc: &str) -> Result<MethodDescriptor, Failure> {
    let found = rpc.trim_start_matches('/').split_once('/').and_then(|(service, method)| {
        let service = aip::DESCRIPTORS.get_service_by_name(service)?;
        service.methods().find(|it| it.name() == method)
    });
    found.ok_or_else(|| Failure(Status::unimplemented("no such method")))
}

fn json(message: &DynamicMessage) -> Result<Response, Failure> {
    let text = serde_json::to_string(message).map_err(|error| Error::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Each message as an event; its id is where a lost connection is resumed. An end that has a reason is an event `error`.
fn events(messages: Streaming<DynamicMessage>) -> Response {
    let event = |message: Result<DynamicMessage, Status>| match message {
        Ok(message) => {
            let event = Event::default().data(serde_json::to_string(&message).unwrap_or_default());
            let token = message.get_field_by_name("resume_token").and_then(|token| token.as_str().map(str::to_owned));
            token.into_iter().fold(event, |event, token| event.id(token))
        }
        Err(status) => Event::default().event("error").data(failure::body(&status).to_string()),
    };
    let events = messages.map(move |message| Ok::<_, Infallible>(event(message)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
