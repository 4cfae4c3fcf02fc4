//! Servers that are exchanged for others of another era while the node runs, at the same place and without a connection that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::body::Body;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Response};
use mcp_gateway::proto::config::v1::{Era, Transport};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::super::scope::{ENGINEER, GITHUB, Scope, bearer};
use super::super::world::{self, Gateway, Seen, Upstream, result, status};
use super::client::Client;
use super::modern::client::Client as ModernClient;
use super::modern::untouched;
use crate::transport::ClientTransport;
use crate::upstream::era::Eras;

/// What the node knows of the server's eras.
fn eras(gateway: &Gateway) -> Option<Eras> {
    let config = gateway.live.snapshot().unwrap();
    gateway.findings.of(config.server(GITHUB).unwrap().1)?.eras
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

/// Refuses what a server of the modern era refuses, or one of the legacy era with sessions.
fn answer(seen: &Seen, is_modern: bool) -> Response<Body> {
    if seen.method != Method::POST {
        return status(405);
    }
    let message = seen.json();
    let (id, method) = (&message["id"], message["method"].as_str().unwrap_or_default());
    let refuse = |status: u16, code: i32, why: &str| {
        let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": why}});
        let mut response = world::json(error.to_string());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        response
    };
    if is_modern {
        return match method {
            _ if message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] != "2026-07-28" => {
                refuse(400, -32022, "Unsupported protocol version")
            }
            "server/discover" => {
                result(seen, r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#)
            }
            "tools/call" => result(seen, r#"{"resultType":"complete","content":[{"type":"text","text":"modern"}]}"#),
            _ => refuse(404, -32601, "Method not found"),
        };
    }
    match method {
        "initialize" => {
            let info = json!({"name": "old", "version": "1"});
            let opened = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info});
            let mut response = result(seen, &opened.to_string());
            response.headers_mut().insert("mcp-session-id", "s1".parse().unwrap());
            response
        }
        _ if seen.header("mcp-session-id") != Some("s1") => refuse(400, -32000, "Bad Request: Server not initialized"),
        "tools/call" => result(seen, r#"{"content":[{"type":"text","text":"legacy"}]}"#),
        _ if id.is_null() => status(202),
        _ => refuse(200, -32601, "Method not found"),
    }
}

/// A server behind HTTP, and whether it is the modern one.
async fn over_http() -> (Gateway, Upstream, Arc<AtomicBool>) {
    let is_modern = Arc::new(AtomicBool::new(false));
    let now = is_modern.clone();
    let upstream = Upstream::start(move |seen| answer(seen, now.load(SeqCst))).await;
    let mut scope = Scope::at(upstream.address);
    scope.server(GITHUB).era = Era::Unspecified.into();
    (Gateway::start(&scope).await, upstream, is_modern)
}

#[tokio::test]
async fn a_legacy_client_starts_again_and_is_served_by_the_server_of_the_other_era() {
    let (gateway, _upstream, is_modern) = over_http().await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
    client.open("2025-06-18").await;
    assert_eq!(text(&client.call(json!(1), "echo", json!({})).await), "legacy");
    assert_eq!(eras(&gateway), Some(Eras::Legacy));

    is_modern.store(true, SeqCst);
    let refused = client.call(json!(2), "echo", json!({})).await;
    assert_eq!((&refused["error"]["code"], eras(&gateway)), (&json!(-32022), None), "what was found out does not hold");
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "echo"}});
    assert_eq!(client.say(call).await, 404, "its session is over");
    client.session = None;
    client.open("2025-06-18").await;
    assert_eq!(text(&client.call(json!(4), "echo", json!({})).await), "modern");
    assert_eq!(eras(&gateway), Some(Eras::Modern));

    is_modern.store(false, SeqCst);
    let refused = client.call(json!(5), "echo", json!({})).await;
    assert!(refused.get("error").is_some(), "{refused}");
    let call = json!({"jsonrpc": "2.0", "id": 6, "method": "tools/call", "params": {"name": "echo"}});
    assert_eq!(client.say(call).await, 404, "sessions with a server of the same era are the server's");
    client.session = None;
    client.open("2025-06-18").await;
    assert_eq!(text(&client.call(json!(7), "echo", json!({})).await), "legacy");
    assert_eq!(eras(&gateway), Some(Eras::Legacy));
}

