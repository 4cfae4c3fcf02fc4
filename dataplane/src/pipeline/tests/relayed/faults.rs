//! What sessions do when somebody is gone, forbidden, or says what nobody asked for.

use http::Method;
use mcp_gateway::proto::config::v1::{Revocation, Transport};
use mcp_gateway::proto::node::v1::Outcome;
use serde_json::json;

use super::super::scope::{COLLEAGUE, ENGINEER, GITHUB, bearer};
use super::super::world::Gateway;
use super::client::Client;
use super::conversation::scope;
use super::server::Server;
use crate::transport::ClientTransport;

async fn world(kind: Transport) -> (Gateway, Server) {
    let server = Server::start(kind).await;
    (Gateway::start(&scope(&server)).await, server)
}

#[tokio::test]
async fn a_lost_server_is_replaced_alone_unless_something_was_lost_with_it() {
    let (gateway, server) = world(Transport::Websocket).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
    client.open("2025-06-18").await;
    client.call(json!(1), "echo", json!({"say": "a"})).await;
    server.cut();
    let answer = client.call(json!(2), "echo", json!({"say": "b"})).await;
    assert_eq!(answer["result"]["content"][0]["text"], "b");
    assert_eq!(server.opened(), 2);
    assert_eq!(server.heard("initialize").len(), 2);
    // A call under way is lost, and said to be: nobody repeats it.
    client.say(json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "search_wait"}})).await;
    server.hears(|message| message["params"]["name"] == "search_wait").await;
    server.cut();
    let lost = client.hears(|message| message["id"] == 3).await;
    assert_eq!(lost["error"]["code"], -32603, "{lost}");
    let status = client.say(json!({"jsonrpc": "2.0", "id": 4, "method": "ping"})).await;
    assert_eq!(status, 404, "the client has to start over");
    assert_eq!(server.heard("tools/call").iter().filter(|call| call["params"]["name"] == "search_wait").count(), 1);
}

#[tokio::test]
async fn a_session_that_was_ended_is_not_found_and_neither_is_somebody_elses() {
    let (gateway, _server) = world(Transport::HttpSse).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
    client.open("2025-06-18").await;
    let mut other = Client::connect(&gateway, GITHUB, &bearer(COLLEAGUE), ClientTransport::StreamableHttp).await;
    other.session.clone_from(&client.session);
    assert_eq!(other.say(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await, 404);
    let url = format!("http://{}/servers/{GITHUB}/mcp", gateway.address);
    assert_eq!(client.request(Method::DELETE, &url, "").await.status(), 200);
    assert_eq!(client.say(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await, 404, "the end is remembered");
}

#[tokio::test]
async fn a_revoked_key_ends_streams_of_every_transport() {
    for transport in [ClientTransport::WebSocket, ClientTransport::HttpSse] {
        let (gateway, server) = world(Transport::Websocket).await;
        let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), transport).await;
        client.open("2025-06-18").await;
        gateway.live.revoke(&Revocation { api_keys: vec![ENGINEER.into()], ..Revocation::default() });
        if transport == ClientTransport::WebSocket {
            client.hears(|message| message["closed"] == 1008).await;
        } else {
            let status = client.say(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await;
            assert_eq!(status, 401, "the next message is refused");
        }
        assert!(server.heard("ping").is_empty());
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_said_and_nothing_of_it_arrives() {
    let (gateway, server) = world(Transport::HttpSse).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::WebSocket).await;
    let early = client.ask(json!(1), "tools/list", json!({})).await;
    assert_eq!(early["error"]["code"], -32603, "{early}");
    client.open("2025-06-18").await;
    let before = server.seen().len();
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    for (message, code) in [
        (json!([]), -32600),
        (json!([{"jsonrpc": "2.0", "id": 1, "method": "ping"}]), -32600),
        (json!({"jsonrpc": "1.0", "id": 1, "method": "ping"}), -32600),
        (json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}), -32602),
        (json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}), -32602),
    ] {
        client.say(message.clone()).await;
        let answer = client.hears(|message| message.get("error").is_some()).await;
        assert_eq!(answer["error"]["code"], code, "{message}: {answer}");
    }
    // An answer to no question.
    client.say(json!({"jsonrpc": "2.0", "id": "made-up", "result": {}})).await;
    // The same id twice.
    client.say(json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "search_wait"}})).await;
    server.hears(|message| message["params"]["name"] == "search_wait").await;
    let twice = client.ask(json!(5), "tools/call", json!({"name": "echo"})).await;
    assert_eq!(twice["error"]["code"], -32603, "{twice}");
    assert_eq!(server.seen().len(), before + 2, "initialized and the call that waits");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_session_and_its_room_is_free_again() {
    let (gateway, server) = world(Transport::Websocket).await;
    for transport in [ClientTransport::WebSocket, ClientTransport::HttpSse] {
        let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), transport).await;
        client.open("2025-06-18").await;
        drop(client);
    }
    let over = async {
        while gateway.records().iter().filter(|(decided, ended)| decided.method == "GET" && ended.is_some()).count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), over).await.expect("both streams end");
    assert_eq!(server.opened(), 2);
    let sessions = async {
        while gateway.sessions().await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), sessions).await.expect("both sessions end with their streams");
    let ended = gateway.records().into_iter().filter(|(decided, _)| decided.method == "GET");
    assert!(ended.map(|(_, ended)| ended.unwrap().outcome()).all(|outcome| matches!(outcome, Outcome::Ok | Outcome::Cancelled)));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_said_to_be_and_leaves_no_session() {
    let (gateway, mut server) = world(Transport::Websocket).await;
    server.url = "ws://127.0.0.1:1/ws".into();
    gateway.swap(&{
        let mut scope = scope(&server);
        scope.version += 1;
        scope
    });
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
    let answer = client.ask(json!(1), "initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}})).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert_eq!(client.session, None);
}
