//! What may not be used is not seen, on every way from the server.

use axum::body::Body;
use http::Method;

use super::scope::{COLLEAGUE, ENGINEER, GITHUB, Scope, bearer};
use super::world::{Gateway, Seen, Upstream, events, json, result};

const TOOLS: &str = r#"{"tools":[{"name":"search_code"},{"name":"delete_all"},{"name":"echo"}],"nextCursor":"n","resultType":"complete","ttlMs":9,"cacheScope":"public"}"#;

#[tokio::test]
async fn lists_lose_what_the_caller_may_not_use_and_become_private() {
    let upstream = Upstream::start(|seen| result(seen, TOOLS)).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    for (key, expected) in [(ENGINEER, vec!["search_code", "echo"]), (COLLEAGUE, vec!["search_code"])] {
        let auth = [("authorization", &*bearer(key))];
        let answer = gateway.ask(gateway.modern(GITHUB, &auth, "tools/list", "")).await.json();
        let names: Vec<_> =
            answer["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected);
        assert_eq!((&answer["result"]["nextCursor"], &answer["result"]["cacheScope"]), (&"n".into(), &"private".into()));
    }
}

#[tokio::test]
async fn lists_on_streams_are_filtered_whoever_asked_for_them() {
    let answer = |seen: &Seen| {
        let list = format!(r#"{{"jsonrpc":"2.0","id":4,"result":{TOOLS}}}"#);
        match seen.method {
            Method::GET => events(&[&list]),
            _ if seen.json()["method"] == "initialize" => result(seen, r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#),
            _ => events(&[r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#, &list]),
        }
    };
    let upstream = Upstream::start(answer).await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let auth = bearer(COLLEAGUE);
    let hello = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let opened = gateway.ask(gateway.post(GITHUB, &[("authorization", &auth)], hello)).await;
    let with = [("authorization", &*auth), ("mcp-session-id", opened.header("mcp-session-id").unwrap())];
    let path = format!("/servers/{GITHUB}/mcp");
    let list = r#"{"jsonrpc":"2.0","id":4,"method":"tools/list"}"#;
    for request in [gateway.request(Method::GET, &path, &with, ""), gateway.post(GITHUB, &with, list)] {
        let answer = gateway.ask(request).await;
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert!(answer.body.contains("search_code") && !answer.body.contains("delete_all"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_filtered_does_not_pass() {
    let doubled = r#"{"jsonrpc":"2.0","id":"q-1","result":{"tools":[{"name":"search_code","name":"delete_all"}]}}"#;
    let large = format!(r#"{{"jsonrpc":"2.0","id":"q-1","result":{{"tools":[{{"name":"{}"}}]}}}}"#, "x".repeat(4096));
    for body in [doubled.to_owned(), large] {
        let upstream = Upstream::start(move |_| json(body.clone())).await;
        let gateway = Gateway::with(Some(&Scope::at(upstream.address)), |config| config.limits.list_bytes = 2048).await;
        let answer = gateway.ask(gateway.modern(GITHUB, &[("authorization", &*bearer(ENGINEER))], "tools/list", "")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (502, -32603), "{answer:?}");
        assert_eq!(answer.json()["id"], "q-1");
    }
}

#[tokio::test]
async fn answers_in_an_encoding_or_of_a_type_that_nobody_asked_for_do_not_pass() {
    for (name, value) in [("content-encoding", "gzip"), ("content-type", "text/html")] {
        let upstream = Upstream::start(move |seen| {
            let mut response = result(seen, TOOLS);
            response.headers_mut().insert(name, value.parse().unwrap());
            response.map(Body::new)
        })
        .await;
        let gateway = Gateway::start(&Scope::at(upstream.address)).await;
        let answer = gateway.ask(gateway.modern(GITHUB, &[("authorization", &*bearer(ENGINEER))], "tools/list", "")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (502, -32603), "{value}: {answer:?}");
    }
}
