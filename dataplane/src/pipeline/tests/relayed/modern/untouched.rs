//! Modern clients of a modern server over a WebSocket: everything passes as it is, but for the numbers of requests.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use mcp_gateway::proto::config::v1::{Era, Transport};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::super::super::scope::{GITHUB, Scope};
use super::super::super::world::Gateway;
use super::client::Client;

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// What the server heard, of all connections.
type Seen = Arc<watch::Sender<Vec<Value>>>;

/// A server of the modern era alone.
async fn start() -> (String, Seen) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", socket.local_addr().unwrap());
    let seen = Seen::new(watch::Sender::new(Vec::new()));
    let shared = seen.clone();
    #[allow(clippy::disallowed_methods)] // ends with the test's runtime
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let seen = shared.clone();
            #[allow(clippy::disallowed_methods)] // ends with the connection
            tokio::spawn(async move {
                let mut stream = accept_async(stream).await.unwrap();
                while let Some(Ok(Message::Text(text))) = stream.next().await {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    seen.send_modify(|seen| seen.push(message.clone()));
                    for said in answers(&message) {
                        stream.send(Message::text(said.to_string())).await.unwrap_or_default();
                    }
                }
            });
        }
    });
    (url, seen)
}

pub fn answers(message: &Value) -> Vec<Value> {
    let (id, params) = (&message["id"], &message["params"]);
    let result = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let notify = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    match (message["method"].as_str().unwrap_or_default(), params["name"].as_str()) {
        ("server/discover", _) => {
            let capabilities = json!({"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}});
            vec![result(json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities}))]
        }
        ("tools/call", Some("search_ask")) if params["inputResponses"].is_null() => {
            let ask = json!({"method": "roots/list"});
            vec![result(json!({"resultType": "input_required", "inputRequests": {"mine": ask}, "requestState": "my own"}))]
        }
        ("tools/call", Some("search_ask")) => {
            vec![result(json!({"resultType": "complete", "state": params["requestState"], "content": []}))]
        }
        ("tools/call", Some("search_wait")) => vec![],
        ("tools/call", _) => {
            let token = &params["_meta"]["progressToken"];
            let progress = notify("notifications/progress", json!({"progressToken": token, "progress": 1}));
            vec![progress, result(json!({"resultType": "task", "taskId": "t1", "big": 1.0}))]
        }
        ("tasks/get", _) => vec![result(json!({"resultType": "complete", "taskId": params["taskId"]}))],
        ("subscriptions/listen", _) => {
            let meta = json!({SUBSCRIPTION: id});
            let acknowledged = json!({"_meta": meta, "notifications": params["notifications"]});
            vec![
                notify("notifications/subscriptions/acknowledged", acknowledged),
                notify("notifications/tools/list_changed", json!({"_meta": meta})),
                result(json!({"resultType": "complete", "_meta": meta})),
            ]
        }
        (_, _) if id.is_null() => vec![],
        _ => vec![json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}})],
    }
}

async fn world() -> (Gateway, Seen) {
    let (url, seen) = start().await;
    let mut scope = Scope::at(([127, 0, 0, 1], 1).into());
    scope.server(GITHUB).transport = Transport::Websocket.into();
    scope.server(GITHUB).era = Era::Unspecified.into();
    scope.server(GITHUB).endpoints[0].url = url;
    (Gateway::start(&scope).await, seen)
}

#[tokio::test]
async fn what_only_the_modern_era_has_arrives_on_both_sides() {
    let (gateway, seen) = world().await;
    let client = Client { token: Some(json!("mine")), ..Client::of(&gateway) };
    let discovered = client.ask(json!("d"), "server/discover", json!({})).await;
    assert!(discovered["result"]["capabilities"]["extensions"].is_object(), "{discovered}");
    let said = client.send(json!(1), "tools/call", json!({"name": "echo", "arguments": {}})).await.all().await;
    assert_eq!(said[0]["params"]["progressToken"], "mine", "{said:?}");
    assert_eq!((&said[1]["id"], &said[1]["result"]["taskId"]), (&json!(1), &json!("t1")));
    let params = json!({"name": "search_ask", "arguments": {}});
    let asked = client.ask(json!(2), "tools/call", params.clone()).await;
    assert_eq!(asked["result"]["inputRequests"], json!({"mine": {"method": "roots/list"}}));
    let mut retry = params;
    retry["requestState"] = asked["result"]["requestState"].clone();
    retry["inputResponses"] = json!({"mine": {"roots": []}});
    assert_eq!(client.ask(json!(3), "tools/call", retry).await["result"]["state"], "my own", "states are the server's");
    let heard = seen.borrow().clone();
    let call = heard.iter().find(|message| message["params"]["name"] == "echo").unwrap();
    assert_eq!(call["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "t", "the client's own");
    let unknown = client.send(json!(4), "prompts/list", json!({})).await;
    let status = unknown.status;
    assert_eq!((status, &unknown.all().await[0]["error"]["code"]), (404, &json!(-32601)));
    let handshakes = heard.iter().filter(|message| message["method"] == "initialize").count();
    assert_eq!(handshakes, 1, "only to find out whether it knows one");
}

#[tokio::test]
async fn streams_of_changes_keep_the_clients_number_and_what_is_given_up_is_cancelled() {
    let (gateway, seen) = world().await;
    let client = Client::of(&gateway);
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let (one, other) =
        tokio::join!(async { client.send(json!("one"), "subscriptions/listen", filter.clone()).await.all().await }, async {
            client.send(json!(2), "subscriptions/listen", filter.clone()).await.all().await
        },);
    for (said, id) in [(one, json!("one")), (other, json!(2))] {
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[..2].iter().all(|told| told["params"]["_meta"][SUBSCRIPTION] == id), "{said:?}");
        assert_eq!((&said[2]["id"], &said[2]["result"]["_meta"][SUBSCRIPTION]), (&id, &id));
    }
    let mut watched = seen.subscribe();
    let waiting = client.send(json!("w"), "tools/call", json!({"name": "search_wait"}));
    let sent = tokio::select! {
        heard = watched.wait_for(|seen| seen.iter().any(|it| it["params"]["name"] == "search_wait")) => {
            heard.unwrap().iter().find(|it| it["params"]["name"] == "search_wait").unwrap()["id"].clone()
        }
        _ = waiting => panic!("nothing answers"),
    };
    let cancelled =
        |seen: &Vec<Value>| seen.iter().any(|it| it["method"] == "notifications/cancelled" && it["params"]["requestId"] == sent);
    let heard = tokio::time::timeout(std::time::Duration::from_secs(20), watched.wait_for(|seen| cancelled(seen)));
    heard.await.expect("the server hears it").unwrap();
}
