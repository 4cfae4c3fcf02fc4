//! Calls whose server asks back: the client gets its questions as a result, and the call goes on with the answers, once.

use mcp_gateway::proto::config::v1::Transport;
use serde_json::{Value, json};

use super::client::{Client, world};

pub const SERVERS: [Transport; 3] = [Transport::StreamableHttp, Transport::HttpSse, Transport::Websocket];

/// The params of a call in which the server asks for these, one after the other.
pub fn asks(rounds: Value) -> Value {
    json!({"name": "search_ask", "arguments": {"ask": rounds}})
}

/// The same request again, with answers.
pub fn again(mut params: Value, asked: &Value, answers: Value) -> Value {
    params["requestState"] = asked["result"]["requestState"].clone();
    params["inputResponses"] = answers;
    params
}

pub fn named(name: &str) -> Value {
    json!({"action": "accept", "content": {"name": name}})
}

pub fn text(answer: &Value) -> &Value {
    &answer["result"]["content"][0]["text"]
}

#[tokio::test]
async fn the_client_is_asked_by_a_result_and_the_call_goes_on_with_its_answer() {
    for kind in SERVERS {
        let (gateway, server) = world(kind).await;
        let client = Client::of(&gateway);
        let params = asks(json!(["elicitation/create", "elicitation/create"]));
        let asked = client.ask(json!(1), "tools/call", params.clone()).await;
        assert_eq!(asked["result"]["resultType"], "input_required", "{kind:?}: {asked}");
        let schema = json!({"type": "object", "properties": {}});
        let question = json!({"method": "elicitation/create", "params": {"message": "name?", "requestedSchema": schema}});
        assert_eq!(asked["result"]["inputRequests"], json!({"q1": question}), "{kind:?}");
        let once_more = again(params.clone(), &asked, json!({"q1": named("ada")}));
        let asked = client.ask(json!("other id"), "tools/call", once_more).await;
        assert_eq!(asked["result"]["inputRequests"]["q2"], question, "{kind:?}: {asked}");
        let answered = client.ask(json!(2), "tools/call", again(params, &asked, json!({"q2": named("bob")}))).await;
        assert_eq!(text(&answered), "ada,bob", "{kind:?}: {answered}");
        assert_eq!(answered["result"]["resultType"], "complete");
        assert_eq!(server.heard("tools/call").len(), 1, "{kind:?}: it ran once");
    }
}

#[tokio::test]
async fn what_is_left_open_or_asked_meanwhile_is_asked_again() {
    let (gateway, server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    let methods = ["elicitation/create", "sampling/createMessage", "roots/list"];
    let params = asks(json!([methods]));
    let mut answered = client.ask(json!(0), "tools/call", params.clone()).await;
    let mut told = Vec::new();
    // As many at a time as came together; one of them is answered.
    while let Some(open) = answered["result"]["inputRequests"].as_object() {
        let (key, question) = open.iter().next().unwrap();
        let place = methods.iter().position(|method| question["method"] == *method).unwrap();
        assert_eq!(*key, format!("q{}", place + 1), "{answered}");
        let name = format!("the {key}");
        let answers = json!({key: {"content": {"name": name}}, "q9": {}});
        told.push(name);
        answered = client.ask(json!(told.len()), "tools/call", again(params.clone(), &answered, answers)).await;
    }
    assert_eq!((text(&answered), told.len()), (&json!(told.join(",")), 3), "{answered}");
    assert_eq!(server.heard("tools/call").len(), 1);
}

#[tokio::test]
async fn calls_of_one_caller_at_the_same_time_are_each_asked_their_own() {
    let (gateway, server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    let call = async |number: usize| {
        let params = asks(json!(["elicitation/create"]));
        let asked = client.ask(json!(number), "tools/call", params.clone()).await;
        let name = format!("caller {number}");
        let answered = client.ask(json!(number), "tools/call", again(params, &asked, json!({"q1": named(&name)}))).await;
        assert_eq!(text(&answered), &json!(name));
    };
    futures_util::future::join_all((0..8).map(call)).await;
    assert_eq!(server.heard("tools/call").len(), 8);
    assert!(server.opened() <= 8);
    let before = server.opened();
    call(9).await;
    assert_eq!(server.opened(), before, "what is free is used again");
}

#[tokio::test]
async fn who_cannot_be_asked_is_not_and_the_server_hears_so() {
    let (gateway, _server) = world(Transport::Websocket).await;
    let client = Client { capabilities: json!({"roots": {}}), ..Client::of(&gateway) };
    let answered = client.ask(json!(1), "tools/call", asks(json!(["elicitation/create", "sampling/createMessage"]))).await;
    assert_eq!(text(&answered), "-32601,-32601", "{answered}");
    let client = Client { capabilities: json!({}), ..client };
    let answered = client.ask(json!(1), "tools/call", asks(json!(["roots/list"]))).await;
    assert_eq!(text(&answered), "-32601", "{answered}");
}

#[tokio::test]
async fn a_page_that_has_to_be_opened_first_is_asked_for_and_the_request_sent_again() {
    let (gateway, server) = world(Transport::StreamableHttp).await;
    let client = Client::of(&gateway);
    let params = json!({"name": "search_url", "arguments": {}});
    let asked = client.ask(json!(1), "tools/call", params.clone()).await;
    let page = json!({"mode": "url", "message": "Sign in", "url": "https://login.test/"});
    assert_eq!(asked["result"]["inputRequests"]["q1"], json!({"method": "elicitation/create", "params": page}), "{asked}");
    let declined = again(params.clone(), &asked, json!({"q1": {"action": "decline"}}));
    assert_eq!(client.ask(json!(2), "tools/call", declined).await["error"]["code"], -32603);
    assert_eq!(server.heard("tools/call").len(), 1);
    let opened = again(params.clone(), &asked, json!({"q1": {"action": "accept"}}));
    let asked = client.ask(json!(3), "tools/call", opened).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "this server is never content: {asked}");
    assert_eq!(server.heard("tools/call").len(), 2);
    let plain = Client { capabilities: json!({"elicitation": {"form": {}}}), ..client };
    let refused = plain.send(json!(4), "tools/call", params).await;
    let status = refused.status;
    let error = refused.all().await[0]["error"].clone();
    assert_eq!((status, &error["code"]), (400, &json!(-32021)));
    assert_eq!(error["data"]["requiredCapabilities"], json!({"elicitation": {"url": {}}}));
}

#[tokio::test]
async fn every_part_of_a_call_is_on_record_by_itself() {
    let (gateway, _server) = world(Transport::Websocket).await;
    let client = Client::of(&gateway);
    let params = asks(json!(["elicitation/create"]));
    let first = client.send(json!(1), "tools/call", params.clone()).await;
    let (first_id, asked) = (first.request_id.clone(), first.all().await[0].clone());
    let second = client.send(json!(2), "tools/call", again(params, &asked, json!({"q1": named("ada")}))).await;
    let second_id = second.request_id.clone();
    second.all().await;
    for id in [first_id, second_id] {
        let (decided, ended) = gateway.record(&id);
        assert_eq!((decided.name.as_str(), ended.outcome().as_str_name(), ended.status), ("search_ask", "OUTCOME_OK", 200));
    }
}
