//! Endpoints that an operator took out of use: they get no new call, and what that means for sessions.

use mcp_gateway::proto::config::v1::{Endpoint, EndpointState, EndpointStatus, Endpoints, ServerEndpoints};

use super::scope::{OPEN, Scope};
use super::sessions::{CALL, legacy, open};
use super::world::{Answer, Gateway, Upstream};

/// A server with two endpoints.
async fn world() -> (Gateway, [Upstream; 2]) {
    let upstreams = [Upstream::start(legacy).await, Upstream::start(legacy).await];
    let mut scope = Scope::at(upstreams[0].address);
    scope.server(OPEN).endpoints.push(Endpoint { url: url(&upstreams[1]), weight: 0 });
    (Gateway::start(&scope).await, upstreams)
}

fn url(upstream: &Upstream) -> String {
    format!("http://{}/mcp", upstream.address)
}

fn drain(gateway: &Gateway, drained: &[&Upstream]) {
    let status = |upstream: &&Upstream| EndpointStatus { url: url(upstream), state: EndpointState::Drained.into() };
    let endpoints = drained.iter().map(status).collect();
    gateway.live.set_endpoints(&Endpoints { servers: vec![ServerEndpoints { server_id: OPEN.into(), endpoints }] });
}

async fn ask(gateway: &Gateway) -> Answer {
    gateway.ask(gateway.modern(OPEN, &[], "tools/call", r#""name":"search_code""#)).await
}

#[tokio::test]
async fn a_drained_endpoint_gets_no_call_until_it_is_in_use_again() {
    let (gateway, [one, other]) = world().await;
    drain(&gateway, &[&one]);
    for _ in 0..16 {
        assert_eq!(ask(&gateway).await.status, 200);
    }
    assert_eq!((one.seen().len(), other.seen().len()), (0, 16));
    drain(&gateway, &[&other]);
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!((one.seen().len(), other.seen().len()), (1, 16));
}

#[tokio::test]
async fn a_server_whose_endpoints_are_all_drained_is_unavailable_for_that_reason() {
    let (gateway, [one, other]) = world().await;
    drain(&gateway, &[&one, &other]);
    let answer = ask(&gateway).await;
    assert_eq!((answer.status.as_u16(), answer.code(), answer.header("retry-after")), (503, -31503, Some("5")), "{answer:?}");
    assert_eq!(gateway.record(answer.request_id()).0.reason, "route.drained");
    assert_eq!(one.seen().len() + other.seen().len(), 0);
    drain(&gateway, &[]);
    assert_eq!(ask(&gateway).await.status, 200);
}

#[tokio::test]
async fn a_session_at_a_drained_endpoint_has_to_be_opened_anew_and_then_lives_elsewhere() {
    let (gateway, [one, other]) = world().await;
    drain(&gateway, &[&other]);
    let opened = open(&gateway, OPEN, "", "2025-11-25").await;
    let session = opened.header("mcp-session-id").unwrap().to_owned();
    let with = [("mcp-session-id", &*session), ("mcp-protocol-version", "2025-11-25")];
    assert_eq!(gateway.ask(gateway.post(OPEN, &with, CALL)).await.status, 200);
    drain(&gateway, &[&one]);
    let answer = gateway.ask(gateway.post(OPEN, &with, CALL)).await;
    assert_eq!(answer.status, 404, "the protocol's word for: initialize a new one");
    let opened = open(&gateway, OPEN, "", "2025-11-25").await;
    let session = opened.header("mcp-session-id").unwrap().to_owned();
    let with = [("mcp-session-id", &*session), ("mcp-protocol-version", "2025-11-25")];
    assert_eq!(gateway.ask(gateway.post(OPEN, &with, CALL)).await.status, 200);
    assert_eq!((one.seen().len(), other.seen().len()), (2, 2));
    drain(&gateway, &[&one, &other]);
    let answer = gateway.ask(gateway.post(OPEN, &with, CALL)).await;
    assert_eq!(answer.status, 503, "with nowhere else to go the session may yet come back");
}
