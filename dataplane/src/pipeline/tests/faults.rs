//! When something behind the gateway fails: what the client hears, and what is on record.

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use mcp_gateway::proto::config::v1::AuditFullAction;
use mcp_gateway::proto::node::v1::{AuditClass, Outcome};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::config::Limits;
use crate::metrics::Metrics;

use super::super::caught;
use super::scope::{ENGINEER, GITHUB, OPEN, Scope, bearer};
use super::world::{Answer, Gateway, Upstream, json, result};

async fn call(gateway: &Gateway) -> Answer {
    gateway.ask(gateway.modern(GITHUB, &[("authorization", &*bearer(ENGINEER))], "tools/call", r#""name":"echo""#)).await
}

#[tokio::test]
async fn a_server_that_is_away_breaks_off_or_is_slow_is_the_gateways_502_or_504() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = nobody.local_addr().unwrap();
    drop(nobody);
    #[allow(clippy::disallowed_methods)] // ends with the test's runtime
    let closing_address = {
        let address = closing.local_addr().unwrap();
        tokio::spawn(async move { while closing.accept().await.is_ok() {} });
        address
    };
    let cases = [
        (away, 502, "upstream.connect"),
        (closing_address, 502, "upstream.broke"),
        (silent.local_addr().unwrap(), 504, "upstream.slow"),
    ];
    for (address, status, reason) in cases {
        let mut scope = Scope::at(address);
        scope.server(GITHUB).call_timeout_ms = 300;
        let gateway = Gateway::start(&scope).await;
        let answer = call(&gateway).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, -32603), "{reason}: {answer:?}");
        assert_eq!(answer.json()["id"], "q-1");
        assert!(!answer.body.contains(&address.port().to_string()), "nothing about the inside: {answer:?}");
        let (decided, ended) = gateway.record(answer.request_id());
        assert_eq!((decided.class(), ended.outcome()), (AuditClass::Audit, Outcome::UpstreamFailed), "{reason}");
    }
}

