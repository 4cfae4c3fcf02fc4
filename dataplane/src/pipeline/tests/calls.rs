//! Calls that are allowed: what travels, what stays, what is recorded.

use mcp_gateway::proto::node::v1::{AuditClass, Decision, Outcome, Via};

use super::scope::{ENGINEER, GITHUB, OPEN, Scope, UPSTREAM_SECRET, bearer};
use super::world::{Gateway, Upstream, events, modern_body, result};

#[tokio::test]
async fn a_modern_call_travels_without_the_callers_credential_and_leaves_both_frames() {
    let upstream = Upstream::start(|seen| result(seen, r#"{"content":[],"resultType":"complete"}"#)).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let headers = [("authorization", &*bearer(ENGINEER)), ("cookie", "a=b"), ("x-forwarded-for", "6.6.6.6")];
    let call = gateway.modern(GITHUB, &headers, "tools/call", r#""name":"search_code","arguments":{"q":"x"}"#);
    let answer = gateway.ask(call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["id"], "q-1");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));

    let [seen] = <[_; 1]>::try_from(upstream.seen()).unwrap();
    assert_eq!(seen.header("authorization"), Some(UPSTREAM_SECRET));
    assert_eq!(seen.header("mcp-name"), Some("search_code"));
    assert_eq!(seen.header("host"), Some(&*upstream.address.to_string()));
    assert_eq!(seen.header("cookie"), None);
    assert!(!format!("{seen:?}").contains(ENGINEER), "{seen:?}");

    let (decided, ended) = gateway.record(answer.request_id());
    assert_eq!((decided.class(), decided.decision(), decided.via()), (AuditClass::Audit, Decision::Allow, Via::ApiKey));
    assert_eq!((&*decided.method, &*decided.name, &*decided.rule), ("tools/call", "search_code", "engineers"));
    assert_eq!((&*decided.credential_id, &*decided.client_address), (ENGINEER, "127.0.0.1"));
    assert_eq!((decided.config_epoch, decided.config_version), (1, 7));
    assert_eq!((decided.org_digest.len(), decided.arguments_digest.len()), (32, 32));
    assert_eq!((&*decided.client_era, &*decided.client_protocol_version), ("modern", "2026-07-28"));
    assert_eq!((ended.outcome(), ended.status), (Outcome::Ok, 200));
    assert_eq!(ended.response_bytes, answer.body.len() as u64);
    assert_eq!(ended.upstream, format!("http://{}/mcp", upstream.address));
    assert_eq!(ended.stage_us.len(), 6);
    assert!(ended.total_us >= ended.decide_us);
}

#[tokio::test]
async fn events_stream_through_unchanged_and_their_outcome_is_seen() {
    let upstream = Upstream::start(|seen| {
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
        let failed = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"content":[],"isError":true}}}}"#, seen.id());
        events(&[progress, &failed])
    })
    .await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let answer = gateway.ask(gateway.modern(OPEN, &[], "tools/call", r#""name":"echo""#)).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.body.matches("data: ").count(), 2);
    let (decided, ended) = gateway.record(answer.request_id());
    assert_eq!((decided.via(), &*decided.subject), (Via::Anonymous, "anonymous"));
    assert_eq!((ended.outcome(), ended.events), (Outcome::Error, 2));
}

#[tokio::test]
async fn a_name_longer_than_ordinary_header_limits_still_travels() {
    let upstream = Upstream::start(|seen| result(seen, r#"{"contents":[]}"#)).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let uri = format!("repo://acme/{}", "x".repeat(20_000));
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "resources/read"), ("mcp-name", &*uri)];
    let body = modern_body("resources/read", &format!(r#""uri":"{uri}""#));
    let answer = gateway.ask(gateway.post(OPEN, &headers, body)).await;
    assert_eq!(answer.status, 200, "{:?}", answer.headers);
    assert_eq!(upstream.seen()[0].header("mcp-name"), Some(&*uri));
    assert_eq!(gateway.record(answer.request_id()).0.name.len(), 2048, "cut in the record");
}

#[tokio::test]
async fn http2_clients_are_served_like_any_other() {
    use http_body_util::{BodyExt, Full};
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let executor = hyper_util::rt::TokioExecutor::new();
    let client = hyper_util::client::legacy::Client::builder(executor).http2_only(true).build_http::<Full<bytes::Bytes>>();
    let response = client.request(gateway.modern(OPEN, &[], "tools/call", r#""name":"echo""#)).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (http::Version::HTTP_2, 200));
    assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
}
