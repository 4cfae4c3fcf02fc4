//! One request, one configuration: while versions change under load, each answer agrees with the version that its record names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_gateway::proto::admin::v1::UpdatePolicyRequest;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;
use mcpgw_tests::fleet::{Admin, Call, Fleet, Http, ORG, Rule, SERVER};
use prost_types::FieldMask;
use serde_json::json;
use sqlx::Row as _;
use tokio::task::JoinSet;
use uuid::Uuid;

const VERSIONS: u64 = 200;
const REQUESTS: usize = 20_000;
const CLIENTS: usize = 8;
const TOOLS: [&str; 2] = ["tool_0", "tool_1"];

/// What a client saw: which tool it asked for, and whether it ran.
type Seen = HashMap<Uuid, (usize, bool)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_versions_under_load_and_every_answer_agrees_with_its_version() {
    let fleet = Fleet::start().await.unwrap();
    let first = fleet.allow(rule(0)).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let published = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(call_until(published.clone(), fleet.url(SERVER), key.clone()));
    }

    let mut allowed_tool = BTreeMap::from([(first, 0)]);
    for number in 1..=VERSIONS {
        let version = publish(&fleet.admin, number).await;
        allowed_tool.insert(version, usize::try_from(number % 2).unwrap());
    }
    published.store(true, Ordering::Relaxed);
    let seen: Seen = clients.join_all().await.into_iter().flatten().collect();

    assert!(seen.len() >= REQUESTS, "only {} requests", seen.len());
    let records = records(&fleet, seen.len()).await;
    let mut versions_seen = BTreeMap::new();
    for (request_id, (tool, ran)) in &seen {
        let version = *records.get(request_id).unwrap_or_else(|| panic!("{request_id} has no record"));
        let (_, allowed) = allowed_tool.range(..=version).next_back().expect("the first version comes before every call");
        assert_eq!(*ran, tool == allowed, "{request_id}: {} under version {version}", TOOLS[*tool]);
        *versions_seen.entry(version).or_insert(0) += 1;
    }
    assert_eq!(records.len(), seen.len(), "a record for each request and no other");
    println!("{} requests over {} versions, 0 failed, 0 disagree", seen.len(), versions_seen.len());
}

fn rule(number: u64) -> Rule<'static> {
    let tools: &[&str] = if number.is_multiple_of(2) { &["tool_0"] } else { &["tool_1"] };
    Rule { name: "flip", server: SERVER, roles: &["tester"], tools, ..Rule::default() }
}

/// Publishes the next version and waits until the node runs it, so that each version really decides calls.
async fn publish(admin: &Admin, number: u64) -> u64 {
    let mut policy = rule(number).policy();
    policy.name = format!("organizations/{ORG}/policies/flip");
    let request = UpdatePolicyRequest {
        policy: Some(policy),
        update_mask: Some(FieldMask { paths: vec!["match".to_owned()] }),
        ..UpdatePolicyRequest::default()
    };
    let mut client = PolicyServiceClient::new(admin.channel.clone());
    let version = client.update_policy(admin.request(request)).await.unwrap().into_inner().config_version;
    admin.wait(version).await.unwrap();
    version
}

/// Calls both tools in turn until all versions are out and its share of the requests is done. Anything but a result or a refusal fails.
async fn call_until(published: Arc<AtomicBool>, url: String, key: String) -> Seen {
    let http = Http::default();
    let mut seen = Seen::new();
    while !published.load(Ordering::Relaxed) || seen.len() < REQUESTS.div_ceil(CLIENTS) {
        let tool = seen.len() % 2;
        let answer = http.send(Call::tool(&url, &key, TOOLS[tool], &json!({}))).await.unwrap();
        let ran = match (answer.status.as_u16(), answer.text(), answer.code()) {
            (200, Some(text), None) if text == TOOLS[tool] => true,
            (200, None, Some(-32602)) => false,
            _ => panic!("neither a result nor a refusal: {answer:?}"),
        };
        seen.insert(answer.request_id().parse().unwrap(), (tool, ran));
    }
    seen
}

/// The version that each record of a tool call names, once as many have arrived as were sent.
async fn records(fleet: &Fleet, expected: usize) -> HashMap<Uuid, u64> {
    let mut sql = fleet.control.running.sql().await;
    let mut turn = tokio::time::interval(Duration::from_millis(50));
    let arrived = async {
        loop {
            turn.tick().await;
            let rows = sqlx::query(
                "SELECT request_id, config_version FROM request_logs WHERE method = 'tools/call' AND outcome IS NOT NULL",
            )
            .fetch_all(&mut sql)
            .await
            .unwrap();
            if rows.len() >= expected {
                return rows;
            }
        }
    };
    let rows = tokio::time::timeout(Duration::from_secs(120), arrived).await.expect("every record arrives");
    rows.iter().map(|row| (row.get(0), u64::try_from(row.get::<i64, _>(1)).unwrap())).collect()
}