#[tokio::test]
async fn refusals_of_the_server_pass_as_they_are_but_never_its_challenges_redirects_or_markup() {
    let error = r#"{"jsonrpc":"2.0","id":"q-1","error":{"code":-32021,"message":"x"}}"#;
    let cases: &[(u16, &str, &str, u16, &str)] = &[
        (400, "application/json", error, 400, error),
        (422, "text/html", "<b>no</b>", 422, "<b>no</b>"),
        (500, "application/json", error, 500, error),
        (500, "text/plain", "stack trace", 502, ""),
        (500, "application/json", r#"{"trace":"at db-7.internal"}"#, 502, ""),
        (401, "application/json", error, 502, ""),
        (302, "text/plain", "", 502, ""),
    ];
    for (status, content_type, body, expected, passed) in cases {
        let (status, content_type, text) = (*status, *content_type, (*body).to_owned());
        let upstream = Upstream::start(move |_| {
            Response::builder()
                .status(status)
                .header("content-type", content_type)
                .header("location", "http://169.254.169.254/")
                .header("www-authenticate", "Basic")
                .header("set-cookie", "a=b")
                .body(Body::from(text.clone()))
                .unwrap()
        })
        .await;
        let gateway = Gateway::start(&Scope::at(upstream.address)).await;
        let answer = call(&gateway).await;
        assert_eq!(answer.status.as_u16(), *expected, "{status}: {answer:?}");
        if !passed.is_empty() {
            assert_eq!(answer.body, *passed);
        }
        for name in ["location", "www-authenticate", "set-cookie"] {
            assert_eq!(answer.header(name), None, "{status} {name}");
        }
        assert!(!answer.header("content-type").unwrap().contains("html"));
        let (_, ended) = gateway.record(answer.request_id());
        assert_eq!(ended.status, u32::from(*expected));
        assert_ne!(ended.outcome(), Outcome::Ok);
    }
}

#[tokio::test]
async fn a_list_in_a_servers_refusal_is_filtered_like_any_other() {
    let list = r#""result":{"tools":[{"name":"echo"},{"name":"delete_all"}]}"#;
    let whole = format!(r#"{{"jsonrpc":"2.0","id":"q-1",{list}}}"#);
    let doubled = format!(r#"{{"jsonrpc":"2.0","id":"q-1","id":"q-1",{list}}}"#);
    for status in [400, 404, 422, 500, 503] {
        for content_type in ["application/json", "text/event-stream", "text/plain"] {
            for (body, passes) in [(&whole, true), (&doubled, false)] {
                let text = body.clone();
                let upstream = Upstream::start(move |_| {
                    let answer = Response::builder().status(status).header("content-type", content_type);
                    answer.body(Body::from(text.clone())).unwrap()
                })
                .await;
                let gateway = Gateway::start(&Scope::at(upstream.address)).await;
                let answer = call(&gateway).await;
                let case = format!("{status} {content_type}: {answer:?}");
                assert!(!answer.body.contains("delete_all"), "{case}");
                assert_eq!(answer.body.contains("echo"), passes, "{case}");
                assert_eq!(answer.status.as_u16(), if passes { status } else { 502 }, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_to_another_request_is_not_passed_on_but_an_error_without_an_id_is() {
    let secret = r#""result":{"content":[{"type":"text","text":"somebody else's"}]}"#;
    let error = r#""error":{"code":-32700,"message":"somebody else's"}"#;
    let cases = [
        (200, r#""id":"q-1","#, secret, 200),
        (200, r#""id":"q\u002d1","#, secret, 200),
        (200, r#""id":"q-2","#, secret, 502),
        (200, r#""id":1,"#, secret, 502),
        (200, r#""id":"q-2","#, error, 502),
        (200, r#""id":null,"#, error, 200),
        (200, "", error, 200),
        (400, r#""id":null,"#, error, 400),
        (400, r#""id":"server-error","#, error, 400),
    ];
    for (status, id, said, expected) in cases {
        let upstream = Upstream::start(move |_| {
            let mut answer = json(format!(r#"{{"jsonrpc":"2.0",{id}{said}}}"#));
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            answer
        })
        .await;
        let gateway = Gateway::start(&Scope::at(upstream.address)).await;
        let answer = call(&gateway).await;
        assert_eq!(answer.status.as_u16(), expected, "{id}{said}: {answer:?}");
        assert_eq!(answer.body.contains("somebody else's"), expected != 502, "{answer:?}");
        if expected == 502 {
            assert_eq!((answer.code(), &answer.json()["id"]), (-32603, &"q-1".into()), "{answer:?}");
            assert_eq!(gateway.record(answer.request_id()).1.outcome(), Outcome::UpstreamFailed);
        }
    }
}

#[tokio::test]
async fn a_panic_is_answered_and_counted() {
    let metrics = Metrics::default();
    let outcome = caught(async { panic!("on purpose") }, &metrics, Uuid::now_v7()).await;
    let wire = outcome.err().unwrap().wire();
    assert_eq!((wire.status.as_u16(), wire.code, wire.outcome), (500, -32603, Outcome::GatewayFailed));
    assert_eq!(metrics.panics.get(), 1);
}

#[tokio::test]
async fn a_full_spool_stops_audited_calls_where_the_organisation_says_so() {
    for (action, status) in [(AuditFullAction::Block, 503), (AuditFullAction::Allow, 200)] {
        let upstream = Upstream::start(|seen| result(seen, "{}")).await;
        let mut scope = Scope::at(upstream.address);
        scope.orgs[0].organization.as_mut().unwrap().audit_full = action.into();
        let gateway = Gateway::with(Some(&scope), |config| config.audit.spool_max_bytes = 1 << 12).await;
        let mut answer = call(&gateway).await;
        for _ in 0..50 {
            answer = call(&gateway).await;
        }
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        if status == 503 {
            assert_eq!((answer.code(), &answer.json()["id"]), (-31503, &"q-1".into()));
            assert!(upstream.seen().len() < 50, "refused calls do not reach the server");
        }
        let access = gateway.ask(gateway.modern(OPEN, &[], "tools/list", "")).await;
        assert_eq!(access.status, 200, "only class audit waits for room: {access:?}");
    }
}

#[tokio::test]
async fn a_server_or_an_organisation_with_too_many_calls_in_flight_is_busy() {
    type Bound = fn(&mut Limits);
    let bounds: [(&str, Bound); 2] = [
        ("limit.in_flight", |limits| limits.in_flight_per_server = 1),
        ("limit.organization", |limits| limits.in_flight_per_organization = 1),
    ];
    for (reason, bound) in bounds {
        let (hold, held) = tokio::sync::watch::channel(());
        let upstream = Upstream::start(move |_| {
            let mut held = held.clone();
            let body = async_stream(async move {
                let _ = held.changed().await;
            });
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        })
        .await;
        let gateway = Gateway::with(Some(&Scope::at(upstream.address)), |config| bound(&mut config.limits)).await;
        let auth = [("authorization", &*bearer(ENGINEER))];
        let first = gateway.send(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#)).await;
        assert_eq!(first.status(), 200);
        let busy = call(&gateway).await;
        assert_eq!((busy.status.as_u16(), busy.code(), busy.header("retry-after")), (503, -31503, Some("1")), "{busy:?}");
        assert_eq!(gateway.record(busy.request_id()).0.reason, reason);
        let elsewhere = gateway.send(gateway.modern(OPEN, &[], "tools/list", "")).await;
        assert_eq!(elsewhere.status().as_u16(), if reason == "limit.organization" { 503 } else { 200 });
        let listening = gateway.send(gateway.modern(GITHUB, &auth, "subscriptions/listen", r#""notifications":{}"#)).await;
        assert_eq!(listening.status(), 200, "streams have room of their own");
        drop(hold);
        assert!(first.into_body().collect().await.is_ok());
        assert_eq!(call(&gateway).await.status, 200, "there is room again");
    }
}

/// A body that says nothing until `end`.
fn async_stream(end: impl Future<Output = ()> + Send + 'static) -> Body {
    use futures_util::FutureExt;
    Body::from_stream(end.map(|()| Ok::<_, std::io::Error>("\n")).into_stream())
}

#[tokio::test]
async fn an_answer_that_is_no_mcp_is_not_passed_on() {
    let upstream = Upstream::start(|_| json("<html>")).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let answer = call(&gateway).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, -32603), "{answer:?}");
    let (_, ended) = gateway.record(answer.request_id());
    assert_eq!(ended.outcome(), Outcome::UpstreamFailed, "{answer:?}");
}
