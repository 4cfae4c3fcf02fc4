//! Answers that come late, twice, changed, to somebody else's call or to one that is gone: each gets what the documentation says, and no
//! tool runs twice.

use std::time::Duration;

use mcp_gateway::proto::config::v1::Transport;
use serde_json::{Value, json};

use super::super::super::scope::{COLLEAGUE, bearer};
use super::super::super::world::Gateway;
use super::super::server::Server;
use super::client::{Client, scope, world};
use super::questions::{again, asks, named, text};

fn code(answer: &Value) -> &Value {
    &answer["error"]["code"]
}

#[tokio::test]
async fn an_answer_that_comes_twice_is_taken_once() {
    let (gateway, server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    let params = asks(json!(["elicitation/create", "elicitation/create"]));
    let asked = client.ask(json!(1), "tools/call", params.clone()).await;
    let retry = again(params.clone(), &asked, json!({"q1": named("ada")}));
    let asked_again = client.ask(json!(2), "tools/call", retry.clone()).await;
    assert_eq!(code(&client.ask(json!(3), "tools/call", retry.clone()).await), -32603, "while the call waits for another answer");
    let answered = client.ask(json!(4), "tools/call", again(params, &asked_again, json!({"q2": named("bob")}))).await;
    assert_eq!(text(&answered), "ada,bob", "whoever came twice disturbed nothing: {answered}");
    assert_eq!(code(&client.ask(json!(5), "tools/call", retry).await), -32603, "when it is over");
    assert_eq!(server.heard("tools/call").len(), 1);
}

#[tokio::test]
async fn an_answer_to_another_request_or_of_another_principal_is_refused_and_the_call_goes_on_waiting() {
    let (gateway, server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    let params = asks(json!(["elicitation/create"]));
    let asked = client.ask(json!(1), "tools/call", params.clone()).await;
    let retry = again(params.clone(), &asked, json!({"q1": named("ada")}));
    let mut changed = retry.clone();
    changed["arguments"]["more"] = json!(1);
    assert_eq!(code(&client.ask(json!(2), "tools/call", changed).await), -32602, "other arguments");
    let mut forged = retry.clone();
    forged["requestState"] = json!(format!("{}A", asked["result"]["requestState"].as_str().unwrap()));
    assert_eq!(code(&client.ask(json!(3), "tools/call", forged).await), -32602, "a state that is nobody's");
    let mut without = retry.clone();
    without.as_object_mut().unwrap().remove("requestState");
    assert_eq!(code(&client.ask(json!(4), "tools/call", without).await), -32602, "no state");
    let colleague = Client { credential: bearer(COLLEAGUE), ..client.clone() };
    let stolen = colleague.ask(json!(5), "tools/call", retry.clone()).await;
    assert_eq!(code(&stolen), -32602, "another principal's: {stolen}");
    let answered = client.ask(json!(6), "tools/call", retry).await;
    assert_eq!(text(&answered), "ada", "{answered}");
    assert_eq!(server.heard("tools/call").len(), 1);
}

#[tokio::test]
async fn an_answer_that_comes_late_finds_nothing_and_the_server_was_told_to_stop() {
    let server = Server::start(Transport::Websocket).await;
    let gateway = Gateway::with(Some(&scope(&server)), |config| config.timeouts.stream_idle = Duration::from_secs(1)).await;
    let client = Client::of(&gateway);
    let params = asks(json!(["elicitation/create"]));
    let asked = client.ask(json!(1), "tools/call", params.clone()).await;
    let sent = server.heard("tools/call")[0]["id"].clone();
    let cancelled = server.hears(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], sent);
    let late = client.ask(json!(2), "tools/call", again(params, &asked, json!({"q1": named("ada")}))).await;
    assert_eq!(code(&late), -32603, "{late}");
    assert_eq!(server.heard("tools/call").len(), 1);
}

#[tokio::test]
async fn an_answer_to_a_call_whose_node_or_server_is_gone_says_so() {
    let (gateway, server) = world(Transport::Websocket).await;
    let params = asks(json!(["elicitation/create"]));
    let asked = Client::of(&gateway).ask(json!(1), "tools/call", params.clone()).await;
    let retry = again(params.clone(), &asked, json!({"q1": named("ada")}));
    // Another node of the same pool, which cannot reach the first.
    let other = Gateway::start(&scope(&server)).await;
    let lost = Client::of(&other).ask(json!(2), "tools/call", retry.clone()).await;
    assert_eq!(code(&lost), -32603, "{lost}");
    assert!(lost["error"]["message"].as_str().unwrap().contains("start over"), "{lost}");
    server.cut();
    while server.open() > 0 {
        tokio::task::yield_now().await;
    }
    while gateway.sessions().await > 0 {}
    let lost = Client::of(&gateway).ask(json!(3), "tools/call", retry).await;
    assert_eq!(code(&lost), -32603, "{lost}");
    assert_eq!(server.heard("tools/call").len(), 1);
    let asked = Client::of(&gateway).ask(json!(4), "tools/call", params).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "whoever starts over is served");
}
