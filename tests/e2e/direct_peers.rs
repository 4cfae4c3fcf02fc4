//! The referees and peers themselves, without a gateway between: what they cannot do directly, no gateway can be
//! blamed for.

use mcpgw_tests::backend::{Backend, Change};
use mcpgw_tests::conformance::{self, Suite};
use mcpgw_tests::peers::{Document, Era, Everything, EverythingTransport, Peer, StockXds, Visit, inspect};
use serde_json::{Value, json};

/// Operations that every Streamable HTTP client can do in its era.
pub fn tour(url: &str) -> Visit {
    Visit::to(url)
        .token("inbound-secret")
        .list_tools()
        .call("echo", &json!({ "text": "hello" }))
        .call("slow", &json!({ "ms": 20, "steps": 2 }))
        .call("fail", &json!({}))
        .call("no-such-tool", &json!({}))
        .call("test_elicitation", &json!({ "message": "Who are you?" }))
        .call("test_sampling", &json!({ "prompt": "Say something" }))
        .call("test_list_roots", &json!({}))
        .list_resources()
        .read("test://static-text")
        .list_templates()
        .list_prompts()
        .get_prompt("test_prompt_with_arguments", &json!({ "arg1": "a", "arg2": "b" }))
        .complete("test_prompt_with_arguments", "arg1", "par")
}

pub fn assert_toured(peer: Peer, seen: &Document) {
    let version = if peer.modern() { "2026-07-28" } else { "2025-11-25" };
    assert_eq!(seen.protocol_version(), Some(version), "{peer:?}");
    let [tools, echo, slow, fail, unknown, user, model, roots, rest @ ..] = &seen.operations[..] else {
        panic!("{peer:?} stopped early: {seen:#?}")
    };
    assert!(tools.names().contains(&"echo"), "{peer:?}: {tools:?}");
    assert_eq!(echo.text(), Some("hello"), "{peer:?}");
    assert_eq!(slow.result["progress"].as_array().map(Vec::len), Some(2), "{peer:?}: {slow:?}");
    assert_eq!(fail.result["isError"], Value::Bool(true), "{peer:?}: {fail:?}");
    assert_eq!(unknown.code(), Some(-32602), "{peer:?}: {unknown:?}");
    let said = |outcome: &mcpgw_tests::peers::Outcome| outcome.text().unwrap_or_default().to_owned();
    assert!(said(user).contains("action=accept"), "{peer:?}: {user:?}");
    assert_eq!(said(model), "LLM response: sampled by the peer", "{peer:?}: {model:?}");
    assert!(said(roots).contains("file:///peer"), "{peer:?}: {roots:?}");
    assert_eq!(rest.len(), 6, "{peer:?}");
    assert!(rest.iter().all(|outcome| outcome.ok), "{peer:?}: {rest:#?}");
}

async fn tours(peer: Peer) {
    let backend = Backend::on_free_port().await.unwrap();
    let seen = tour(&backend.url()).by(peer).await.unwrap();
    assert_toured(peer, &seen);
    let stats = backend.stats().snapshot();
    assert_eq!(stats.calls_of("echo"), 1, "{peer:?}");
    assert_eq!(stats.calls_of("no-such-tool"), 1, "{peer:?}");
    let token = Some("Bearer inbound-secret");
    assert!(stats.requests.iter().all(|request| request.header("authorization") == token));
}

#[tokio::test]
async fn typescript_1_tours_the_backend() {
    tours(Peer::Ts1).await;
}

#[tokio::test]
async fn typescript_2_tours_the_backend_in_each_mode() {
    for peer in [Peer::Ts2, Peer::Ts2Legacy, Peer::Ts2Auto] {
        tours(peer).await;
    }
}

#[tokio::test]
async fn python_2_tours_the_backend_in_each_mode() {
    for peer in [Peer::Py2, Peer::Py2Legacy, Peer::Py2Auto] {
        tours(peer).await;
    }
}

#[tokio::test]
async fn a_refused_connection_tells_the_http_status() {
    let backend = Backend::on_free_port().await.unwrap();
    for peer in [Peer::Ts1, Peer::Ts2Legacy, Peer::Py2Legacy] {
        let nowhere = format!("{}/nowhere", backend.url().trim_end_matches("/mcp"));
        let seen = Visit::to(&nowhere).by(peer).await.unwrap();
        assert!(!seen.connect.ok, "{peer:?}");
        assert_eq!(seen.connect.http_status(), Some(404), "{peer:?}: {:?}", seen.connect);
    }
}

#[tokio::test]
async fn announced_changes_reach_clients_of_both_eras() {
    for peer in [Peer::Ts1, Peer::Ts2, Peer::Ts2Legacy] {
        let backend = Backend::on_free_port().await.unwrap();
        let visit = Visit::to(&backend.url())
            .listen()
            .call("test_trigger_tool_change", &json!({}))
            .expect("notifications/tools/list_changed");
        visit.by(peer).await.unwrap().all_ok().unwrap_or_else(|error| panic!("{peer:?}: {error}"));
    }
}

