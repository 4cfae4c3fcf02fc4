//! Ways around the rules that a caller or a server could try: calls that look like something else, lists where nobody
//! expects one, records too large to write.

use axum::body::Body;
use http::Method;
use mcp_gateway::proto::node::v1::{AuditClass, Decision};

use super::scope::{COLLEAGUE, ENGINEER, GITHUB, OPEN, Scope, bearer};
use super::world::{Gateway, Seen, Upstream, json, result};

const LIST: &str = r#"{"tools":[{"name":"search_code"},{"name":"delete_all"}]}"#;

/// A modern notification: a message without an id.
fn notification(gateway: &Gateway, key: &str, method: &str, params: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}}}}}"#);
    let headers = [("authorization", &*bearer(key)), ("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    gateway.post(GITHUB, &headers, body)
}

#[tokio::test]
async fn a_call_without_an_id_is_judged_like_one_with_an_id() {
    let upstream = Upstream::start(|_| super::world::status(202)).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let forbidden = [
        ("tools/call", r#""name":"delete_all""#),
        ("prompts/get", r#""name":"review""#),
        ("resources/read", r#""uri":"repo://acme/x""#),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":"review"}"#),
    ];
    for (method, params) in forbidden {
        let answer = gateway.ask(notification(&gateway, COLLEAGUE, method, params)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (403, -31403), "{method}: {answer:?}");
        let (decided, _) = gateway.record(answer.request_id());
        assert_eq!((decided.decision(), decided.class()), (Decision::Deny, AuditClass::Audit), "{method}");
        assert_eq!(decided.reason, "authorize.not_granted", "{method}");
    }
    let nameless = gateway.ask(notification(&gateway, COLLEAGUE, "tools/call", "")).await;
    assert_eq!((nameless.status.as_u16(), nameless.code()), (400, -32602), "{nameless:?}");
    assert!(upstream.seen().is_empty());
    let allowed = gateway.ask(notification(&gateway, COLLEAGUE, "tools/call", r#""name":"search_code""#)).await;
    assert_eq!((allowed.status.as_u16(), &*allowed.body), (202, ""));
}

#[tokio::test]
async fn a_list_is_filtered_in_answers_of_any_size_status_and_method() {
    let padding = "x".repeat(400 << 10);
    let large = move |seen: &Seen| {
        let id = seen.id();
        json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"pad":"{padding}","tools":[{{"name":"delete_all"}}]}}}}"#))
    };
    let upstream = Upstream::start(large).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let answer = gateway.ask(gateway.modern(GITHUB, &auth, "vendor/tools", "")).await;
    assert_eq!(answer.json()["result"]["tools"], serde_json::json!([]), "an unknown method may list too");

    let upstream = Upstream::start(|seen| {
        let mut response = result(seen, LIST);
        *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
        response
    })
    .await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let answer = gateway.ask(gateway.modern(GITHUB, &auth, "tools/list", "")).await;
    assert_eq!(answer.status.as_u16(), 418);
    assert!(answer.body.contains("search_code") && !answer.body.contains("delete_all"), "{answer:?}");

    let doubled = format!(r#"{{"id":1,"id":2,"result":{LIST}}}"#);
    let upstream = Upstream::start(move |_| {
        let text = axum::response::Response::builder().status(400).header("content-type", "text/plain");
        text.body(Body::from(doubled.clone())).unwrap()
    })
    .await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let answer = gateway.ask(gateway.modern(GITHUB, &auth, "tools/list", "")).await;
    assert_eq!((answer.status.as_u16(), answer.body.contains("delete_all")), (502, false), "{answer:?}");
}

#[tokio::test]
async fn a_method_of_any_length_is_on_record() {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let long = "x".repeat(1 << 20);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#);
    let auth = bearer(ENGINEER);
    let answer = gateway.ask(gateway.post(GITHUB, &[("authorization", &auth), ("mcp-session-id", "k.AAAA")], body)).await;
    assert_eq!(answer.status.as_u16(), 404, "the session is invented");
    let (decided, _) = gateway.record(answer.request_id());
    assert_eq!(decided.method, "x".repeat(2048));
}

#[tokio::test]
async fn a_preflight_carries_a_request_id_too() {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let path = format!("/servers/{OPEN}/mcp");
    for (origin, status) in [("https://app.acme.test", 204), ("https://evil.test", 403)] {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        let answer = gateway.ask(gateway.request(Method::OPTIONS, &path, &headers, "")).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("access-control-allow-origin").is_some(), status == 204);
        answer.request_id();
    }
}
