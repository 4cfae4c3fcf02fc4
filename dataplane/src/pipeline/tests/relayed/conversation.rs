//! The same conversation over every pair of transports.

use mcp_gateway::proto::config::v1::{Era, Transport};
use mcp_gateway::proto::node::v1::Outcome;
use serde_json::{Value, json};

use super::super::scope::{ENGINEER, GITHUB, Scope, bearer};
use super::super::world::Gateway;
use super::client::Client;
use super::server::Server;
use crate::transport::ClientTransport;

pub fn scope(server: &Server) -> Scope {
    let mut scope = Scope::at(([127, 0, 0, 1], 1).into());
    let registered = scope.server(GITHUB);
    registered.transport = server.transport.into();
    registered.era = Era::Unspecified.into();
    registered.endpoints[0].url.clone_from(&server.url);
    scope
}

const CLIENTS: [ClientTransport; 3] = [ClientTransport::StreamableHttp, ClientTransport::HttpSse, ClientTransport::WebSocket];
const SERVERS: [Transport; 3] = [Transport::HttpSse, Transport::Websocket, Transport::StreamableHttp];

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn every_client_talks_to_every_server() {
    for client in CLIENTS {
        for server in SERVERS {
            if (client, server) != (ClientTransport::StreamableHttp, Transport::StreamableHttp) {
                talk(client, server).await;
            }
        }
    }
}

async fn talk(transport: ClientTransport, kind: Transport) {
    let pair = format!("{transport:?} to {kind:?}");
    let server = Server::start(kind).await;
    let gateway = Gateway::start(&scope(&server)).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), transport).await;
    let opened = client.open("2025-06-18").await;
    assert_eq!(opened["result"]["serverInfo"]["name"], "fixture", "{pair}: {opened}");

    // Ids and tokens come back as they were, whatever their type.
    for (id, token) in [(json!(7), json!("t")), (json!("seven"), json!(0)), (json!("7"), json!("7"))] {
        let params = json!({"name": "echo", "arguments": {"say": "hi"}, "_meta": {"progressToken": token}});
        let answer = client.ask(id, "tools/call", params).await;
        assert_eq!(text(&answer), "hi", "{pair}: {answer}");
        let progress = client.hears(|message| message["method"] == "notifications/progress").await;
        assert_eq!(progress["params"]["progressToken"], token, "{pair}");
    }

    // A question of the server's in the middle of a call.
    client.say(json!({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {"name": "search_ask"}})).await;
    let question = client.hears(|message| message["method"] == "elicitation/create").await;
    let content = json!({"action": "accept", "content": {"name": "Ada"}});
    client.say(json!({"jsonrpc": "2.0", "id": question["id"], "result": content})).await;
    let answer = client.hears(|message| message["id"] == 8 && message.get("method").is_none()).await;
    assert_eq!(text(&answer), "Ada", "{pair}");

    // What may not be called is not seen, and its call goes nowhere.
    let list = client.ask(json!(9), "tools/list", json!({})).await;
    assert_eq!(list["result"]["tools"], json!([{"name": "echo"}]), "{pair}: {list}");
    let refused = client.call(json!(10), "delete_all", json!({})).await;
    assert_eq!(refused["error"]["code"], -32602, "{pair}: {refused}");
    assert!(!server.seen().iter().any(|message| message["params"]["name"] == "delete_all"), "{pair}");

    // A call that is given up.
    client.say(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "nothing"}})).await;
    let waiting = json!({"jsonrpc": "2.0", "id": "long", "method": "tools/call", "params": {"name": "search_wait"}});
    client.say(waiting).await;
    let sent = server.hears(|message| message["params"]["name"] == "search_wait").await;
    client.say(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "long"}})).await;
    let cancelled = server.hears(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], sent["id"], "{pair}");

    // An answer to nothing and progress about nothing do not arrive; errors of the server do.
    let answer = client.call(json!(11), "search_odd", json!({})).await;
    assert!(answer.get("result").is_some(), "{pair}");
    let error = client.ask(json!(12), "resources/list", json!({})).await;
    assert_eq!((&error["error"]["code"], &error["id"]), (&json!(-32601), &json!(12)), "{pair}: {error}");
    assert_eq!(server.opened(), 1, "{pair}");
    records(&gateway, &pair, transport);
}

fn records(gateway: &Gateway, pair: &str, transport: ClientTransport) {
    let records = gateway.records();
    let of = |name: &str| {
        let (decided, ended) = records.iter().find(|(decided, _)| decided.name == name).expect(name);
        (decided.clone(), ended.clone().unwrap_or_else(|| panic!("{pair}: {name} has no end")))
    };
    let (decided, ended) = of("search_ask");
    assert_eq!((ended.outcome(), decided.client_transport.as_str()), (Outcome::Ok, transport.as_str()), "{pair}");
    assert_eq!(decided.client_protocol_version, "2025-06-18", "{pair}");
    assert_eq!(of("search_wait").1.outcome(), Outcome::Cancelled, "{pair}");
    assert_eq!(of("delete_all").1.outcome(), Outcome::Denied, "{pair}");
}

#[tokio::test]
async fn news_goes_to_whoever_listens_and_a_broken_stream_is_taken_up_where_it_broke() {
    let server = Server::start(Transport::Websocket).await;
    let gateway = Gateway::start(&scope(&server)).await;
    let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
    client.open("2025-11-25").await;
    // Nobody listens: it comes with the call.
    client.call(json!(1), "search_news", json!({})).await;
    client.hears(|message| message["method"] == "notifications/tools/list_changed").await;
    let first = client.events.lock().unwrap().first().cloned().expect("the stream says where it begins");
    let mut again = client.listen(Some(&first)).await;
    let replayed = [again.recv().await.unwrap(), again.recv().await.unwrap()];
    assert_eq!(replayed[0]["method"], "notifications/tools/list_changed");
    assert_eq!(replayed[1]["id"], 1);
    assert_eq!(again.recv().await, None, "nothing else was on that stream");
    // Somebody listens: it comes there.
    client.listen_too().await;
    client.call(json!(2), "search_news", json!({})).await;
    client.hears(|message| message["method"] == "notifications/tools/list_changed").await;
}

#[tokio::test]
async fn how_a_server_is_spoken_to_is_found_out() {
    for kind in [Transport::HttpSse, Transport::StreamableHttp] {
        let server = Server::start(kind).await;
        let mut scope = scope(&server);
        scope.server(GITHUB).transport = Transport::Unspecified.into();
        let gateway = Gateway::start(&scope).await;
        let mut client = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
        client.open("2025-06-18").await;
        let answer = client.call(json!(1), "echo", json!({"say": "hi"})).await;
        assert_eq!(text(&answer), "hi", "{kind:?}");
    }
}