#[tokio::test]
async fn the_inspector_speaks_to_the_backend_in_each_era() {
    let backend = Backend::on_free_port().await.unwrap();
    for era in [Era::Legacy, Era::Modern, Era::Auto] {
        let call = ["--method", "tools/call", "--tool-name", "echo", "--tool-args-json", r#"{"text":"hi"}"#];
        let echoed = inspect(&backend.url(), Some("token"), era, &call).await.unwrap();
        assert_eq!(echoed.text(), Some("hi"), "{era:?}: {echoed:?}");
        let listed = inspect(&backend.url(), None, era, &["--method", "tools/list"]).await.unwrap();
        assert!(listed.names().contains(&"echo"), "{era:?}: {listed:?}");
    }
    let nowhere = format!("{}x", backend.url());
    let refused = inspect(&nowhere, None, Era::Legacy, &["--method", "tools/list"]).await.unwrap();
    assert_eq!(refused.http_status(), Some(404), "{refused:?}");
}

#[tokio::test]
async fn server_everything_answers_legacy_clients() {
    let everything = Everything::start(EverythingTransport::StreamableHttp).await.unwrap();
    let seen = Visit::to(everything.url())
        .list_tools()
        .call("echo", &json!({ "message": "hello" }))
        .list_resources()
        .list_prompts()
        .by(Peer::Ts1)
        .await
        .unwrap();
    let operations = seen.all_ok().unwrap();
    assert!(operations[1].text().unwrap_or_default().contains("hello"), "{:?}", operations[1]);
    let listed = inspect(everything.url(), None, Era::Legacy, &["--method", "tools/list"]).await.unwrap();
    assert!(listed.names().contains(&"echo"), "{listed:?}");
}

#[tokio::test]
async fn server_everything_answers_over_sse() {
    let everything = Everything::start(EverythingTransport::Sse).await.unwrap();
    let visit = Visit::to(everything.url()).call("echo", &json!({ "message": "hello" }));
    let operations = visit.by(Peer::Ts1Sse).await.unwrap().all_ok().unwrap();
    assert!(operations[0].text().unwrap_or_default().contains("hello"), "{:?}", operations[0]);
}

#[tokio::test]
async fn the_demo_server_serves_both_eras() {
    let demo = mcpgw_tests::demo::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    for peer in [Peer::Ts1, Peer::Ts2] {
        let visit = Visit::to(&demo.url())
            .list_tools()
            .call("add", &json!({ "a": 2, "b": 3 }))
            .call("now", &json!({}))
            .read("demo://readme")
            .get_prompt("greet", &json!({ "name": "Ada" }));
        let seen = visit.by(peer).await.unwrap().all_ok().unwrap();
        assert_eq!(seen[0].names(), ["add", "echo", "now"], "{peer:?}");
        assert_eq!(seen[1].text(), Some("5"), "{peer:?}");
    }
}

#[tokio::test]
async fn the_backend_serves_its_stats_over_http() {
    let backend = Backend::on_free_port().await.unwrap();
    backend.announce(Change::Tools).await;
    let visit = Visit::to(&backend.url()).call("tool_0", &json!({})).call("tool_1", &json!({}));
    visit.by(Peer::Ts2).await.unwrap().all_ok().unwrap();
    let stats = format!("http://{}/stats", backend.address());
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let answer = client.get(stats.parse().unwrap()).await.unwrap().into_body();
    let body = http_body_util::BodyExt::collect(answer).await.unwrap().to_bytes();
    let seen: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(seen["calls"], json!({ "tool_0": 1, "tool_1": 1 }));
    assert_eq!(seen["requests"][0]["method"], "POST");
}

#[tokio::test]
async fn a_direct_run_is_no_worse_than_its_record() {
    let backend = Backend::on_free_port().await.unwrap();
    for suite in Suite::ALL {
        let directory = tempfile::tempdir().unwrap();
        let report = conformance::run(suite, &backend.url(), directory.path()).await.unwrap();
        let worse = conformance::worse_than(&conformance::direct(suite).unwrap(), &report);
        assert!(worse.is_empty(), "{suite}: {worse:#?}");
    }
}

#[tokio::test]
async fn the_stock_xds_client_tells_why_it_got_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["node.test".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    // Closed again at once, so that nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = StockXds {
        address: closed.to_string(),
        ca: cert.clone(),
        cert,
        key,
        server_name: "control.test".to_owned(),
        node_id: "node-1".to_owned(),
        type_url: "type.example/Thing".to_owned(),
    };
    let error = client.first_response().await.unwrap_err().to_string();
    assert!(error.contains("UNAVAILABLE"), "{error}");
}
