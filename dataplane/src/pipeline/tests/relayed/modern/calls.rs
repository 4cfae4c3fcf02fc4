//! Requests that are answered without a question, and those that are given up.

use mcp_gateway::proto::config::v1::{Era, Transport};
use mcp_gateway::proto::node::v1::Outcome;
use serde_json::{Value, json};

use super::super::super::scope::{GITHUB, Scope};
use super::super::super::sessions::stateless;
use super::super::super::world::{self, Gateway, Upstream, result};
use super::client::{Client, world};

const SERVERS: [Transport; 3] = [Transport::StreamableHttp, Transport::HttpSse, Transport::Websocket];

#[tokio::test]
async fn lists_and_calls_of_every_server_are_answered_in_modern_words() {
    for kind in SERVERS {
        let (gateway, server) = world(kind).await;
        let client = Client::of(&gateway);
        let list = client.ask(json!("l"), "tools/list", json!({})).await;
        let info = json!({"io.modelcontextprotocol/serverInfo": {"name": "fixture", "version": "1"}});
        let expected =
            json!({"tools": [{"name": "echo"}], "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": info});
        assert_eq!(list["result"], expected, "{kind:?}");

        let arguments = json!({"say": "hi"});
        let answer = client.call(json!(1), "echo", arguments.clone()).await;
        assert_eq!(answer["result"]["content"][0]["text"], "hi", "{kind:?}: {answer}");
        assert_eq!(answer["result"]["resultType"], "complete", "{kind:?}: {answer}");
        let sent = server.hears(|message| message["method"] == "tools/call").await;
        assert_eq!(sent["params"], json!({"name": "echo", "arguments": arguments, "_meta": {}}), "{kind:?}");

        let refused = client.call(json!(2), "delete_all", json!({})).await;
        assert_eq!(refused["error"]["code"], -32602, "{kind:?}: {refused}");
        assert!(!server.seen().iter().any(|message| message["params"]["name"] == "delete_all"), "{kind:?}");
        assert_eq!((server.opened(), server.heard("initialize").len()), (1, 1), "{kind:?}: one session for all");
        let told = &server.heard("initialize")[0]["params"];
        assert_eq!(
            told["capabilities"],
            json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}),
            "{kind:?}"
        );
        assert_eq!(told["clientInfo"]["name"], "mcpgw", "{kind:?}");
    }
}

#[tokio::test]
async fn a_record_says_that_the_call_crossed_eras() {
    let (gateway, _server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    let answer = client.send(json!(1), "tools/call", json!({"name": "echo", "arguments": {"say": "hi"}})).await;
    let (id, status) = (answer.request_id.clone(), answer.status);
    answer.all().await;
    let (decided, ended) = gateway.record(&id);
    assert_eq!((decided.client_era.as_str(), decided.server_era.as_str()), ("modern", "legacy"));
    assert_eq!((decided.client_protocol_version.as_str(), decided.server_transport.as_str()), ("2026-07-28", "websocket"));
    assert_eq!((decided.name.as_str(), ended.outcome(), ended.status, status), ("echo", Outcome::Ok, 200, 200));
}

#[tokio::test]
async fn discovery_says_what_the_server_said_when_it_was_greeted() {
    let (gateway, server) = world(Transport::HttpSse).await;
    let answer = Client::of(&gateway).send(json!("d"), "server/discover", json!({})).await;
    let id = answer.request_id.clone();
    let said = answer.all().await;
    let expected = json!({
        "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}},
        "instructions": "Be kind.",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fixture", "version": "1"}},
    });
    assert_eq!((&said[0]["id"], &said[0]["result"]), (&json!("d"), &expected));
    assert_eq!(gateway.record(&id).0.server_era, "legacy");
    assert!(server.heard("server/discover").is_empty());
}

#[tokio::test]
async fn progress_has_the_token_of_its_request_though_two_clients_chose_the_same() {
    let (gateway, server) = world(Transport::Websocket).await;
    // Who cannot be asked shares one session.
    let mut one = Client { capabilities: json!({}), ..Client::of(&gateway) };
    one.token = Some(json!("t"));
    let mut other = one.clone();
    other.token = Some(json!(7));
    let call = |say: &str| json!({"name": "echo", "arguments": {"say": say}});
    let (first, second, third) = tokio::join!(
        async { one.send(json!(1), "tools/call", call("a")).await.all().await },
        async { one.send(json!(1), "tools/call", call("b")).await.all().await },
        async { other.send(json!("1"), "tools/call", call("c")).await.all().await },
    );
    for (said, token, id, text) in
        [(first, json!("t"), json!(1), "a"), (second, json!("t"), json!(1), "b"), (third, json!(7), json!("1"), "c")]
    {
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0]["params"]["progressToken"], token);
        assert_eq!((&said[1]["id"], &said[1]["result"]["content"][0]["text"]), (&id, &json!(text)));
    }
    assert_eq!(server.opened(), 1);
    let tokens: Vec<_> = server.heard("tools/call").iter().map(|call| call["params"]["_meta"]["progressToken"].clone()).collect();
    assert!(tokens.iter().enumerate().all(|(place, token)| !tokens[..place].contains(token)), "{tokens:?}");
}

