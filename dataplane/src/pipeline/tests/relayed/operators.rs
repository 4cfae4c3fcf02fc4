//! What operators may do with connections, and callers with their own.

use http::Method;
use mcp_gateway::proto::config::v1::Transport;
use serde_json::{Value, json};

use super::super::scope::{COLLEAGUE, ENGINEER, GITHUB, bearer};
use super::super::world::{Answer, Gateway};
use super::client::Client;
use super::conversation::scope;
use super::server::Server;
use crate::transport::ClientTransport;

async fn world() -> (Gateway, Server) {
    let server = Server::start(Transport::Websocket).await;
    let mut scope = scope(&server);
    let colleague = scope.keys.iter_mut().find(|key| key.key_id == COLLEAGUE).unwrap();
    colleague.roles.push("operator".into());
    (Gateway::start(&scope).await, server)
}

async fn order(gateway: &Gateway, key: &str, method: Method, path: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    gateway.ask(gateway.request(method, path, &[("authorization", &*bearer(key))], body)).await
}

fn news() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hello"}})
}

#[tokio::test]
async fn an_operator_speaks_to_one_socket_or_to_all_and_ends_one() {
    let (gateway, _server) = world().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::WebSocket).await;
        client.open("2025-06-18").await;
        clients.push(client);
    }
    let status = order(&gateway, COLLEAGUE, Method::GET, "/ws/status", Value::Null).await.json();
    let sessions = status["sessions"].as_array().unwrap();
    assert_eq!(
        (sessions.len(), &sessions[0]["subject"], &sessions[0]["version"]),
        (2, &json!("key:engineerkeyaaaaa"), &json!("2025-06-18"))
    );
    let told = order(&gateway, COLLEAGUE, Method::POST, "/ws/broadcast", news()).await;
    assert_eq!(told.json()["reached"], 2, "{told:?}");
    for client in &mut clients {
        client.hears(|message| message["params"]["data"] == "hello").await;
    }
    let session = sessions[0]["session"].clone();
    let sent = order(&gateway, COLLEAGUE, Method::POST, "/ws/send", json!({"session": session, "message": news()})).await;
    assert_eq!(sent.json(), json!({"reached": 1, "found": true, "unreachable": []}));
    assert_eq!(order(&gateway, COLLEAGUE, Method::POST, "/ws/ping", json!({"session": session})).await.status, 200);
    let path = format!("/ws/close?session={}", session.as_str().unwrap());
    assert_eq!(order(&gateway, COLLEAGUE, Method::DELETE, &path, Value::Null).await.status, 200);
    let closed = async |client: &mut Client| client.hears(|message| message["closed"] == 1000).await;
    let (first, second) = clients.split_at_mut(1);
    tokio::select! {
        _ = closed(&mut first[0]) => {}
        _ = closed(&mut second[0]) => {}
    }
    let again = order(&gateway, COLLEAGUE, Method::DELETE, &path, Value::Null).await;
    assert_eq!((again.status.as_u16(), again.code()), (404, -31404));
}

