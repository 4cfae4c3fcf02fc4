//! What nodes decide when a configuration is taken back, when rows vanish, and when the database comes out of a backup.

use std::time::Duration;

use mcp_gateway::proto::admin::v1::{
    AcceptConfigRequest, BumpEpochRequest, DeletePolicyRequest, GetConfigStatusRequest, RollbackConfigRequest,
    config_status_service_client::ConfigStatusServiceClient, config_version_service_client::ConfigVersionServiceClient,
    policy_service_client::PolicyServiceClient,
};
use mcpgw_tests::fleet::{Admin, Call, Control, Fleet, Http, ORG, Rule, SERVER};
use serde_json::json;
use tonic::{Code, Request};

use super::distribution::problems;

const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

/// What a call of the tool gets: its text, or nothing, and the version that decided.
async fn decided(fleet: &Fleet, key: &str) -> (Option<String>, u64) {
    let answer = Http::default().send(Call::tool(&fleet.url(SERVER), key, "tool_0", &json!({}))).await.unwrap();
    let record = fleet.admin.record(answer.request_id()).await.unwrap();
    (answer.text(), record.config_version)
}

fn because<T>(admin: &Admin, request: T) -> Request<T> {
    let mut request = admin.request(request);
    request.metadata_mut().insert("mcpgw-reason", "a test".parse().unwrap());
    request
}

