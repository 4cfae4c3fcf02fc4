//! Legacy sessions: sealed for one principal on one server, opened on every later request, 404 in every other case.

use axum::body::Body;
use http::{Method, Response};

use super::scope::{COLLEAGUE, ENGINEER, GITHUB, OPEN, Scope, bearer};
use super::world::{Answer, Gateway, Seen, Upstream, events, json, result, status};

/// A stateful legacy server that knows one session.
pub fn legacy(seen: &Seen) -> Response<Body> {
    if seen.method == Method::DELETE {
        return status(200);
    }
    if seen.method == Method::GET {
        return events(&[r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#]);
    }
    let message = seen.json();
    if message["method"] == "initialize" {
        let version = message["params"]["protocolVersion"].clone();
        let mut response = result(seen, &format!(r#"{{"protocolVersion":{version},"capabilities":{{}}}}"#));
        response.headers_mut().insert("mcp-session-id", "up-1".parse().unwrap());
        return response;
    }
    match seen.header("mcp-session-id") {
        Some("up-1") if message.get("id").is_none() => status(202),
        Some("up-1") => result(seen, r#"{"content":[]}"#),
        _ => json(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID provided"}}"#),
    }
}

async fn world() -> (Gateway, Upstream) {
    let upstream = Upstream::start(legacy).await;
    (Gateway::start(&Scope::at(upstream.address)).await, upstream)
}

pub async fn open(gateway: &Gateway, server: &str, credential: &str, version: &str) -> Answer {
    let body = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}"}}}}"#);
    gateway.ask(gateway.post(server, &[("authorization", credential)], body)).await
}

pub const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_code"}}"#;

#[tokio::test]
async fn a_session_is_sealed_at_initialize_and_opened_afterwards() {
    let (gateway, upstream) = world().await;
    let engineer = bearer(ENGINEER);
    let opened = open(&gateway, GITHUB, &engineer, "2025-11-25").await;
    assert_eq!(opened.status, 200, "{opened:?}");
    let session = opened.header("mcp-session-id").unwrap();
    assert!(!session.contains("up-1") && session.bytes().all(|byte| byte.is_ascii_graphic()), "{session}");
    let with = [("authorization", &*engineer), ("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];

    let answer = gateway.ask(gateway.post(GITHUB, &with, CALL)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &1.into()), "{answer:?}");
    assert_eq!(upstream.seen().last().unwrap().header("mcp-session-id"), Some("up-1"));
    let (decided, _) = gateway.record(answer.request_id());
    assert_eq!((&*decided.client_era, &*decided.client_protocol_version), ("legacy", "2025-11-25"));
    assert!(!decided.session.is_empty() && !session.contains(&decided.session));

    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let answer = gateway.ask(gateway.post(GITHUB, &with, note)).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (202, ""));

    let path = format!("/servers/{GITHUB}/mcp");
    let answer = gateway.ask(gateway.request(Method::GET, &path, &with, "")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("text/event-stream")));
    assert!(answer.body.contains("list_changed"));
    let seen = upstream.seen().pop().unwrap();
    assert_eq!((&seen.method, seen.header("mcp-session-id"), seen.header("content-type")), (&Method::GET, Some("up-1"), None));

    let answer = gateway.ask(gateway.request(Method::DELETE, &path, &with, "")).await;
    assert_eq!(answer.status, 200);
    let (decided, ended) = gateway.record(answer.request_id());
    assert_eq!((&*decided.method, ended.status), ("DELETE", 200));
}

#[tokio::test]
async fn a_session_of_somebody_else_forged_or_elsewhere_is_not_found() {
    let (gateway, upstream) = world().await;
    let opened = open(&gateway, GITHUB, &bearer(ENGINEER), "2025-11-25").await;
    let session = opened.header("mcp-session-id").unwrap();
    let mut forged = session.to_owned();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    let before = upstream.seen().len();
    let cases = [
        ("another principal", GITHUB, bearer(COLLEAGUE), session),
        ("another server", OPEN, bearer(ENGINEER), session),
        ("forged", GITHUB, bearer(ENGINEER), &*forged),
        ("made up", GITHUB, bearer(ENGINEER), "up-1"),
    ];
    for (case, server, credential, session) in cases {
        let headers = [("authorization", &*credential), ("mcp-session-id", session)];
        let answer = gateway.ask(gateway.post(server, &headers, CALL)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, -31404), "{case}: {answer:?}");
        assert_eq!(answer.json()["id"], 1, "{case}");
    }
    assert_eq!(upstream.seen().len(), before, "the server saw none of it");
    let answer = gateway.ask(gateway.post(GITHUB, &[("authorization", &*bearer(ENGINEER))], CALL)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, -32000), "no session at all: {answer:?}");
}

#[tokio::test]
async fn a_session_that_the_server_lost_is_not_found_however_the_server_says_it() {
    for (code, body) in
        [(404, ""), (400, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID"}}"#)]
    {
        let upstream = Upstream::start(move |seen| {
            if seen.json()["method"] == "initialize" {
                return legacy(seen);
            }
            let mut response = json(body);
            *response.status_mut() = code.try_into().unwrap();
            response
        })
        .await;
        let gateway = Gateway::start(&Scope::at(upstream.address)).await;
        let opened = open(&gateway, GITHUB, &bearer(ENGINEER), "2025-11-25").await;
        let session = opened.header("mcp-session-id").unwrap();
        let headers = [("authorization", &*bearer(ENGINEER)), ("mcp-session-id", session)];
        let answer = gateway.ask(gateway.post(GITHUB, &headers, CALL)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, -31404), "{answer:?}");
    }
}

#[tokio::test]
async fn initialize_over_a_stream_and_without_a_session_of_the_servers_still_gets_one() {
    let upstream = Upstream::start(|seen| {
        let answer = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;
        if seen.json()["method"] == "initialize" { events(&["", answer]) } else { result(seen, "{}") }
    })
    .await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let opened = open(&gateway, GITHUB, &bearer(ENGINEER), "2025-11-25").await;
    assert_eq!(opened.header("content-type"), Some("text/event-stream"));
    let session = opened.header("mcp-session-id").unwrap();
    let headers = [("authorization", &*bearer(ENGINEER)), ("mcp-session-id", session)];
    assert_eq!(gateway.ask(gateway.post(GITHUB, &headers, CALL)).await.status, 200);
    assert_eq!(upstream.seen().last().unwrap().header("mcp-session-id"), None);
}

#[tokio::test]
async fn a_batch_is_judged_and_sent_message_by_message_in_sessions_that_know_batches() {
    let (gateway, upstream) = world().await;
    let engineer = bearer(ENGINEER);
    let batch = r#"[{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"search_code"}},
        {"jsonrpc":"2.0","method":"notifications/initialized"},
        {"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"delete_all"}}]"#;
    let opened = open(&gateway, GITHUB, &engineer, "2025-03-26").await;
    let with = [("authorization", &*engineer), ("mcp-session-id", opened.header("mcp-session-id").unwrap())];
    let answer = gateway.ask(gateway.post(GITHUB, &with, batch)).await;
    let elements = answer.json();
    assert_eq!(elements.as_array().unwrap().len(), 2, "{answer:?}");
    assert_eq!((&elements[0]["id"], &elements[1]["id"]), (&"a".into(), &2.into()));
    assert!(elements[0].get("result").is_some());
    assert_eq!(elements[1]["error"]["code"], -32602);
    let seen: Vec<_> = upstream.seen().iter().skip(1).map(|seen| seen.json()["method"].clone()).collect();
    assert_eq!(seen, ["tools/call", "notifications/initialized"], "one by one, and not the refused one");
    let records = gateway.records();
    let names: Vec<_> = records.iter().map(|(decided, _)| (&*decided.method, &*decided.name)).collect();
    assert!(names.contains(&("batch", "")) && names.contains(&("tools/call", "delete_all")), "{names:?}");
    assert!(records.iter().all(|(_, ended)| ended.is_some()));

    let opened = open(&gateway, GITHUB, &engineer, "2025-11-25").await;
    let with = [("authorization", &*engineer), ("mcp-session-id", opened.header("mcp-session-id").unwrap())];
    let answer = gateway.ask(gateway.post(GITHUB, &with, batch)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, -32600), "{answer:?}");
}

/// A legacy server without sessions, which knows nothing but POST.
pub fn stateless(seen: &Seen) -> Response<Body> {
    if seen.method != Method::POST {
        return status(404);
    }
    let message = seen.json();
    match message["method"].as_str() {
        Some("initialize") => result(seen, r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#),
        _ if message.get("id").is_none() => status(202),
        _ => result(seen, r#"{"content":[]}"#),
    }
}

#[tokio::test]
async fn a_server_without_sessions_has_no_stream_and_no_end_of_them_and_loses_none() {
    let upstream = Upstream::start(stateless).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let engineer = bearer(ENGINEER);
    let opened = open(&gateway, GITHUB, &engineer, "2025-11-25").await;
    let session = opened.header("mcp-session-id").unwrap();
    let with = [("authorization", &*engineer), ("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
    let path = format!("/servers/{GITHUB}/mcp");
    for method in [Method::GET, Method::DELETE] {
        let answer = gateway.ask(gateway.request(method.clone(), &path, &with, "")).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")), "{method}: {answer:?}");
    }
    assert_eq!(gateway.ask(gateway.post(GITHUB, &with, CALL)).await.status, 200);
}
