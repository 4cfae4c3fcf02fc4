//! A server that knows only the modern era, in front of it clients of the legacy one, and modern ones over a connection that lasts.

use mcp_gateway::proto::config::v1::{Era, Transport};
use mcp_gateway::proto::node::v1::Outcome;
use serde_json::{Value, json};

use super::super::scope::{ENGINEER, GITHUB, Scope, bearer};
use super::super::world::Gateway;
use super::client::Client;
use super::modern_server::Modern;
use crate::transport::ClientTransport;

const CLIENTS: [ClientTransport; 3] = [ClientTransport::StreamableHttp, ClientTransport::HttpSse, ClientTransport::WebSocket];

fn scope(server: &Modern, era: Era) -> Scope {
    let mut scope = Scope::at(([127, 0, 0, 1], 1).into());
    let registered = scope.server(GITHUB);
    registered.transport = Transport::StreamableHttp.into();
    registered.era = era.into();
    registered.endpoints[0].url.clone_from(&server.url);
    scope
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn every_client_of_the_legacy_era_talks_to_a_server_of_the_modern_one() {
    for (client, era) in CLIENTS.into_iter().zip([Era::Modern, Era::Unspecified, Era::Modern]) {
        talk(client, era).await;
    }
}

async fn talk(transport: ClientTransport, era: Era) {
    let pair = format!("{transport:?}");
    let server = Modern::start().await;
    let gateway = Gateway::start(&scope(&server, era)).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), transport).await;
    let opened = client.open("2025-06-18").await;
    let result = &opened["result"];
    assert_eq!(
        (&result["protocolVersion"], &result["serverInfo"]["name"]),
        (&json!("2025-06-18"), &json!("modern")),
        "{pair}: {opened}"
    );
    assert_eq!((&result["instructions"], result["capabilities"].get("extensions")), (&json!("ask"), None), "{pair}");
    assert_eq!(client.ask(json!("p"), "ping", json!({})).await["result"], json!({}), "{pair}");

    // Ids and tokens come back as they were; who asks is told to the server.
    for (id, token) in [(json!(7), json!("t")), (json!("seven"), json!(0))] {
        let params = json!({"name": "echo", "arguments": {"say": "hi"}, "_meta": {"progressToken": token}});
        let answer = client.ask(id, "tools/call", params).await;
        assert_eq!(text(&answer), "hi", "{pair}: {answer}");
        let progress = client.hears(|message| message["method"] == "notifications/progress").await;
        assert_eq!(progress["params"]["progressToken"], token, "{pair}");
    }
    let call = &server.heard("tools/call")[0]["params"]["_meta"];
    assert_eq!(call["io.modelcontextprotocol/clientInfo"]["name"], "t", "{pair}");
    assert_eq!(call["io.modelcontextprotocol/clientCapabilities"], json!({"elicitation": {}}), "{pair}");

    // What the server wants to know is asked, and answered with the call sent again.
    client.say(json!({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {"name": "search_ask"}})).await;
    let question = client.hears(|message| message["method"] == "elicitation/create").await;
    let content = json!({"action": "accept", "content": {"name": "Ada"}});
    client.say(json!({"jsonrpc": "2.0", "id": question["id"], "result": content})).await;
    let answer = client.hears(|message| message["id"] == 8 && message.get("method").is_none()).await;
    assert_eq!(text(&answer), "Ada", "{pair}: {answer}");

    // What this client cannot be asked is said to its model.
    let answer = client.call(json!(9), "search_sample", json!({})).await;
    assert_eq!(answer["result"]["isError"], true, "{pair}: {answer}");
    assert!(text(&answer).contains("sampling/createMessage"), "{pair}: {answer}");

    // Arguments are repeated in headers where a tool wants it.
    let answer = client.call(json!(10), "search_region", json!({"region": "zürich", "say": "ok"})).await;
    assert_eq!(answer["error"]["code"], -32603, "the fixture compares without decoding: {answer}");
    let answer = client.call(json!(11), "search_region", json!({"region": "eu", "say": "ok"})).await;
    assert_eq!(text(&answer), "ok", "{pair}: {answer}");

    // Codes that this era does not know become one that it does; what policy denies stays denied.
    let answer = client.call(json!(12), "search_task", json!({})).await;
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["data"]["original"]["code"]),
        (&json!(-32603), &json!(-32021)),
        "{pair}"
    );
    let list = client.ask(json!(13), "tools/list", json!({})).await;
    let names: Vec<_> = list["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["echo", "search_region"], "{pair}: {list}");
    assert_eq!(client.call(json!(14), "delete_all", json!({})).await["error"]["code"], -32602, "{pair}");

    // Given up: the server sees its request hung up on.
    client.say(json!({"jsonrpc": "2.0", "id": "long", "method": "tools/call", "params": {"name": "search_wait"}})).await;
    let sent = server.hears(|message| message["params"]["name"] == "search_wait").await;
    client.say(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "long"}})).await;
    server.hears(|message| message["hung up on"] == sent["id"]).await;

    let records = gateway.records();
    let (decided, ended) = records.iter().find(|(decided, _)| decided.name == "search_ask").unwrap();
    assert_eq!(ended.as_ref().unwrap().outcome(), Outcome::Ok, "{pair}");
    assert_eq!(decided.client_protocol_version, "2025-06-18", "{pair}");
    assert_eq!((decided.client_era.as_str(), decided.server_era.as_str()), ("legacy", "modern"), "{pair}");
}