#[tokio::test]
async fn a_legacy_client_that_comes_after_the_exchange_is_refused_once() {
    let (gateway, _upstream, is_modern) = over_http().await;
    let connect = async || Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
    connect().await.open("2025-06-18").await;
    is_modern.store(true, SeqCst);
    let open = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let refused = connect().await.ask(json!(1), "initialize", open).await;
    assert_eq!(refused["error"]["code"], -32022, "{refused}");
    let mut client = connect().await;
    assert_eq!(client.open("2025-06-18").await["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(text(&client.call(json!(2), "echo", json!({})).await), "modern");
}

#[tokio::test]
async fn a_modern_client_is_refused_once_and_served_then() {
    let (gateway, upstream, is_modern) = over_http().await;
    let client = ModernClient::of(&gateway);
    let asked = || upstream.seen().iter().filter(|seen| seen.body.windows(15).any(|part| part == b"server/discover")).count();
    for (modern, words, found, times) in
        [(false, "legacy", Eras::Legacy, 1), (true, "modern", Eras::Modern, 2), (false, "legacy", Eras::Legacy, 3)]
    {
        is_modern.store(modern, SeqCst);
        let first = client.call(json!(1), "echo", json!({})).await;
        assert_eq!(first.get("error").is_some(), times > 1, "{first}");
        for id in [2, 3] {
            let answer = client.call(json!(id), "echo", json!({})).await;
            assert_eq!(text(&answer), words, "{answer}");
        }
        assert_eq!((eras(&gateway), asked()), (Some(found), times));
    }
}

/// A server behind sockets, and whether it is the modern one.
struct Sockets {
    is_modern: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    cut: watch::Sender<()>,
}

async fn over_sockets() -> (Gateway, Sockets) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", socket.local_addr().unwrap());
    let server = Sockets { is_modern: Arc::default(), asked: Arc::default(), cut: watch::Sender::default() };
    let (is_modern, asked, cut) = (server.is_modern.clone(), server.asked.clone(), server.cut.clone());
    #[allow(clippy::disallowed_methods)] // ends with the test's runtime
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            // A process stays what it is: only the next connection leads to another.
            let (is_modern, asked, mut cut) = (is_modern.load(SeqCst), asked.clone(), cut.subscribe());
            #[allow(clippy::disallowed_methods)] // ends with the connection
            tokio::spawn(async move {
                let mut stream = accept_async(stream).await.unwrap();
                loop {
                    let next = tokio::select! {
                        next = stream.next() => next,
                        _ = cut.changed() => return,
                    };
                    let Some(Ok(Message::Text(text))) = next else { return };
                    let message: Value = serde_json::from_str(&text).unwrap();
                    asked.fetch_add(usize::from(message["method"] == "server/discover"), SeqCst);
                    let said = if is_modern { untouched::answers(&message) } else { of_before(&message) };
                    for said in said {
                        stream.send(Message::text(said.to_string())).await.unwrap_or_default();
                    }
                }
            });
        }
    });
    let mut scope = Scope::at(([127, 0, 0, 1], 1).into());
    scope.server(GITHUB).transport = Transport::Websocket.into();
    scope.server(GITHUB).era = Era::Unspecified.into();
    scope.server(GITHUB).endpoints[0].url = url;
    (Gateway::start(&scope).await, server)
}

fn of_before(message: &Value) -> Vec<Value> {
    let answer = |what: &str, value: Value| vec![json!({"jsonrpc": "2.0", "id": message["id"], what: value})];
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let info = json!({"name": "old", "version": "1"});
            let version = &message["params"]["protocolVersion"];
            answer("result", json!({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}))
        }
        "tools/call" => answer("result", json!({"content": [{"type": "text", "text": "legacy"}]})),
        _ if message.get("id").is_none() => vec![],
        _ => answer("error", json!({"code": -32601, "message": "no such method"})),
    }
}

/// Waits until the node has noticed that a connection is gone.
async fn until_forgotten(gateway: &Gateway) {
    let forgotten = async {
        while eras(gateway).is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), forgotten).await.expect("it is forgotten");
}

#[tokio::test]
async fn a_server_behind_a_socket_that_broke_is_asked_again() {
    let (gateway, server) = over_sockets().await;
    let client = ModernClient::of(&gateway);
    for (round, modern) in [false, true, false].into_iter().enumerate() {
        server.is_modern.store(modern, SeqCst);
        if round > 0 {
            server.cut.send_replace(());
            until_forgotten(&gateway).await;
        }
        for id in [1, 2] {
            let answer = client.call(json!(id), "echo", json!({})).await;
            assert_eq!((text(&answer) == "legacy", answer["result"]["taskId"] == "t1"), (!modern, modern), "{round}: {answer}");
        }
        let expected = if modern { Eras::Modern } else { Eras::Legacy };
        assert_eq!((eras(&gateway), server.asked.load(SeqCst)), (Some(expected), round + 1), "{round}");
    }
}

#[tokio::test]
async fn a_server_behind_a_socket_that_opens_no_session_any_more_is_asked_again() {
    let (gateway, server) = over_sockets().await;
    let connect = async || Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::WebSocket).await;
    let mut first = connect().await;
    first.open("2025-06-18").await;
    server.is_modern.store(true, SeqCst);
    let open = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let refused = connect().await.ask(json!(1), "initialize", open).await;
    assert!(refused.get("error").is_some(), "{refused}");
    let mut next = connect().await;
    assert_eq!(next.open("2025-06-18").await["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(eras(&gateway), Some(Eras::Modern));
    assert_eq!(text(&first.call(json!(2), "echo", json!({})).await), "legacy", "who has a connection keeps it");
}
