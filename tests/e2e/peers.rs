//! Foreign clients and servers with the gateway between them, policy and audit on.

use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateServerRequest, Server};
use mcp_gateway::proto::config::v1 as config;
use mcpgw_tests::fleet::{Fleet, ORG, Rule, SERVER};
use mcpgw_tests::peers::{Era, Everything, EverythingTransport, Peer, Visit, inspect};
use serde_json::json;

use crate::direct_peers::{assert_toured, tour};

const ALL: &[&str] = &["*"];

async fn fleet_that_allows_everything() -> (Fleet, String) {
    let fleet = Fleet::start().await.unwrap();
    let rule = Rule { name: "all", server: "*", roles: &["tester"], tools: ALL, prompts: ALL, resources: ALL, ..Rule::default() };
    fleet.allow(rule).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    (fleet, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sdk_tours_the_backend_through_the_gateway_in_each_of_its_modes() {
    let (fleet, key) = fleet_that_allows_everything().await;
    for peer in [Peer::Ts1, Peer::Ts2, Peer::Ts2Legacy, Peer::Ts2Auto, Peer::Py2, Peer::Py2Legacy, Peer::Py2Auto] {
        let seen = tour(&fleet.url(SERVER)).token(&key).by(peer).await.unwrap();
        assert_toured(peer, &seen);
    }
    let stats = fleet.backend.stats().snapshot();
    let leaked = stats.requests.iter().find(|request| request.header("authorization").is_some());
    assert!(leaked.is_none(), "the caller's credential travelled upstream: {leaked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inspector_calls_tools_in_each_era() {
    let (fleet, key) = fleet_that_allows_everything().await;
    let call = ["--method", "tools/call", "--tool-name", "echo", "--tool-args-json", r#"{"text":"hi"}"#];
    for era in [Era::Legacy, Era::Modern, Era::Auto] {
        let echoed = inspect(&fleet.url(SERVER), Some(&key), era, &call).await.unwrap();
        assert_eq!(echoed.text(), Some("hi"), "{era:?}: {echoed:?}");
    }
    let refused = inspect(&fleet.url(SERVER), None, Era::Modern, &call).await.unwrap();
    let code = refused.error.as_ref().map(|error| error.code.clone());
    assert_eq!(code, Some(json!("auth_required")), "{refused:?}");
}

/// The same backend as a server that is spoken to in one era only, whoever comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sdk_tours_the_backend_in_each_of_its_modes_whichever_era_the_backend_is_left_with() {
    let (fleet, key) = fleet_that_allows_everything().await;
    for (name, era) in [("legacy", config::Era::Legacy), ("modern", config::Era::Modern)] {
        register(&fleet, name, &fleet.backend.url(), era).await;
        for peer in Peer::STREAMABLE_HTTP {
            let seen = tour(&fleet.url(name)).token(&key).by(peer).await.unwrap();
            assert_toured(peer, &seen);
        }
    }
    let stats = fleet.backend.stats().snapshot();
    let called = 2 * Peer::STREAMABLE_HTTP.len() as u64;
    assert_eq!((stats.calls_of("echo"), stats.calls_of("slow")), (called, called), "nothing ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_everything_answers_clients_of_both_eras_through_the_gateway() {
    let (fleet, key) = fleet_that_allows_everything().await;
    for (name, transport) in [("everything", EverythingTransport::StreamableHttp), ("older", EverythingTransport::Sse)] {
        let everything = Everything::start(transport).await.unwrap();
        register(&fleet, name, everything.url(), config::Era::Unspecified).await;
        for peer in Peer::STREAMABLE_HTTP {
            let visit = Visit::to(&fleet.url(name))
                .token(&key)
                .list_tools()
                .call("echo", &json!({ "message": "hello" }))
                .list_resources()
                .list_prompts();
            let seen = visit.by(peer).await.unwrap();
            let operations = seen.all_ok().unwrap_or_else(|error| panic!("{peer:?} of {name}: {error}"));
            assert!(operations[1].text().unwrap_or_default().contains("hello"), "{peer:?} of {name}: {:?}", operations[1]);
        }
    }
}

async fn register(fleet: &Fleet, name: &str, url: &str, era: config::Era) {
    let endpoints = vec![config::Endpoint { url: url.to_owned(), weight: 1 }];
    let request = CreateServerRequest {
        parent: format!("organizations/{ORG}"),
        server_id: name.to_owned(),
        server: Some(Server { endpoints, era: era.into(), ..Server::default() }),
        ..CreateServerRequest::default()
    };
    let mut client = ServerServiceClient::new(fleet.admin.channel.clone());
    let server = client.create_server(fleet.admin.request(request)).await.unwrap().into_inner();
    fleet.admin.wait(server.config_version).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_principal_sees_and_may_call_only_what_its_rule_names() {
    let (fleet, _) = fleet_that_allows_everything().await;
    let rule = Rule {
        name: "narrow",
        server: SERVER,
        roles: &["guest"],
        tools: &["tool_0"],
        prompts: &["test_simple_prompt"],
        resources: &["test://static-text"],
        ..Rule::default()
    };
    fleet.allow(rule).await.unwrap();
    let guest = fleet.key(&["guest"]).await.unwrap();
    for peer in [Peer::Ts1, Peer::Ts2, Peer::Py2, Peer::Py2Legacy] {
        let visit = Visit::to(&fleet.url(SERVER))
            .token(&guest)
            .list_tools()
            .list_prompts()
            .list_resources()
            .call("tool_0", &json!({}))
            .call("tool_1", &json!({}))
            .call("no-such-tool", &json!({}))
            .read("test://static-binary");
        let seen = visit.by(peer).await.unwrap();
        let [tools, prompts, resources, own, other, unknown, binary] = &seen.operations[..] else {
            panic!("{peer:?} stopped early: {seen:#?}")
        };
        assert_eq!(tools.names(), ["tool_0"], "{peer:?}");
        assert_eq!(prompts.names(), ["test_simple_prompt"], "{peer:?}");
        assert_eq!(resources.result["resources"].as_array().map(Vec::len), Some(1), "{peer:?}: {resources:?}");
        assert_eq!(own.text(), Some("tool_0"), "{peer:?}");
        assert!(!other.ok && !binary.ok, "{peer:?}: {other:?} {binary:?}");
        let said = |outcome: &mcpgw_tests::peers::Outcome, name: &str| format!("{:?}", outcome.error).replace(name, "NAME");
        assert_eq!(said(other, "tool_1"), said(unknown, "no-such-tool"), "{peer:?}: a denied tool must look like an unknown one");
    }
    assert_eq!(fleet.backend.stats().snapshot().calls_of("tool_1"), 0);
}
