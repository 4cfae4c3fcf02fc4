//! Where the configuration has arrived, as a watcher and the metrics page of a whole gateway tell it.

use http::Method;
use mcp_gateway::proto::admin::v1::config_status_service_client::ConfigStatusServiceClient;
use mcp_gateway::proto::admin::v1::{ConfigStatus, NodeCounts, PoolStatus, WatchConfigStatusRequest};
use mcpgw_tests::fleet::{Call, Fleet, Http, ORG, Rule, SERVER};
use tonic::Streaming;

const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_a_change_arrive_and_a_broken_organisation_named_with_its_reason() {
    let fleet = Fleet::start().await.unwrap();
    let mut client = ConfigStatusServiceClient::new(fleet.admin.channel.clone());
    let request = fleet.admin.request(WatchConfigStatusRequest { pool: "default".into() });
    let mut watched = client.watch_config_status(request).await.unwrap().into_inner();
    let current = Some(NodeCounts { current: 1, ..Default::default() });

    let version = fleet.allow(RULE).await.unwrap();
    let arrived = until(&mut watched, |pool| pool.version == version && pool.nodes.is_empty()).await;
    assert_eq!(arrived.counts, current);
    let page = page_with(&fleet, r#"mcpgw_controlplane_pool_nodes{pool="default",state="current"} 1"#).await;
    for line in [format!("pool_version{{pool=\"default\"}} {version}"), format!("config_head_version {version}")] {
        assert!(page.contains(&format!("mcpgw_controlplane_{line}\n")), "{line}:\n{page}");
    }
    let timed = page.lines().find_map(|line| line.strip_prefix("mcpgw_controlplane_discovery_commit_to_applied_seconds_count "));
    assert!(timed.is_some_and(|count| count.parse::<u64>().unwrap() >= 1), "{page}");

    // The API refuses such a server; only somebody at the database can break it.
    change(&fleet, "UPDATE mcp_servers SET transport = 99").await;
    let broken = until(&mut watched, |pool| pool.counts.is_some_and(|counts| counts.quarantining == 1)).await;
    let [node] = &broken.nodes[..] else { panic!("{broken:?}") };
    assert!(node.problems.iter().any(|line| line.starts_with(&format!("organizations/{ORG}: ")) && line.contains("transport")));
    page_with(&fleet, r#"mcpgw_controlplane_pool_nodes{pool="default",state="quarantining"} 1"#).await;

    change(&fleet, "UPDATE mcp_servers SET transport = 1").await;
    let mended = until(&mut watched, |pool| pool.version > broken.version && pool.nodes.is_empty()).await;
    assert_eq!(mended.counts, current);

    fleet.node.stop().await.unwrap();
    let away = until(&mut watched, |pool| pool.counts.is_some_and(|counts| counts.disconnected == 1)).await;
    assert_eq!(away.nodes[0].applied_version, mended.version);
}

/// The next status of the pool that fits.
async fn until(watched: &mut Streaming<ConfigStatus>, fits: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
    let next = async {
        loop {
            let status = watched.message().await.unwrap().expect("the watch goes on");
            if let Some(pool) = status.pools.into_iter().find(&fits) {
                return pool;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), next).await.expect("the status comes")
}

/// The control plane's metrics once they have this line; they are counted anew now and then.
async fn page_with(fleet: &Fleet, line: &str) -> String {
    let (http, url) = (Http::default(), format!("http://{}/metrics", fleet.control.addresses().http));
    let asked = async {
        let mut turn = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            turn.tick().await;
            let call = Call { url: url.clone(), method: Method::GET, headers: Vec::new(), body: bytes::Bytes::new() };
            let page = String::from_utf8(http.send(call).await.unwrap().body.to_vec()).unwrap();
            if page.lines().any(|found| found == line) {
                return page;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), asked).await.expect(line)
}

/// Changes rows behind the API's back, and lets the replicas notice as if the API had.
async fn change(fleet: &Fleet, sql: &'static str) {
    let mut connection = fleet.control.running.sql().await;
    let statements = [
        "BEGIN",
        sql,
        "UPDATE config_head SET version = version + 1, committed_at = clock_timestamp()",
        "INSERT INTO config_change (epoch, version, seq, org_id, org_slug, kind, resource, operation, actor) \
         SELECT head.epoch, head.version, 1, server.org_id, '', 'server', 'by hand', 'update', 'test' \
         FROM config_head AS head, mcp_servers AS server LIMIT 1",
        "COMMIT",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}
