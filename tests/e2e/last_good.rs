//! A node that starts while nothing else runs: no control plane, no database. It serves what it served, and what was revoked stays so.

use std::path::PathBuf;
use std::time::Duration;

use mcp_gateway::proto::admin::v1::RevokeApiKeyRequest;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcpgw_controlplane::testing;
use mcpgw_tests::backend::Backend;
use mcpgw_tests::fleet::{Answer, Call, Fleet, Http, Node, ORG, Rule, SERVER};
use secrecy::ExposeSecret as _;
use serde_json::json;

const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

/// Calls the fleet's server through the node, wherever it listens now.
async fn call(node: &Node, key: &str) -> Answer {
    let url = node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"));
    Http::default().send(Call::tool(&url, key, "tool_0", &json!({}))).await.unwrap()
}

/// The node and the MCP server, with nothing else left: the control plane has stopped and its database is gone.
async fn alone(fleet: Fleet) -> (Node, Backend) {
    let Fleet { control, node, backend, admin: _ } = fleet;
    let url = control.running.core.config.database_url.expose_secret().to_owned();
    control.running.stop().await.unwrap();
    let database = url.split(['/', '?']).find(|part| part.starts_with("test_")).expect("a database of this test");
    testing::postgres().execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await;
    (node, backend)
}

/// What the node keeps, oldest first: versions and files.
fn kept(node: &Node) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(node.state_dir().join("snapshots")) else { return Vec::new() };
    let snapshot = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let version = name.split('-').nth(2)?.parse().ok()?;
        (!name.contains('.')).then_some((version, path))
    };
    let mut kept: Vec<_> = entries.filter_map(|entry| snapshot(entry.unwrap().path())).collect();
    kept.sort_unstable();
    kept
}

/// Returns once `version` is on disk: it is written behind the acknowledgement, and only the directory tells.
async fn stored(node: &Node, version: u64) {
    let asked = async {
        let mut turn = tokio::time::interval(Duration::from_millis(10));
        while !kept(node).iter().any(|(kept, _)| *kept == version) {
            turn.tick().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), asked).await;
    waited.unwrap_or_else(|_| panic!("version {version} is not on disk: {:?}", kept(node)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_serves_from_disk_with_nothing_else_running() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    assert_eq!(call(&fleet.node, &key).await.text().as_deref(), Some("tool_0"));
    let version = fleet.node.metric("mcpgw_dataplane_config_version").await.unwrap();
    assert_eq!(fleet.node.metric("mcpgw_config_stale_seconds").await.unwrap(), 0);

    let (mut node, _backend) = alone(fleet).await;
    for _ in 0..2 {
        node.halt().await.unwrap();
        node.resume().await.unwrap();
        node.ready().await.unwrap();
        assert_eq!(node.metric("mcpgw_dataplane_config_version").await.unwrap(), version);
        assert_eq!(node.metric("mcpgw_dataplane_discovery_connected").await.unwrap(), 0);
        let waiting = node.metric("mcpgw_dataplane_audit_spool_frames").await.unwrap();
        let served = call(&node, &key).await;
        assert_eq!((served.status.as_u16(), served.text().as_deref()), (200, Some("tool_0")), "{served:?}");
        assert_eq!(call(&node, "").await.status.as_u16(), 401, "it decides, too");
        let frames = node.metric("mcpgw_dataplane_audit_spool_frames").await.unwrap();
        assert_eq!(frames, waiting + 4, "two calls on record, for whenever there is somebody to tell");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_does_not_unrevoke() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let good = fleet.key(&["tester"]).await.unwrap();
    let revoked = fleet.admin.create_key(ORG, &["tester"]).await.unwrap();
    let (secret, revoked) = (revoked.secret, revoked.api_key.unwrap());
    fleet.admin.wait(revoked.config_version).await.unwrap();
    assert_eq!(call(&fleet.node, &secret).await.status.as_u16(), 200);
    stored(&fleet.node, revoked.config_version).await;

    let request = RevokeApiKeyRequest { name: revoked.name, ..RevokeApiKeyRequest::default() };
    let mut client = ApiKeyServiceClient::new(fleet.admin.channel.clone());
    let after = client.revoke_api_key(fleet.admin.request(request)).await.unwrap().into_inner();
    fleet.admin.wait(after.config_version).await.unwrap();
    assert_eq!(call(&fleet.node, &secret).await.status.as_u16(), 401);

    let (mut node, _backend) = alone(fleet).await;
    node.halt().await.unwrap();
    // As if the node had died before it kept a snapshot without the key: what is left still knows it.
    for (version, path) in kept(&node) {
        if version > revoked.config_version {
            std::fs::remove_file(path).unwrap();
        }
    }
    node.resume().await.unwrap();
    node.ready().await.unwrap();
    assert_eq!(node.metric("mcpgw_dataplane_config_version").await.unwrap(), revoked.config_version);
    assert_eq!(call(&node, &secret).await.status.as_u16(), 401, "revoked before the restart");
    assert_eq!(call(&node, &good).await.status.as_u16(), 200);

    node.halt().await.unwrap();
    std::fs::remove_file(node.state_dir().join("revocations")).unwrap();
    node.resume().await.unwrap();
    assert_eq!(call(&node, &secret).await.status.as_u16(), 200, "it was the stored revocation that refused the key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_last_good_falls_back() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let before = fleet.node.metric("mcpgw_dataplane_config_version").await.unwrap();
    stored(&fleet.node, before).await;
    let newest = fleet.allow(Rule { name: "other", tools: &["tool_1"], ..RULE }).await.unwrap();
    stored(&fleet.node, newest).await;

    let (mut node, _backend) = alone(fleet).await;
    node.halt().await.unwrap();
    let (_, path) = kept(&node).pop().unwrap();
    let mut file = std::fs::read(&path).unwrap();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    std::fs::write(&path, file).unwrap();
    node.resume().await.unwrap();
    node.ready().await.unwrap();
    assert_eq!(node.metric("mcpgw_dataplane_config_version").await.unwrap(), before);
    assert_eq!(call(&node, &key).await.text().as_deref(), Some("tool_0"));
    assert!(!path.exists() && path.with_extension("corrupt").exists());

    node.halt().await.unwrap();
    for (_, path) in kept(&node) {
        std::fs::write(path, b"").unwrap();
    }
    node.resume().await.unwrap();
    assert_eq!(call(&node, &key).await.status.as_u16(), 503, "with nothing good left it waits for a control plane, and runs");
}
