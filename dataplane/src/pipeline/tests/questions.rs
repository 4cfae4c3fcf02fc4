//! What servers say is read strictly: a question that a rule denies never reaches a client, however it is dressed up.

use axum::body::Body;
use futures_util::stream;
use http::Response;
use mcp_gateway::proto::config::v1::{Effect, Match, Policy, Subjects};
use mcp_gateway::proto::node::v1::Outcome;

use super::scope::{ENGINEER, GITHUB, Scope, bearer};
use super::world::{Answer, Gateway, Seen, Upstream, events, json, result};

/// A gateway whose rules deny sampling, before a server that answers with `answer`.
async fn without_sampling(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> (Gateway, Upstream) {
    let upstream = Upstream::start(answer).await;
    let mut scope = Scope::at(upstream.address);
    let everybody = Subjects { roles: vec!["*".into()], ..Subjects::default() };
    let sampling = Match { methods: vec!["sampling/createMessage".into()], ..Match::default() };
    let rule = super::scope::allow("c9", "no-sampling", everybody, sampling);
    scope.orgs[0].policies.push(Policy { effect: Effect::Deny.into(), ..rule });
    (Gateway::start(&scope).await, upstream)
}

async fn call(gateway: &Gateway) -> Answer {
    let credential = bearer(ENGINEER);
    gateway.ask(gateway.modern(GITHUB, &[("authorization", &credential)], "tools/call", r#""name":"echo""#)).await
}

const INPUT: &str = r#"{"resultType":"input_required","requestState":"s","inputRequests":{"a":{"method":"roots/list"},"b":{"method":"METHOD","params":{"messages":[]}}}}"#;

#[tokio::test]
async fn a_result_that_asks_what_a_rule_denies_becomes_an_error() {
    let asks = |method: &str| INPUT.replace("METHOD", method);
    let denied = asks("sampling/createMessage");
    let (gateway, _) = without_sampling(move |seen| result(seen, &denied)).await;
    let answer = call(&gateway).await;
    assert_eq!((answer.status.as_u16(), answer.code(), &answer.json()["id"]), (200, -31403, &"q-1".into()), "{answer:?}");
    assert!(!answer.body.contains("sampling"), "{answer:?}");
    let (_, ended) = gateway.record(answer.request_id());
    assert_eq!((ended.outcome(), ended.error_code), (Outcome::Denied, -31403));

    let allowed = asks("elicitation/create");
    let expected = allowed.clone();
    let (gateway, _) = without_sampling(move |seen| result(seen, &allowed)).await;
    let answer = call(&gateway).await;
    assert_eq!(answer.json()["result"], serde_json::from_str::<serde_json::Value>(&expected).unwrap());
}

#[tokio::test]
async fn the_same_holds_for_a_result_on_a_stream() {
    let denied = INPUT.replace("METHOD", "sampling\\/createMessage");
    let (gateway, _) =
        without_sampling(move |seen| events(&[&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{denied}}}"#, seen.id())])).await;
    let answer = call(&gateway).await;
    assert!(answer.body.contains("-31403") && !answer.body.contains("sampling"), "{answer:?}");
}

#[tokio::test]
async fn a_message_that_clients_could_read_differently_ends_the_stream() {
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"sampling/createMessage"}"#,
        r#"{"jsonrpc":"2.0","id":1,"Method":"sampling/createMessage","result":{}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"},{"jsonrpc":"2.0","method":"n"}]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"x":"\ud800"}}"#,
    ] {
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
        let (gateway, _) = without_sampling(move |_| events(&[progress, message, progress])).await;
        let credential = bearer(ENGINEER);
        let request = gateway.modern(GITHUB, &[("authorization", &credential)], "tools/call", r#""name":"echo""#);
        let read = http_body_util::BodyExt::collect(gateway.send(request).await.into_body()).await;
        assert!(read.is_err(), "the stream of {message} ended well");
    }
}

#[tokio::test]
async fn a_json_answer_that_cannot_be_read_strictly_does_not_pass() {
    for body in [
        r#"{"jsonrpc":"2.0","id":"q-1","result":{},"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"q-1","method":"sampling/createMessage"}"#,
        r#"{"jsonrpc":"2.0","id":"q-1","result":{}} x"#,
        "<html>",
    ] {
        let (gateway, _) = without_sampling(move |_| json(body)).await;
        let answer = call(&gateway).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (502, -32603), "{body}: {answer:?}");
    }
}

/// A JSON answer of unknown length, in pieces.
fn pieces(text: String) -> Response<Body> {
    let chunks: Vec<_> = text.as_bytes().chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    let body = Body::from_stream(stream::iter(chunks));
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

#[tokio::test]
async fn json_of_unknown_length_is_looked_at_while_it_is_small_and_passes_through_when_it_is_large() {
    for (size, outcome) in [(10, Outcome::Error), (5_000, Outcome::Error), (600_000, Outcome::Unknown)] {
        let text = move |id: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":"{}","isError":true}}}}"#, "x".repeat(size))
        };
        let upstream = Upstream::start(move |seen| pieces(text(&seen.id()))).await;
        let gateway = Gateway::start(&Scope::at(upstream.address)).await;
        let answer = call(&gateway).await;
        assert_eq!(answer.body, text("\"q-1\""), "{size}");
        let (_, ended) = gateway.record(answer.request_id());
        assert_eq!((ended.outcome(), ended.response_bytes), (outcome, answer.body.len() as u64), "{size}");
    }
}

#[tokio::test]
async fn what_a_server_says_to_a_notification_is_dropped() {
    let upstream = Upstream::start(|_| json(r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}"#)).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let credential = bearer(ENGINEER);
    let headers = [("authorization", &*credential), ("mcp-protocol-version", "2026-07-28")];
    let answer = gateway.ask(gateway.post(GITHUB, &headers, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#)).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (202, ""), "{answer:?}");
}
