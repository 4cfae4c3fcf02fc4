//! Keys move on under traffic: no call fails, what was made with the keys of before stays good, and the node follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mcp_gateway::proto::admin::v1::auth_service_client::AuthServiceClient;
use mcp_gateway::proto::admin::v1::custody_service_client::CustodyServiceClient;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;
use mcp_gateway::proto::admin::v1::{
    Audience, CreateMembershipRequest, ListUsersRequest, LoginRequest, Membership, Role, RotateCustodyKeyRequest,
};
use mcpgw_tests::fleet::{Answer, Call, Fleet, Http, Node, ORG, OWNER_EMAIL, OWNER_PASSWORD, Rule, SERVER};
use serde_json::json;
use tokio::task::JoinSet;

const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};
/// Twice manifest and pool: the second time, the node holds no key that fits and has to fetch it.
const TURNS: [&str; 8] = ["jwt", "session", "credential", "manifest", "pool/default", "node-ca", "manifest", "pool/default"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_moves_on_under_traffic_and_no_call_fails() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let (key, token) = (fleet.key(&["tester"]).await.unwrap(), token(&fleet).await);
    let (http, url) = (Http::default(), fleet.url(SERVER));
    let session = open_session(&http, &url, &key).await;
    let identity = fleet.node.identity().unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for credential in [&key, &token] {
        clients.spawn(call_until(done.clone(), url.clone(), credential.clone()));
    }
    // What nodes know of an authority takes a day to spread; here it is a day later.
    let age = "UPDATE keys SET created_at = created_at - interval '25 hours' WHERE purpose = 'node_ca'";
    sqlx::query(age).execute(&mut fleet.control.running.sql().await).await.unwrap();
    for purpose in TURNS {
        let version = rotate(&fleet, purpose).await;
        fleet.admin.wait(version).await.unwrap_or_else(|error| panic!("{purpose}: {error:#}"));
    }
    let last = fleet.allow(Rule { name: "other", ..RULE }).await.unwrap();
    done.store(true, Ordering::Relaxed);
    let calls = clients.join_all().await;
    assert!(calls.iter().all(|count| *count > TURNS.len()), "{calls:?}");

    for credential in [&key, &token] {
        let answer = http.send(Call::tool(&url, credential, "tool_0", &json!({}))).await.unwrap();
        served(&answer);
        let record = fleet.admin.record(answer.request_id()).await.unwrap();
        assert_eq!(record.config_version, last, "{record:?}");
    }
    served(&in_session(&http, &url, &key, &session).await);
    assert_ne!(fleet.node.identity().unwrap().certificate_pem, identity.certificate_pem, "it fetched the keys it lacked");
    // The listener answers with the new authority, and a token of now names it.
    let newcomer = Node::join(&fleet.control, &fleet.admin).await.unwrap();
    let there = newcomer.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"));
    served(&http.send(Call::tool(&there, &key, "tool_0", &json!({}))).await.unwrap());
    served(&in_session(&http, &there, &key, &session).await);
}

fn served(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.text().as_deref()), (200, Some("tool_0")), "{answer:?}");
}

async fn rotate(fleet: &Fleet, purpose: &str) -> u64 {
    let request = fleet.admin.request(RotateCustodyKeyRequest { purpose: purpose.to_owned(), ..Default::default() });
    let rotated = CustodyServiceClient::new(fleet.admin.channel.clone()).rotate_custody_key(request).await;
    rotated.unwrap_or_else(|status| panic!("{purpose}: {status}")).into_inner().config_version
}

/// The owner's token for the gateway, with the role of the rule.
async fn token(fleet: &Fleet) -> String {
    let (admin, channel) = (&fleet.admin, &fleet.admin.channel);
    let users = UserServiceClient::new(channel.clone()).list_users(admin.request(ListUsersRequest::default())).await.unwrap();
    let user = users.into_inner().users.remove(0).name;
    let membership = Membership { user, role: Role::Member.into(), policy_roles: vec!["tester".into()], ..Membership::default() };
    let request = CreateMembershipRequest {
        parent: format!("organizations/{ORG}"),
        membership: Some(membership),
        ..CreateMembershipRequest::default()
    };
    MembershipServiceClient::new(channel.clone()).create_membership(admin.request(request)).await.unwrap();
    let request = LoginRequest {
        email: OWNER_EMAIL.to_owned(),
        password: OWNER_PASSWORD.to_owned(),
        organization: format!("organizations/{ORG}"),
        audience: Audience::Gateway.into(),
    };
    AuthServiceClient::new(channel.clone()).login(request).await.unwrap().into_inner().access_token
}

/// Calls one after the other; every one must be served. How many there were.
async fn call_until(done: Arc<AtomicBool>, url: String, credential: String) -> usize {
    let http = Http::default();
    let mut calls = 0;
    while !done.load(Ordering::Relaxed) {
        served(&http.send(Call::tool(&url, &credential, "tool_0", &json!({}))).await.unwrap());
        calls += 1;
    }
    calls
}

/// A session of the era that has them; its id.
async fn open_session(http: &Http, url: &str, key: &str) -> String {
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let opened = http.send(legacy(url, key, &body)).await.unwrap();
    assert_eq!(opened.status.as_u16(), 200, "{opened:?}");
    let session = opened.headers.get("mcp-session-id").unwrap().to_str().unwrap().to_owned();
    let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let told = http.send(legacy(url, key, &ready).header("mcp-session-id", &session)).await.unwrap();
    assert!(told.status.is_success(), "{told:?}");
    served(&in_session(http, url, key, &session).await);
    session
}

async fn in_session(http: &Http, url: &str, key: &str, session: &str) -> Answer {
    let params = json!({ "name": "tool_0", "arguments": {} });
    let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params });
    http.send(legacy(url, key, &body).header("mcp-session-id", session)).await.unwrap()
}

fn legacy(url: &str, key: &str, body: &serde_json::Value) -> Call {
    Call::post(url, body.to_string())
        .header("mcp-protocol-version", "2025-11-25")
        .header("authorization", &format!("Bearer {key}"))
}