#[tokio::test]
async fn a_call_that_becomes_a_task_is_waited_for_asked_about_and_given_up_with_its_client() {
    let server = Modern::start().await;
    let gateway = Gateway::start(&scope(&server, Era::Modern)).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::WebSocket).await;
    client.open("2025-11-25").await;
    let call = |id: &str, job: &str| {
        let params = json!({"name": "search_job", "arguments": {"job": job}, "_meta": {"progressToken": id}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    client.say(call("first", "ask")).await;
    let progress = client.hears(|message| message["method"] == "notifications/progress").await;
    assert_eq!(progress["params"]["progressToken"], "first");
    assert_eq!(progress["params"]["message"], "busy");
    let question = client.hears(|message| message["method"] == "elicitation/create").await;
    let content = json!({"action": "accept", "content": {"name": "Ada"}});
    client.say(json!({"jsonrpc": "2.0", "id": question["id"], "result": content})).await;
    let answer = client.hears(|message| message["id"] == "first" && message.get("method").is_none()).await;
    assert_eq!(text(&answer), "Ada", "{answer}");
    assert_eq!(server.heard("tools/call").len(), 2, "the first was refused, and had not run");
    assert_eq!(server.heard("tasks/update").len(), 1);

    client.say(call("second", "fail")).await;
    let answer = client.hears(|message| message["id"] == "second" && message.get("method").is_none()).await;
    assert_eq!(answer["error"], json!({"code": -32000, "message": "it broke"}), "{answer}");

    client.say(call("third", "endless")).await;
    server.hears(|message| message["method"] == "tasks/get" && message["params"]["taskId"] == "endless").await;
    client.say(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "third"}})).await;
    let ended = server.hears(|message| message["method"] == "tasks/cancel").await;
    assert_eq!(ended["params"]["taskId"], "endless");
}