async fn execute(fleet: &Fleet, statements: &[&'static str]) {
    let mut sql = fleet.control.running.sql().await;
    for statement in ["BEGIN"].iter().chain(statements).chain(&["COMMIT"]) {
        sqlx::query(*statement).execute(&mut sql).await.unwrap();
    }
}

/// Stops the control plane, and starts it on the same database and addresses.
async fn restart(fleet: &mut Fleet) {
    let (mut config, addresses) = ((*fleet.control.running.core.config).clone(), fleet.control.addresses());
    (config.node_listen, config.admin_listen) = (addresses.node, addresses.admin);
    // Its streams end with it: the addresses are free again.
    let idle = Control::start().await.unwrap();
    std::mem::replace(&mut fleet.control, idle).running.stop().await.unwrap();
    fleet.control = Control::with(config).await.unwrap();
    fleet.admin = fleet.control.owner().await.unwrap();
}

/// Returns when the node is connected again and runs the version.
async fn arrived(fleet: &Fleet, version: u64) {
    let arrived = async {
        // A node that was refused comes back after a pause of its own; waiting for the fleet does not count who is away.
        let mut turn = tokio::time::interval(Duration::from_millis(100));
        while fleet.admin.wait(version).await.unwrap().nodes.is_empty() {
            turn.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("the node comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_brings_the_old_decisions_back_as_a_new_version() {
    let fleet = Fleet::start().await.unwrap();
    let allowed = fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), allowed + 1));

    let name = format!("organizations/{ORG}/policies/{}", RULE.name);
    let delete = fleet.admin.request(DeletePolicyRequest { name, ..Default::default() });
    let deleted = PolicyServiceClient::new(fleet.admin.channel.clone()).delete_policy(delete).await.unwrap().into_inner();
    fleet.admin.wait(deleted.config_version).await.unwrap();
    assert_eq!(decided(&fleet, &key).await, (None, deleted.config_version));

    let back = RollbackConfigRequest { organization: format!("organizations/{ORG}"), version: allowed, ..Default::default() };
    let mut versions = ConfigVersionServiceClient::new(fleet.admin.channel.clone());
    let done = versions.rollback_config(because(&fleet.admin, back)).await.unwrap().into_inner();
    assert_eq!(done.config_version, deleted.config_version + 1);
    fleet.admin.wait(done.config_version).await.unwrap();
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), done.config_version), "and the key works as before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_table_wipe_guard() {
    let mut fleet = Fleet::start().await.unwrap();
    let allowed = fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let held = async |fleet: &Fleet| {
        let mut published = fleet.control.running.core.publications.watch();
        let now = published.wait_for(|now| now.as_ref().is_some_and(|now| !now.holds.is_empty())).await.unwrap();
        let now = now.clone().expect("just looked at");
        (now.holds["default"].clone(), now.scopes.contains_key("default"))
    };

    let copies = ["CREATE TABLE copied_servers AS TABLE mcp_servers", "CREATE TABLE copied_policies AS TABLE policies"];
    execute(&fleet, &copies).await;
    execute(&fleet, &["TRUNCATE policies, mcp_servers CASCADE"]).await;
    fleet.admin.create_key(ORG, &["other"]).await.unwrap(); // a new version, to which all this belongs
    let (why, has_scope) = held(&fleet).await;
    assert!(why.contains("1 of 1 servers and 1 of 1 policies vanished") && why.contains("mcpgw config accept"), "{why}");
    let mut status = ConfigStatusServiceClient::new(fleet.admin.channel.clone());
    let status = status.get_config_status(fleet.admin.request(GetConfigStatusRequest::default())).await.unwrap().into_inner();
    assert_eq!(status.pools[0].hold, why);
    assert!(has_scope, "this replica has an older one, and keeps it");
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), allowed + 1));

    // A replica that starts now has nothing older to send, and says so rather than nothing at all.
    restart(&mut fleet).await;
    assert!(!held(&fleet).await.1);
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), allowed + 1));

    // The rows come back: that is noticed without a version.
    let back = ["INSERT INTO mcp_servers SELECT * FROM copied_servers", "INSERT INTO policies SELECT * FROM copied_policies"];
    execute(&fleet, &back).await;
    let mut published = fleet.control.running.core.publications.watch();
    published.wait_for(|now| now.as_ref().is_some_and(|now| now.holds.is_empty())).await.unwrap();
    let version = fleet.admin.create_key(ORG, &["another"]).await.unwrap().api_key.unwrap().config_version;
    arrived(&fleet, version).await;
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), version));

    // They go again, and this time an operator says that it is meant.
    let mut versions = ConfigVersionServiceClient::new(fleet.admin.channel.clone());
    let accept = AcceptConfigRequest { pool: "default".into(), ..Default::default() };
    let early = versions.accept_config(because(&fleet.admin, accept.clone())).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early:?}");
    execute(&fleet, &["TRUNCATE policies, mcp_servers CASCADE"]).await;
    fleet.admin.create_key(ORG, &["third"]).await.unwrap();
    held(&fleet).await;
    let silent = versions.accept_config(fleet.admin.request(accept.clone())).await.unwrap_err();
    assert_eq!(silent.code(), Code::InvalidArgument, "{silent:?}");
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), version));
    let accepted = versions.accept_config(because(&fleet.admin, accept)).await.unwrap().into_inner();
    fleet.admin.wait(accepted.config_version).await.unwrap();
    let answer = Http::default().send(Call::tool(&fleet.url(SERVER), &key, "tool_0", &json!({}))).await.unwrap();
    assert_eq!(answer.text(), None, "the server is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn db_restore_needs_epoch_bump() {
    let mut fleet = Fleet::start().await.unwrap();
    let allowed = fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    execute(
        &fleet,
        &[
            "CREATE TABLE copied_policies AS TABLE policies",
            "CREATE TABLE copied_head AS TABLE config_head",
            "CREATE TABLE copied_changes AS TABLE config_change",
            "CREATE TABLE copied_scopes AS TABLE config_scope",
        ],
    )
    .await;
    for name in ["one", "two", "three", "four"] {
        fleet.allow(Rule { name, tools: &["tool_1"], ..RULE }).await.unwrap();
    }
    let newest = allowed + 5;
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), newest));

    execute(
        &fleet,
        &[
            "DELETE FROM policies",
            "INSERT INTO policies SELECT * FROM copied_policies",
            "DELETE FROM config_head",
            "INSERT INTO config_head SELECT * FROM copied_head",
            "DELETE FROM config_change",
            "INSERT INTO config_change SELECT * FROM copied_changes",
            "DELETE FROM config_scope",
            "INSERT INTO config_scope SELECT * FROM copied_scopes",
        ],
    )
    .await;
    let told = |problems: &[String]| problems.iter().any(|problem| problem.contains("bump-epoch"));
    let problem = problems(&fleet.admin, told).await.remove(0);
    let expected = format!("runs 1.{newest}, newer than the store's 1.{}: was the store restored?", allowed + 1);
    assert!(problem.starts_with(&expected), "{problem}");

    // Whatever changes now, the node keeps what it runs; so it is for a control plane that starts.
    restart(&mut fleet).await;
    let delete = DeletePolicyRequest { name: format!("organizations/{ORG}/policies/{}", RULE.name), ..Default::default() };
    let mut policies = PolicyServiceClient::new(fleet.admin.channel.clone());
    let deleted = policies.delete_policy(fleet.admin.request(delete)).await.unwrap().into_inner().config_version;
    assert_eq!(deleted, allowed + 2);
    problems(&fleet.admin, told).await;
    assert_eq!(decided(&fleet, &key).await, (Some("tool_0".into()), newest));

    let mut versions = ConfigVersionServiceClient::new(fleet.admin.channel.clone());
    let bumped = versions.bump_epoch(because(&fleet.admin, BumpEpochRequest::default())).await.unwrap().into_inner();
    assert_eq!((bumped.epoch, bumped.config_version), (2, deleted + 1));
    arrived(&fleet, bumped.config_version).await;
    problems(&fleet.admin, <[String]>::is_empty).await;
    assert_eq!(decided(&fleet, &key).await, (None, bumped.config_version), "the node decides by what the database says");
}