#[tokio::test]
async fn a_ticket_opens_one_socket_without_any_header() {
    let (gateway, _server) = world().await;
    let ticket = order(&gateway, ENGINEER, Method::POST, &format!("/servers/{GITHUB}/ws/ticket"), Value::Null).await.json();
    let path = ticket["path"].as_str().unwrap();
    assert_eq!(ticket["expires_in"], 30);
    let open = async |path: &str| {
        let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{}{path}", gateway.address), stream).await
    };
    let status = async |path: &str| match open(path).await {
        Ok(_) => 101,
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(
        status(&path.replace(GITHUB, super::super::scope::OPEN)).await,
        401,
        "another server, which lets anybody in without one"
    );
    let ticket = order(&gateway, ENGINEER, Method::POST, &format!("/servers/{GITHUB}/ws/ticket"), Value::Null).await.json();
    let path = ticket["path"].as_str().unwrap();
    assert_eq!(status(path).await, 101);
    assert_eq!(status(path).await, 401, "once");
    assert_eq!(
        status(&format!("/servers/{GITHUB}/ws?ticket=0190a000-0000-7000-8000-00000000000f.AAAA")).await,
        401,
        "no such node"
    );
    assert_eq!(status(&format!("/servers/{GITHUB}/ws")).await, 401, "nothing at all");
    let records = gateway.records();
    let opened = records
        .iter()
        .find(|(decided, _)| decided.method == "GET" && decided.client_transport == "websocket" && !decided.subject.is_empty());
    assert_eq!(opened.unwrap().0.subject, "key:engineerkeyaaaaa");
}

#[tokio::test]
async fn others_see_and_take_up_what_is_their_own_and_touch_nothing() {
    let (gateway, _server) = world().await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
    client.open("2025-11-25").await;
    client.call(json!(1), "echo", json!({"say": "hi"})).await;
    let status = order(&gateway, ENGINEER, Method::GET, "/sse/status", Value::Null).await.json();
    let session = status["sessions"][0]["session"].as_str().unwrap().to_owned();
    let replay = format!("/sse/replay/{session}?after=1-0");
    let events = order(&gateway, ENGINEER, Method::GET, &replay, Value::Null).await;
    assert!(events.status == 200 && events.body.contains("\"id\":\"open\""), "{events:?}");
    for (key, method, path, body, code) in [
        (COLLEAGUE, Method::GET, &*replay, Value::Null, 404),
        (ENGINEER, Method::GET, "/sse/replay/0190a000-0000-7000-8000-0000000000ff", Value::Null, 404),
        (ENGINEER, Method::POST, "/ws/broadcast", news(), 403),
        (ENGINEER, Method::POST, "/sse/broadcast", news(), 403),
        (ENGINEER, Method::POST, "/ws/send", json!({"session": session, "message": news()}), 403),
        (ENGINEER, Method::POST, "/ws/ping", json!({"session": session}), 403),
        (COLLEAGUE, Method::POST, "/ws/broadcast", json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}), 400),
        (COLLEAGUE, Method::POST, "/ws/ping", json!({"session": "x"}), 400),
        (COLLEAGUE, Method::POST, "/ws/ping", json!({"session": session, "more": 1}), 400),
        (COLLEAGUE, Method::GET, "/ws/broadcast", Value::Null, 405),
        (COLLEAGUE, Method::GET, "/ws/status?org=acme", Value::Null, 200),
        (COLLEAGUE, Method::GET, "/ws/status?org=rival", Value::Null, 403),
        (ENGINEER, Method::GET, "/stdio/process", Value::Null, 403),
        (ENGINEER, Method::GET, "/stdio/logs?server=github", Value::Null, 403),
        (ENGINEER, Method::POST, "/stdio/send", json!({"process": session, "message": news()}), 403),
        (COLLEAGUE, Method::GET, "/stdio/process", Value::Null, 200),
        (COLLEAGUE, Method::DELETE, "/stdio/process", Value::Null, 405),
        (COLLEAGUE, Method::POST, "/stdio/process", json!({"action": "start", "command": ["/bin/sh"]}), 400),
        (COLLEAGUE, Method::POST, "/stdio/process", json!({"action": "stop", "process": session}), 404),
        (COLLEAGUE, Method::POST, "/stdio/send", json!({"process": session, "message": news()}), 404),
        (COLLEAGUE, Method::GET, "/stdio/logs", Value::Null, 400),
        (COLLEAGUE, Method::GET, "/stdio/logs?server=github", Value::Null, 404),
        (COLLEAGUE, Method::GET, "/stdio/logs?server=github&follow=true", Value::Null, 404),
        (ENGINEER, Method::GET, "/stdio/logs?server=github&follow=true", Value::Null, 403),
        (ENGINEER, Method::POST, "/stdio/execute", json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), 400),
        (ENGINEER, Method::POST, "/stdio/execute?server=github", json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), 404),
        ("nobody", Method::GET, "/ws/status", Value::Null, 401),
    ] {
        let answer = order(&gateway, key, method.clone(), path, body).await;
        assert_eq!(answer.status, code, "{method} {path}: {answer:?}");
    }
}