#[tokio::test]
async fn subscriptions_are_one_stream_that_follows_them() {
    let server = Modern::start().await;
    let gateway = Gateway::start(&scope(&server, Era::Modern)).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::WebSocket).await;
    client.open("2025-11-25").await;
    for uri in ["repo://acme/a", "repo://acme/b"] {
        let answer = client.ask(json!(uri), "resources/subscribe", json!({"uri": uri})).await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    server.change("repo://acme/b");
    let update = client.hears(|message| message["method"] == "notifications/resources/updated").await;
    assert_eq!(update["params"], json!({"uri": "repo://acme/b"}), "without the number of the stream");
    let answer = client.ask(json!("u"), "resources/unsubscribe", json!({"uri": "repo://acme/b"})).await;
    assert_eq!(answer["result"], json!({}));
    server.change("repo://acme/b");
    server.change("repo://acme/a");
    let update = client.hears(|message| message["method"] == "notifications/resources/updated").await;
    assert_eq!(update["params"], json!({"uri": "repo://acme/a"}));
    let last = server.heard("subscriptions/listen").pop().unwrap();
    assert_eq!(last["params"]["notifications"], json!({"toolsListChanged": true, "resourceSubscriptions": ["repo://acme/a"]}));
}

#[tokio::test]
async fn log_messages_come_once_a_level_is_set() {
    let server = Modern::start().await;
    let gateway = Gateway::start(&scope(&server, Era::Modern)).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::HttpSse).await;
    client.open("2024-11-05").await;
    assert_eq!(client.ask(json!(1), "logging/setLevel", json!({"level": "loud"})).await["error"]["code"], -32602);
    client.call(json!(2), "echo", json!({"say": "x"})).await;
    assert_eq!(client.ask(json!(3), "logging/setLevel", json!({"level": "info"})).await["result"], json!({}));
    client.call(json!(4), "echo", json!({"say": "x"})).await;
    client.hears(|message| message["method"] == "notifications/message").await;
    let levels: Vec<_> = server
        .heard("tools/call")
        .iter()
        .map(|call| call["params"]["_meta"]["io.modelcontextprotocol/logLevel"].clone())
        .collect();
    assert_eq!(levels, [Value::Null, json!("info")]);
}

/// A modern client's words.
fn modern(id: Value, method: &str, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

#[tokio::test]
async fn a_modern_client_on_a_socket_has_an_exchange_for_each_request() {
    let server = Modern::start().await;
    let gateway = Gateway::start(&scope(&server, Era::Unspecified)).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::WebSocket).await;
    client.say(modern(json!("d"), "server/discover", json!({}))).await;
    let discovered = client.hears(|message| message["id"] == "d").await;
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));

    let params = json!({"name": "echo", "arguments": {"say": "hi"}, "_meta": {"progressToken": "t"}});
    client.say(modern(json!(1), "tools/call", params)).await;
    let progress = client.hears(|message| message["method"] == "notifications/progress").await;
    assert_eq!(progress["params"]["progressToken"], "t");
    assert_eq!(text(&client.hears(|message| message["id"] == 1).await), "hi");

    client.say(modern(json!(2), "tools/call", json!({"name": "search_ask"}))).await;
    let asked = client.hears(|message| message["id"] == 2).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");

    client.say(modern(json!(3), "tools/call", json!({"name": "delete_all"}))).await;
    assert_eq!(client.hears(|message| message["id"] == 3).await["error"]["code"], -32602);
    client.say(modern(json!(4), "ping", json!({}))).await;
    assert_eq!(client.hears(|message| message["id"] == 4).await["error"]["code"], -32601, "not of this era");

    // Ids are used once at a time; giving up is hanging up on the server.
    for _ in 0..2 {
        client.say(modern(json!("long"), "tools/call", json!({"name": "search_wait"}))).await;
    }
    assert_eq!(client.hears(|message| message["id"] == "long").await["error"]["code"], -32600);
    let sent = server.hears(|message| message["params"]["name"] == "search_wait").await;
    client.say(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "long"}})).await;
    server.hears(|message| message["hung up on"] == sent["id"]).await;

    let records = gateway.records();
    let (decided, ended) = records.iter().find(|(decided, _)| decided.name == "echo").unwrap();
    assert_eq!(ended.as_ref().unwrap().outcome(), Outcome::Ok);
    assert_eq!((decided.client_transport.as_str(), decided.client_era.as_str()), ("websocket", "modern"));
}
