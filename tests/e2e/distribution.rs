//! A node and its control plane: traffic outlives it, no record is lost, and a configuration that does not compile changes nothing.

use std::time::Duration;

use mcp_gateway::proto::admin::v1::ListNodesRequest;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;
use mcpgw_controlplane::testing::{self, Postgres};
use mcpgw_tests::fleet::{Admin, Answer, Call, Control, Fleet, Http, ORG, Rule, SERVER};
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

async fn call(http: &Http, url: &str, key: &str) -> Answer {
    http.send(Call::tool(url, key, "tool_0", &json!({}))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_outlives_the_control_plane_and_every_call_is_recorded_once() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let (http, url) = (Http::default(), fleet.url(SERVER));
    let mut requests = vec![call(&http, &url, &key).await];

    let Fleet { control, node: _node, backend: _backend, admin: _ } = fleet;
    let (mut config, addresses) = ((*control.running.core.config).clone(), control.addresses());
    control.running.stop().await.unwrap();
    for _ in 0..50 {
        requests.push(call(&http, &url, &key).await);
    }
    for answer in &requests {
        assert_eq!((answer.status.as_u16(), answer.text().as_deref()), (200, Some("tool_0")), "{answer:?}");
    }

    (config.node_listen, config.admin_listen) = (addresses.node, addresses.admin);
    let control = Control::with(config).await.unwrap();
    let admin = control.owner().await.unwrap();
    let other = Rule { name: "other", tools: &["tool_1"], ..RULE };
    let version = admin.create_policy(ORG, other).await.unwrap().config_version;
    admin.wait(version).await.unwrap();
    requests.push(call(&http, &url, &key).await);
    for answer in &requests {
        let record = admin.record(answer.request_id()).await.unwrap();
        assert_eq!(record.outcome, "ok", "{record:?}");
    }
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM request_logs").fetch_one(&mut control.running.sql().await).await.unwrap();
    assert_eq!(usize::try_from(rows).unwrap(), requests.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_outlives_the_database_and_its_records_arrive_when_it_is_back() {
    let postgres = Postgres::start(); // its own: the others' must not stop
    postgres.execute("CREATE DATABASE frail").await;
    let mut config = testing::config(&postgres.url("frail"));
    config.database_acquire_seconds = 1;
    let fleet = Fleet::on(Control::with(config).await.unwrap()).await.unwrap();
    let version = fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let (http, url) = (Http::default(), fleet.url(SERVER));

    postgres.down();
    let mut requests = Vec::new();
    for _ in 0..50 {
        requests.push(call(&http, &url, &key).await);
    }
    let error = fleet.admin.create_policy(ORG, Rule { name: "lost", ..RULE }).await.unwrap_err();
    let status = error.downcast_ref::<tonic::Status>().expect("the API answers");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(!status.message().contains("frail") && !status.message().contains("host="), "{status:?}");
    requests.push(call(&http, &url, &key).await);
    for answer in &requests {
        assert_eq!((answer.status.as_u16(), answer.text().as_deref()), (200, Some("tool_0")), "{answer:?}");
    }

    postgres.up();
    for answer in &requests {
        let record = fleet.admin.record(answer.request_id()).await.unwrap();
        assert_eq!((record.outcome.as_str(), record.rule.as_str()), ("ok", "tester"), "{record:?}");
    }
    let mut sql = fleet.control.running.sql().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM request_logs").fetch_one(&mut sql).await.unwrap();
    assert_eq!(usize::try_from(rows).unwrap(), requests.len());
    let next = fleet.allow(Rule { name: "after", ..RULE }).await.unwrap();
    assert_eq!(next, version + 2, "the key is one version, this rule the next, what was refused is none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_does_not_compile_is_reported_and_the_last_good_one_serves() {
    let fleet = Fleet::start().await.unwrap();
    let good = fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    let (http, url) = (Http::default(), fleet.url(SERVER));
    let served = call(&http, &url, &key).await;
    assert_eq!(served.text().as_deref(), Some("tool_0"), "{served:?}");

    // The API refuses such a server; only somebody at the database can break it.
    change(&fleet, "UPDATE mcp_servers SET transport = 99").await;
    let problems = problems(&fleet.admin, |problems| !problems.is_empty()).await;
    assert!(problems.iter().any(|problem| problem.contains("transport")), "{problems:?}");
    let served = call(&http, &url, &key).await;
    assert_eq!(served.text().as_deref(), Some("tool_0"));
    assert!(fleet.admin.record(served.request_id()).await.unwrap().config_version >= good);

    change(&fleet, "UPDATE mcp_servers SET transport = 1").await;
    let repaired = fleet.allow(Rule { name: "other", ..RULE }).await.unwrap();
    let served = call(&http, &url, &key).await;
    let record = fleet.admin.record(served.request_id()).await.unwrap();
    assert_eq!(record.config_version, repaired, "{record:?}");
    self::problems(&fleet.admin, <[String]>::is_empty).await;
}

/// Changes rows behind the API's back, and lets the replicas notice as if the API had.
async fn change(fleet: &Fleet, sql: &'static str) {
    let mut connection = fleet.control.running.sql().await;
    let statements = [
        "BEGIN",
        sql,
        "UPDATE config_head SET version = version + 1",
        "INSERT INTO config_change (epoch, version, seq, org_id, org_slug, kind, resource, operation, actor) \
         SELECT head.epoch, head.version, 1, server.org_id, '', 'server', 'by hand', 'update', 'test' \
         FROM config_head AS head, mcp_servers AS server LIMIT 1",
        "COMMIT",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

/// What the only node says is wrong, once that is as expected.
pub async fn problems(admin: &Admin, expected: impl Fn(&[String]) -> bool) -> Vec<String> {
    let arrived = async {
        // There is no watch on nodes yet, so this asks until the control plane has noted it.
        let mut turn = tokio::time::interval(Duration::from_millis(50));
        loop {
            turn.tick().await;
            let mut client = NodeServiceClient::new(admin.channel.clone());
            let nodes = client.list_nodes(admin.request(ListNodesRequest::default())).await.unwrap().into_inner().nodes;
            let problems = nodes.into_iter().next().map(|node| node.problems).unwrap_or_default();
            if expected(&problems) {
                return problems;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("the control plane notes what the node says")
}
