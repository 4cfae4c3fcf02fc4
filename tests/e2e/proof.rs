//! Proof of what real clients did, asked for on the command line: clean as it was recorded, and each kind of damage named. A database that
//! comes back without its last seconds gets them again from a node that is left alone.

use std::time::Duration;

use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::{FollowRequestLogsRequest, FollowRequestLogsResponse};
use mcpgw_controlplane::evidence::checkpoint;
use mcpgw_controlplane::testing::{self, Postgres};
use mcpgw_tests::cli::Cli;
use mcpgw_tests::fleet::{Admin, Call, Control, Fleet, Http, ORG, OWNER_EMAIL, OWNER_PASSWORD, Rule, SERVER};
use serde_json::json;
use tonic::Streaming;

/// Longest wait for what happens within a minute or two.
const PATIENCE: Duration = Duration::from_secs(180);
const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

async fn signed_in(control: &Control) -> Cli {
    Cli::signed_in(control, OWNER_EMAIL, OWNER_PASSWORD, &[]).await.unwrap()
}

/// Nothing is found: how many rows are proven.
async fn clean(cli: &Cli, arguments: &[&str]) -> u64 {
    let ran = cli.run(&[&["audit", "verify", "--all-orgs", "-o", "json"], arguments].concat(), "").await.unwrap();
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let summary: serde_json::Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(summary["clean"], true);
    summary["rows"].as_str().map_or(0, |rows| rows.parse().unwrap())
}

/// Something is found, and said in so many words.
async fn finds(cli: &Cli, arguments: &[&str], words: &[&str]) {
    let ran = cli.run(&[&["audit", "verify", "--all-orgs"], arguments].concat(), "").await.unwrap();
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let line = ran.stdout.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(line, "{words:?}:\n{}", ran.stdout);
}

async fn follow(admin: &Admin) -> Streaming<FollowRequestLogsResponse> {
    let request = FollowRequestLogsRequest { parent: format!("organizations/{ORG}"), ..Default::default() };
    LogServiceClient::new(admin.channel.clone()).follow_request_logs(admin.request(request)).await.unwrap().into_inner()
}

/// Makes calls and waits until their records are complete; their ids.
async fn calls(fleet: &Fleet, key: &str, count: usize) -> Vec<String> {
    let mut stream = follow(&fleet.admin).await;
    stream.message().await.unwrap().unwrap();
    let (http, url, mut ids) = (Http::default(), fleet.url(SERVER), Vec::new());
    for _ in 0..count {
        ids.push(http.send(Call::tool(&url, key, "tool_0", &json!({}))).await.unwrap().request_id().to_owned());
    }
    let mut missing: std::collections::BTreeSet<_> = ids.iter().cloned().collect();
    while !missing.is_empty() {
        for log in stream.message().await.unwrap().unwrap().request_logs {
            missing.remove(&log.request_id);
        }
    }
    ids
}

async fn sql(fleet: &Fleet, statement: String) {
    let mut sql = fleet.control.running.sql().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_records_of_real_calls_is_named_on_the_command_line() {
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("checkpoints.jsonl");
    let mut config = testing::config(&testing::database().await);
    config.audit_checkpoint_copy_file = Some(copy.clone());
    let fleet = Fleet::on(Control::with(config).await.unwrap()).await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let cli = signed_in(&fleet.control).await;
    let mut ids = calls(&fleet, &key, 5).await;
    let core = &fleet.control.running.core;
    assert_eq!(checkpoint::take(core).await.unwrap(), Some(1));
    ids.extend(calls(&fleet, &key, 5).await);
    assert_eq!(checkpoint::take(core).await.unwrap(), Some(2));
    let copy = copy.to_str().unwrap();
    assert_eq!(clean(&cli, &["--checkpoint", copy]).await, 10);
    assert_eq!(clean(&cli, &["--from", "1h"]).await, 10);
    let listed = cli.run(&["audit", "checkpoints"], "").await.unwrap();
    assert_eq!(listed.stdout.lines().count(), 3, "{}", listed.stdout);

    sql(
        &fleet,
        format!(
            "CREATE TABLE kept AS TABLE request_logs; UPDATE request_logs SET subject = 'nobody' WHERE request_id = '{}'",
            ids[3]
        ),
    )
    .await;
    finds(&cli, &[], &["EDITED", "request_logs", &ids[3], "half=decided", "organizations/acme"]).await;
    sql(&fleet, format!("DELETE FROM request_logs WHERE request_id = '{}'", ids[3])).await;
    finds(&cli, &[], &["DELETED", "request_logs", &ids[3]]).await;
    sql(&fleet, "TRUNCATE request_logs; INSERT INTO request_logs SELECT * FROM kept".into()).await;
    assert_eq!(clean(&cli, &[]).await, 10);
    // Who cuts off the end, evidence and all, is betrayed by what was kept outside.
    sql(&fleet, "DELETE FROM log_checkpoints WHERE number = 2".into()).await;
    assert_eq!(clean(&cli, &[]).await, 10);
    finds(&cli, &["--checkpoint", copy], &["TRUNCATED", "log_checkpoints", "checkpoint 2 was kept outside"]).await;

    for (wrong, words) in [
        (vec!["--from", "yesterdayish"], "--from"),
        (vec!["--from", "1h", "--to", "2h"], "until: expected a moment later than"),
        (vec!["--checkpoint", "/nowhere"], "/nowhere"),
    ] {
        let ran = cli.run(&[&["audit", "verify", "--all-orgs"], &wrong[..]].concat(), "").await.unwrap();
        assert!(ran.code == Some(2) && ran.stderr.contains(words), "{wrong:?}: {:?} {}", ran.code, ran.stderr);
    }
}

/// The database is put back to what it was before the last calls, as one is that fails over to a copy that was behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lost_its_last_seconds_gets_them_again_from_the_node() {
    let server = Postgres::start();
    server.execute("CREATE DATABASE own").await;
    let fleet = Fleet::on(Control::with(testing::config(&server.url("own"))).await.unwrap()).await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let cli = signed_in(&fleet.control).await;
    let mut ids = calls(&fleet, &key, 10).await;
    server.down();
    server.remember();
    server.up();
    ids.extend(calls(&fleet, &key, 10).await);
    assert_eq!(clean(&cli, &[]).await, 20);
    server.down();
    server.forget_since();
    server.up();
    // Nobody calls any more: the node asks by itself, once a minute, and hears that it has to go back.
    let back = async {
        let mut turn = tokio::time::interval(Duration::from_millis(250));
        let query = "SELECT count(*) FROM request_logs WHERE outcome IS NOT NULL";
        loop {
            turn.tick().await;
            let mut sql = fleet.control.running.sql().await;
            let count: i64 = sqlx::query_scalar(query).fetch_one(&mut sql).await.unwrap();
            if count == ids.len() as i64 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("the node ships again what was lost");
    assert_eq!(clean(&cli, &[]).await, 20);
}
