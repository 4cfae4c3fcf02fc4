//! Servers that hold the head of a notification stream back until the first event: the client gets its own meanwhile.

use std::sync::Arc;

use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::scope::{ENGINEER, GITHUB, Scope, bearer};
use super::world::{Gateway, json, status};

/// A server whose stream begins, with `head`, when it is told to.
async fn holding_back(head: fn() -> Response<Body>) -> (Gateway, Arc<Notify>, Arc<Notify>) {
    let (asked, begin): (Arc<Notify>, Arc<Notify>) = Default::default();
    let initialize = || async {
        let mut response = json(r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#);
        response.headers_mut().insert("mcp-session-id", "up-1".parse().unwrap());
        response
    };
    let (told, knock) = (begin.clone(), asked.clone());
    let stream = move || async move {
        knock.notify_one();
        told.notified().await;
        head()
    };
    let router = axum::Router::new().route("/mcp", post(initialize).merge(get(stream)));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    #[allow(clippy::disallowed_methods)] // ends with the test's runtime
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    (Gateway::start(&Scope::at(address)).await, asked, begin)
}

/// Opens a session and its stream.
async fn stream(gateway: &Gateway) -> Response<hyper::body::Incoming> {
    let credential = bearer(ENGINEER);
    let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    let opened = gateway.ask(gateway.post(GITHUB, &[("authorization", &credential)], body)).await;
    let session = opened.header("mcp-session-id").unwrap();
    let headers = [("authorization", &*credential), ("mcp-session-id", session)];
    gateway.send(gateway.request(Method::GET, &format!("/servers/{GITHUB}/mcp"), &headers, Bytes::new())).await
}

const NOTICE: &str = "id: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

#[tokio::test]
async fn the_client_gets_a_head_and_then_the_events() {
    let begins = || Response::builder().header("content-type", "text/event-stream").body(Body::from(NOTICE)).unwrap();
    let (gateway, asked, begin) = holding_back(begins).await;
    let response = stream(&gateway).await;
    assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    asked.notified().await;
    begin.notify_one();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), NOTICE);
}

#[tokio::test]
async fn a_late_head_that_is_not_a_streams_ends_the_clients_stream() {
    for head in [|| status(405), || json("{}")] as [fn() -> Response<Body>; 2] {
        let (gateway, _, begin) = holding_back(head).await;
        let response = stream(&gateway).await;
        begin.notify_one();
        assert!(response.into_body().collect().await.is_err());
    }
}

#[tokio::test]
async fn stopping_ends_a_stream_that_never_began() {
    let (gateway, _, _begin) = holding_back(|| status(500)).await;
    let response = stream(&gateway).await;
    gateway.stop.cancel();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}
