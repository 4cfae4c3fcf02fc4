//! JSON-RPC over POST: without sessions, one by one or together.

use http::Method;
use mcp_gateway::proto::config::v1::Transport;
use serde_json::{Value, json};

use super::super::scope::{ENGINEER, GITHUB, bearer};
use super::super::world::{Answer, Gateway};
use super::conversation::scope;
use super::server::Server;

async fn post(gateway: &Gateway, path: &str, body: Value) -> Answer {
    let auth = [("authorization", &*bearer(ENGINEER))];
    gateway.ask(gateway.request(Method::POST, &format!("/servers/{GITHUB}/{path}"), &auth, body.to_string())).await
}

fn call(id: impl Into<Value>, tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": {"name": tool, "arguments": {"say": "hi"}}})
}

#[tokio::test]
async fn requests_are_answered_without_a_session_and_share_one_of_the_gateways() {
    for kind in [Transport::Websocket, Transport::HttpSse, Transport::StreamableHttp, Transport::JsonRpc] {
        let server = Server::start(kind).await;
        let gateway = Gateway::start(&scope(&server)).await;
        for id in [json!(1), json!("one"), json!(1)] {
            let answer = post(&gateway, "rpc", call(id.clone(), "echo")).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &id), "{kind:?} {answer:?}");
            assert_eq!(answer.json()["result"]["content"][0]["text"], "hi", "{kind:?}");
            assert_eq!(gateway.record(answer.request_id()).0.client_transport, "json-rpc");
        }
        let note = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
        assert_eq!(post(&gateway, "rpc", note).await.status, 202, "{kind:?}");
        assert_eq!((server.opened(), server.heard("initialize").len()), (1, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn a_batch_is_judged_one_by_one_and_answered_in_order() {
    let server = Server::start(Transport::Websocket).await;
    let gateway = Gateway::start(&scope(&server)).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let batch = json!([call(1, "echo"), call("two", "delete_all"), note, call(1, "echo")]);
    let answer = post(&gateway, "rpc/batch", batch).await.json();
    let ids: Vec<_> = answer.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!("two"), json!(1)]);
    assert_eq!(answer[1]["error"]["code"], -32602);
    let many = |count: usize| Value::from((0..count).map(|id| call(id, "echo")).collect::<Vec<_>>());
    assert_eq!(post(&gateway, "rpc/batch", many(100)).await.json().as_array().unwrap().len(), 100);
    for bad in [many(101), json!([]), json!([[call(1, "echo")]])] {
        let answer = post(&gateway, "rpc/batch", bad).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, -32600), "{answer:?}");
    }
    let answer = post(&gateway, "rpc", json!([call(1, "echo")])).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, -32600), "{answer:?}");
    let answer = post(&gateway, "rpc", json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, -32600), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_asks_is_told_that_nobody_can_be_asked() {
    let server = Server::start(Transport::Websocket).await;
    let gateway = Gateway::start(&scope(&server)).await;
    let asking = post(&gateway, "rpc", call(1, "search_ask"));
    let (answer, told) = tokio::join!(asking, server.hears(|message| message["id"] == "ask-1"));
    assert_eq!(told["error"]["code"], -32601);
    assert!(answer.json().get("result").is_some(), "{answer:?}");
}

#[tokio::test]
async fn introspection_shows_what_the_caller_may_use() {
    let server = Server::start(Transport::HttpSse).await;
    let gateway = Gateway::start(&scope(&server)).await;
    let auth = [("authorization", &*bearer(ENGINEER)), ("accept", "application/json")];
    let answer = gateway.ask(gateway.request(Method::GET, &format!("/servers/{GITHUB}/rpc/introspection"), &auth, "")).await;
    assert_eq!(answer.json()["tools"], json!([{"name": "echo"}]), "{answer:?}");
    assert_eq!(answer.json()["prompts"], json!([]), "the server has none: {answer:?}");
}