#[tokio::test]
async fn log_messages_come_to_who_asked_for_them_and_only_those_that_matter_enough() {
    let (gateway, server) = world(Transport::Websocket).await;
    let mut client = Client::of(&gateway);
    let call = json!({"name": "search_log"});
    let silent = client.send(json!(1), "tools/call", call.clone()).await.all().await;
    assert_eq!(silent.len(), 1, "{silent:?}");
    assert!(server.heard("logging/setLevel").is_empty());
    client.level = Some("warning");
    for id in [2, 3] {
        let said = client.send(json!(id), "tools/call", call.clone()).await.all().await;
        assert_eq!((said.len(), &said[0]["params"]["level"]), (2, &json!("error")), "{said:?}");
    }
    let levels: Vec<_> = server.heard("logging/setLevel").iter().map(|told| told["params"]["level"].clone()).collect();
    assert_eq!(levels, ["warning"], "told once");
}

#[tokio::test]
async fn codes_are_those_of_the_clients_era_with_their_status() {
    let (gateway, server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    let missing = client.send(json!(1), "resources/read", json!({"uri": "repo://acme/x"})).await;
    let (status, id) = (missing.status, missing.request_id.clone());
    assert_eq!((status, &missing.all().await[0]["error"]["code"]), (200, &json!(-32602)));
    assert_eq!(gateway.record(&id).1.error_code, -32602);
    let unknown = client.send(json!(2), "prompts/list", json!({})).await;
    let (status, id) = (unknown.status, unknown.request_id.clone());
    assert_eq!((status, &unknown.all().await[0]["error"]["code"]), (404, &json!(-32601)));
    assert_eq!(gateway.record(&id).1.status, 404);
    let tasks = client.send(json!(3), "tasks/get", json!({"taskId": "x"})).await;
    assert_eq!(tasks.status, 400, "its header is missing");
    let tasks = client.send(json!(4), "tasks/list", json!({})).await;
    assert_eq!((tasks.status, &tasks.all().await[0]["error"]["code"]), (404, &json!(-32601)));
    assert!(server.heard("tasks/list").is_empty(), "legacy tasks are others");
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_call_up() {
    for kind in SERVERS {
        let (gateway, server) = world(kind).await;
        let client = Client::of(&gateway);
        let waiting = client.send(json!("w"), "tools/call", json!({"name": "search_wait"}));
        let sent = tokio::select! {
            sent = server.hears(|message| message["params"]["name"] == "search_wait") => sent,
            _ = waiting => panic!("nothing answers"),
        };
        let cancelled = server.hears(|message| message["method"] == "notifications/cancelled").await;
        assert_eq!(cancelled["params"]["requestId"], sent["id"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_service_that_knows_no_handshake_is_called_without_one() {
    let upstream = Upstream::start(|seen| {
        let message: Value = serde_json::from_slice(&seen.body).unwrap();
        if message["method"] != "tools/call" {
            let error = json!({"code": -32601, "message": "no such method"});
            return world::json(json!({"jsonrpc": "2.0", "id": message["id"], "error": error}).to_string());
        }
        result(seen, r#"{"content":[]}"#)
    })
    .await;
    let mut scope = Scope::at(upstream.address);
    scope.server(GITHUB).transport = Transport::JsonRpc.into();
    scope.server(GITHUB).era = Era::Legacy.into();
    let gateway = Gateway::start(&scope).await;
    let client = Client::of(&gateway);
    let discovered = client.ask(json!(1), "server/discover", json!({})).await;
    assert_eq!(discovered["result"]["capabilities"], json!({"tools": {}}), "{discovered}");
    let answer = client.call(json!(2), "echo", json!({})).await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
}

#[tokio::test]
async fn a_server_whose_greeting_names_no_version_is_not_spoken_to() {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let mut scope = Scope::at(upstream.address);
    scope.server(GITHUB).era = Era::Legacy.into();
    let gateway = Gateway::start(&scope).await;
    let answer = Client::of(&gateway).send(json!(1), "tools/list", json!({})).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.all().await[0]["error"]["code"], -32603);
    assert_eq!(upstream.seen().iter().filter(|seen| seen.method == http::Method::POST).count(), 1);
}

#[tokio::test]
async fn a_server_without_sessions_that_has_no_stream_either_is_greeted_once() {
    let upstream = Upstream::start(stateless).await;
    let mut scope = Scope::at(upstream.address);
    let registered = scope.server(GITHUB);
    (registered.era, registered.transport) = (Era::Legacy.into(), Transport::StreamableHttp.into());
    let gateway = Gateway::start(&scope).await;
    let client = Client::of(&gateway);
    for number in 1..=3 {
        let answer = client.call(json!(number), "search_code", json!({})).await;
        assert_eq!(answer["result"]["content"], json!([]), "{answer}");
    }
    let greeted = |seen: &world::Seen| seen.method == http::Method::POST && seen.json()["method"] == "initialize";
    assert_eq!(
        upstream.seen().iter().filter(|seen| greeted(seen)).count(),
        1,
        "its refusal of a stream is not the end of a session"
    );
}
