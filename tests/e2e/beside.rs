//! What travels beside the manifest, and nodes on their own: endpoints drained at once, removed nodes cut off, nodes that come back by
//! themselves after their certificate expired.

use std::sync::Arc;
use std::time::Duration;

use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{DeleteNodeRequest, ListNodesRequest, Node as Listed, SetEndpointStateRequest};
use mcp_gateway::proto::config::v1::EndpointState;
use mcpgw_controlplane::keys::Keys;
use mcpgw_controlplane::nodes::identity;
use mcpgw_tests::fleet::{Answer, Call, Control, Fleet, Http, Node, ORG, Rule, SERVER};
use rcgen::{CertificateParams, KeyPair};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::types::chrono;

const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

async fn call(node: &Node, key: &str) -> Answer {
    let url = node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"));
    Http::default().send(Call::tool(&url, key, "tool_0", &json!({}))).await.unwrap()
}

/// Asks until `holds`: nothing of a node can be watched from outside.
async fn until<T>(what: &str, ask: impl AsyncFn() -> T, holds: impl Fn(&T) -> bool) -> T {
    let asked = async {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            let found = ask().await;
            if holds(&found) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap_or_else(|_| panic!("{what} never came"))
}

async fn nodes(fleet: &Fleet) -> Vec<Listed> {
    let mut client = NodeServiceClient::new(fleet.admin.channel.clone());
    client.list_nodes(fleet.admin.request(ListNodesRequest::default())).await.unwrap().into_inner().nodes
}

async fn set(fleet: &Fleet, state: EndpointState) {
    let mut client = ServerServiceClient::new(fleet.admin.channel.clone());
    let (name, url) = (format!("organizations/{ORG}/servers/{SERVER}"), fleet.backend.url());
    let request = SetEndpointStateRequest { name, url, state: state.into(), ..SetEndpointStateRequest::default() };
    client.set_endpoint_state(fleet.admin.request(request)).await.unwrap();
}

/// Makes the organisation one that no node can compile, behind the API's back.
async fn poison(fleet: &Fleet) {
    let mut connection = fleet.control.running.sql().await;
    for statement in [
        "BEGIN",
        "UPDATE mcp_servers SET transport = 99",
        "UPDATE config_head SET version = version + 1",
        "INSERT INTO config_change (epoch, version, seq, org_id, org_slug, kind, resource, operation, actor) \
         SELECT head.epoch, head.version, 1, server.org_id, '', 'server', 'by hand', 'update', 'test' \
         FROM config_head AS head, mcp_servers AS server LIMIT 1",
        "COMMIT",
    ] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_endpoint_waits_for_no_version_and_no_refused_configuration_and_outlives_a_restart() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    assert_eq!(call(&fleet.node, &key).await.status.as_u16(), 200);
    poison(&fleet).await;
    until("the refusal", async || nodes(&fleet).await, |nodes| nodes.iter().any(|node| !node.problems.is_empty())).await;
    let head = "SELECT version FROM config_head";
    let before: i64 = sqlx::query_scalar(head).fetch_one(&mut fleet.control.running.sql().await).await.unwrap();

    set(&fleet, EndpointState::Drained).await;
    let refused = until("the drain", async || call(&fleet.node, &key).await, |answer| answer.status.as_u16() == 503).await;
    assert_eq!(fleet.admin.record(refused.request_id()).await.unwrap().reason, "route.drained");
    assert_eq!(fleet.node.metric("mcpgw_dataplane_endpoints_drained").await.unwrap(), 1);
    let after: i64 = sqlx::query_scalar(head).fetch_one(&mut fleet.control.running.sql().await).await.unwrap();
    assert_eq!(after, before);
    set(&fleet, EndpointState::Active).await;
    until("the end of the drain", async || call(&fleet.node, &key).await, |answer| answer.status.as_u16() == 200).await;
    set(&fleet, EndpointState::Drained).await;
    until("the second drain", async || call(&fleet.node, &key).await, |answer| answer.status.as_u16() == 503).await;

    let Fleet { control, mut node, backend: _backend, admin: _ } = fleet;
    control.running.stop().await.unwrap();
    node.halt().await.unwrap();
    node.resume().await.unwrap();
    assert_eq!(call(&node, &key).await.status.as_u16(), 503, "drained before the restart, and nobody said otherwise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_and_says_so_while_its_traffic_goes_on() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let connected = async || fleet.node.metric("mcpgw_dataplane_discovery_connected").await.unwrap();
    assert_eq!(connected().await, 1);
    let name = nodes(&fleet).await.remove(0).name;
    let request = DeleteNodeRequest { name, ..DeleteNodeRequest::default() };
    NodeServiceClient::new(fleet.admin.channel.clone()).delete_node(fleet.admin.request(request)).await.unwrap();
    until("the end of the stream", connected, |connected| *connected == 0).await;
    assert_eq!(nodes(&fleet).await, []);
    assert_eq!(call(&fleet.node, &key).await.status.as_u16(), 200, "what it serves is for whoever removed it to stop");
    let version = fleet.admin.create_policy(ORG, Rule { name: "other", ..RULE }).await.unwrap().config_version;
    assert!(fleet.admin.wait(version).await.unwrap().nodes.is_empty(), "nobody waits for it");
    assert!(fleet.node.metric("mcpgw_dataplane_config_version").await.unwrap() < version);
}

/// What the node keeps becomes an identity whose certificate expired a minute ago; its keys stay.
fn expire(node: &Node, keys: &Keys, trust_domain: &str) {
    let path = node.state_dir().join("identity.json");
    let mut kept: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let text = |field: &str| kept[field].as_str().unwrap().to_owned();
    let key = KeyPair::from_pem(&text("private_key_pem")).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let of = identity::Identity { node_id: text("node_id").parse().unwrap(), pool: text("pool") };
    let past = chrono::Utc::now() - Duration::from_secs(60);
    let leaf = identity::certify_until(&keys.node_ca.current().material, csr.der(), &of, trust_domain, past).unwrap();
    kept["certificate_pem"] = leaf.pem.into();
    std::fs::write(&path, kept.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_certificate_expired_serves_on_and_comes_back_without_anybodys_help() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let Fleet { control, mut node, backend: _backend, admin: _ } = fleet;
    let keys: Arc<Keys> = control.running.core.custody.keys().unwrap();
    let (mut config, addresses) = ((*control.running.core.config).clone(), control.addresses());
    control.running.stop().await.unwrap();
    node.halt().await.unwrap();
    expire(&node, &keys, &config.trust_domain);
    let before = node.identity().unwrap();
    node.resume().await.unwrap();
    for _ in 0..10 {
        assert_eq!(call(&node, &key).await.status.as_u16(), 200, "neither certificate nor control plane");
    }

    (config.node_listen, config.admin_listen) = (addresses.node, addresses.admin);
    let control = Control::with(config).await.unwrap();
    let admin = control.owner().await.unwrap();
    let version = admin.create_policy(ORG, Rule { name: "other", tools: &["tool_1"], ..RULE }).await.unwrap().config_version;
    let runs = async || node.metric("mcpgw_dataplane_config_version").await.unwrap();
    until("the next version", runs, |running| *running == version).await;
    assert_eq!(call(&node, &key).await.status.as_u16(), 200);
    let after = node.identity().unwrap();
    assert_eq!((after.node_id, after.key_pem), (before.node_id.clone(), before.key_pem), "the same node with the same key");
    assert_ne!(after.certificate_pem, before.certificate_pem);
    let recorded = "SELECT count(*) FROM audit_logs WHERE action = 'node.recover' AND outcome = 'ok' AND actor = $1";
    let recorded = sqlx::query_scalar(recorded).bind(format!("node:{}", before.node_id));
    let recorded: i64 = recorded.fetch_one(&mut control.running.sql().await).await.unwrap();
    assert_eq!(recorded, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_learn_where_the_others_of_their_pool_are() {
    let control = Control::start().await.unwrap();
    let admin = control.owner().await.unwrap();
    let join = async |advertise: &str| {
        let (token, advertise) = (admin.join_token().await.unwrap(), advertise.to_owned());
        let node = Node::with(&control, |config| {
            config.control_plane.join_token = Some(SecretString::from(token));
            config.peer.advertise = Some(advertise);
        });
        node.await.unwrap()
    };
    let fleet = [join("10.0.0.1:7500").await, join("10.0.0.2:7500").await];
    for node in &fleet {
        let known = async || node.metric("mcpgw_dataplane_peers").await.unwrap();
        until("the list of both", known, |known| *known == 2).await;
    }
}
