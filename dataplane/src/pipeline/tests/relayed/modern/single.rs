//! Requests that have a session each: it is over when the request is, and not before.

use std::time::Duration;

use mcp_gateway::proto::config::v1::{LegacySessions, Transport};
use serde_json::json;

use super::super::super::scope::GITHUB;
use super::super::super::world::Gateway;
use super::super::server::Server;
use super::client::{Client, scope};
use super::questions::{SERVERS, again, asks, named, text};

async fn world(kind: Transport) -> (Gateway, Server) {
    let server = Server::start(kind).await;
    let mut scope = scope(&server);
    scope.server(GITHUB).legacy_sessions = LegacySessions::PerCall.into();
    (Gateway::with(Some(&scope), |config| config.timeouts.stream_idle = Duration::from_secs(30)).await, server)
}

/// Waits until the gateway has no session either.
async fn is_over(gateway: &Gateway, server: &Server) {
    server.is_left(0).await;
    while gateway.sessions().await > 0 {}
}

#[tokio::test]
async fn calls_one_after_the_other_have_a_session_each_that_is_over_at_the_server() {
    for kind in SERVERS {
        let (gateway, server) = world(kind).await;
        let client = Client::of(&gateway);
        let silent = Client { capabilities: json!({}), ..client.clone() };
        for (count, client) in [&client, &client, &silent, &silent].into_iter().enumerate() {
            let answer = client.call(json!(count), "echo", json!({"say": "hi"})).await;
            assert_eq!(text(&answer), "hi", "{kind:?}: {answer}");
            is_over(&gateway, &server).await;
            assert_eq!((server.opened(), server.heard("initialize").len()), (count + 1, count + 1), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn requests_that_are_no_calls_leave_no_session_behind() {
    let (gateway, server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    for (method, opened) in [("server/discover", 1), ("tools/list", 2), ("prompts/list", 3)] {
        client.ask(json!(method), method, json!({})).await;
        is_over(&gateway, &server).await;
        assert_eq!(server.opened(), opened, "{method}");
    }
}

#[tokio::test]
async fn a_call_that_waits_for_answers_keeps_its_session_until_it_is_over() {
    for kind in SERVERS {
        let (gateway, server) = world(kind).await;
        let client = Client::of(&gateway);
        let params = asks(json!(["elicitation/create"]));
        let asked = client.ask(json!(1), "tools/call", params.clone()).await;
        assert_eq!(asked["result"]["resultType"], "input_required", "{kind:?}: {asked}");
        // Another call meanwhile is another session's.
        assert_eq!(text(&client.call(json!(2), "echo", json!({"say": "hi"})).await), "hi", "{kind:?}");
        server.is_left(1).await;
        let answered = client.ask(json!(3), "tools/call", again(params, &asked, json!({"q1": named("ada")}))).await;
        assert_eq!(text(&answered), "ada", "{kind:?}: {answered}");
        is_over(&gateway, &server).await;
        assert_eq!((server.opened(), server.heard("tools/call").len()), (2, 2), "{kind:?}");
    }
}

#[tokio::test]
async fn a_call_whose_client_never_comes_back_and_one_that_is_given_up_end_their_sessions() {
    let server = Server::start(Transport::Websocket).await;
    let mut scope = scope(&server);
    scope.server(GITHUB).legacy_sessions = LegacySessions::PerCall.into();
    let gateway = Gateway::with(Some(&scope), |config| config.timeouts.stream_idle = Duration::from_secs(1)).await;
    let client = Client::of(&gateway);
    client.ask(json!(1), "tools/call", asks(json!(["elicitation/create"]))).await;
    // Over a socket, the end of the connection says that nobody waits any more.
    is_over(&gateway, &server).await;

    let waiting = client.send(json!("w"), "tools/call", json!({"name": "search_wait"}));
    tokio::select! {
        _ = server.hears(|message| message["params"]["name"] == "search_wait") => {}
        _ = waiting => panic!("nothing answers"),
    }
    is_over(&gateway, &server).await;
    assert_eq!(server.opened(), 2);
}
