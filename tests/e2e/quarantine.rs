//! An organisation that does not compile, published all the same: only somebody at the database can do that, or a defect of ours.

use std::time::Duration;

use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;
use mcp_gateway::proto::admin::v1::{self as admin, ApiKey, ListNodesRequest, RevokeApiKeyRequest};
use mcpgw_tests::fleet::{Admin, Answer, Call, Control, Fleet, Http, Node, ORG, Rule, SERVER};
use secrecy::ExposeSecret as _;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};
const BETA: &str = "beta";

/// Two organisations, both good, and a key of each.
async fn two() -> (Fleet, String, String) {
    let fleet = Fleet::start().await.unwrap();
    let acme = fleet.admin.create_key(ORG, &["tester"]).await.unwrap().secret;
    fleet.admin.create_policy(ORG, RULE).await.unwrap();
    fleet.admin.create_org(BETA).await.unwrap();
    fleet.admin.create_server(BETA, SERVER, &fleet.backend.url(), false).await.unwrap();
    let beta = fleet.admin.create_key(BETA, &["tester"]).await.unwrap().secret;
    let version = fleet.admin.create_policy(BETA, RULE).await.unwrap().config_version;
    fleet.admin.wait(version).await.unwrap();
    (fleet, acme, beta)
}

async fn call(node: &Node, org: &str, key: &str, tool: &str) -> Answer {
    let url = node.url(&format!("/o/{org}/servers/{SERVER}/mcp"));
    Http::default().send(Call::tool(&url, key, tool, &json!({}))).await.unwrap()
}

async fn serves(node: &Node, org: &str, key: &str, tool: &str) {
    let answer = call(node, org, key, tool).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_deref()), (200, Some(tool)), "{org}: {answer:?}");
}

/// How many organisations the node has in quarantine, and how many of them it denies.
async fn held_back(node: &Node) -> (u64, u64) {
    let number = async |of| node.metric(&format!("mcpgw_dataplane_config_{of}_organizations")).await.unwrap();
    (number("quarantined").await, number("denied").await)
}

/// Changes rows of an organisation behind the API's back, and lets the replicas notice as if the API had; the version that it made.
async fn change(control: &Control, org: &str, sql: &[&str]) -> u64 {
    let mut connection = control.running.sql().await;
    let logged = format!(
        "INSERT INTO config_change (epoch, version, seq, org_id, org_slug, kind, resource, operation, actor) \
         SELECT head.epoch, head.version, 0, org.id, org.slug, 'policy', 'by hand', 'update', 'test' \
         FROM config_head AS head, organizations AS org WHERE org.slug = '{org}'"
    );
    let numbered = "UPDATE config_head SET version = version + 1, committed_at = clock_timestamp()";
    let told = "SELECT pg_notify('mcpgw_config', version::text) FROM config_head";
    for statement in ["BEGIN"].iter().chain(sql).chain(&[numbered, &logged, told, "COMMIT"]) {
        sqlx::query(AssertSqlSafe((*statement).to_owned())).execute(&mut connection).await.expect(statement);
    }
    let version: i64 = sqlx::query_scalar("SELECT version FROM config_head").fetch_one(&mut connection).await.unwrap();
    version.unsigned_abs()
}

/// ACME's only policy, without anything that it allows.
const POISON: &str = "UPDATE policies SET match = '{}' WHERE org_id = (SELECT id FROM organizations WHERE slug = 'acme')";
const CURE: &str = "UPDATE policies SET match = '{\"tools\": [\"tool_0\", \"tool_1\"]}' \
    WHERE org_id = (SELECT id FROM organizations WHERE slug = 'acme')";

async fn revoke(admin: &Admin, key: &ApiKey) -> u64 {
    let request = RevokeApiKeyRequest { name: key.name.clone(), ..RevokeApiKeyRequest::default() };
    let mut client = ApiKeyServiceClient::new(admin.channel.clone());
    client.revoke_api_key(admin.request(request)).await.unwrap().into_inner().config_version
}

/// The only node, once the control plane knows of it what is expected.
async fn known(admin: &Admin, expected: impl Fn(&admin::Node) -> bool) -> admin::Node {
    let arrived = async {
        // There is no watch on nodes, so this asks until the control plane has noted it.
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            let mut client = NodeServiceClient::new(admin.channel.clone());
            let nodes = client.list_nodes(admin.request(ListNodesRequest::default())).await.unwrap().into_inner().nodes;
            if let Some(node) = nodes.into_iter().next().filter(|node| expected(node)) {
                return node;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("the control plane notes what the node says")
}

fn bundles_sent(control: &Control) -> u64 {
    control.metric("mcpgw_controlplane_discovery_responses_total{type=\"OrgBundle\"}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_org_does_not_block_other_orgs_or_revocation() {
    let (fleet, acme, beta) = two().await;
    let Fleet { control, mut node, backend: _backend, admin } = fleet;
    let stolen = admin.create_key(ORG, &["tester"]).await.unwrap();
    let (secret, stolen) = (stolen.secret, stolen.api_key.unwrap());
    admin.wait(stolen.config_version).await.unwrap();
    serves(&node, ORG, &secret, "tool_0").await;

    let poisoned = change(&control, ORG, &[POISON]).await;
    admin.wait(poisoned).await.unwrap();
    assert_eq!(held_back(&node).await, (1, 0));
    let line = format!("organizations/{ORG}: policy tester: match: ");
    let says_so = |node: &admin::Node| matches!(&node.problems[..], [problem] if problem.starts_with(&line));
    known(&admin, says_so).await;

    // Every other organisation moves on, and so does what is void. Of the poisoned one nothing is sent again.
    let sent = bundles_sent(&control);
    let other = Rule { name: "other", tools: &["tool_1"], ..RULE };
    let version = admin.create_policy(BETA, other).await.unwrap().config_version;
    admin.wait(version).await.unwrap();
    serves(&node, BETA, &beta, "tool_1").await;
    let version = revoke(&admin, &stolen).await;
    admin.wait(version).await.unwrap();
    assert_eq!(call(&node, ORG, &secret, "tool_0").await.status.as_u16(), 401, "revoked, quarantine or not");
    serves(&node, ORG, &acme, "tool_0").await;
    assert_eq!(call(&node, ORG, &acme, "tool_1").await.text(), None, "by its own rules");
    assert_eq!(bundles_sent(&control), sent + 1, "of BETA, which changed");
    let known_now = known(&admin, |node| node.applied_version == version).await;
    assert!(says_so(&known_now), "{known_now:?}");
    let refused = "mcpgw_controlplane_discovery_refused_total{type=\"Manifest\"";
    assert!(!control.running.core.metrics.text().contains(refused), "applied, except for what is bad");

    // Nothing is left but the node and its disk.
    let (mut config, addresses) = ((*control.running.core.config).clone(), control.addresses());
    control.running.stop().await.unwrap();
    node.halt().await.unwrap();
    node.resume().await.unwrap();
    node.ready().await.unwrap();
    assert_eq!(node.metric("mcpgw_dataplane_discovery_connected").await.unwrap(), 0);
    assert_eq!((node.metric("mcpgw_dataplane_config_version").await.unwrap(), held_back(&node).await), (version, (1, 0)));
    serves(&node, ORG, &acme, "tool_0").await;
    serves(&node, BETA, &beta, "tool_1").await;
    assert_eq!(call(&node, ORG, &secret, "tool_0").await.status.as_u16(), 401);

    // A control plane that knows nothing of it is told, and sends nothing for it.
    let mut database = PgConnection::connect(config.database_url.expose_secret()).await.unwrap();
    sqlx::query("UPDATE node_status SET problems = '{}'").execute(&mut database).await.unwrap();
    (config.node_listen, config.admin_listen) = (addresses.node, addresses.admin);
    let control = Control::with(config).await.unwrap();
    let admin = control.owner().await.unwrap();
    known(&admin, says_so).await;
    assert_eq!(bundles_sent(&control), 0, "the node has what there is");

    let cured = change(&control, ORG, &[CURE]).await;
    admin.wait(cured).await.unwrap();
    serves(&node, ORG, &acme, "tool_1").await;
    assert_eq!(held_back(&node).await, (0, 0));
    known(&admin, |node| node.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_organisation_that_does_not_compile_is_denied_until_it_does() {
    let (fleet, acme, beta) = two().await;
    let before = call(&fleet.node, "gamma", &acme, "tool_0").await;
    let created = [
        "INSERT INTO organizations (id, slug) VALUES ('0190a000-0000-7000-8000-0000000000c1', 'gamma')",
        "INSERT INTO mcp_servers (id, org_id, slug, transport, endpoints, allow_anonymous) \
         SELECT '0190a000-0000-7000-8000-0000000000c2', '0190a000-0000-7000-8000-0000000000c1', slug, 99, endpoints, true \
         FROM mcp_servers LIMIT 1",
        "INSERT INTO policies (id, org_id, name, effect, subjects, servers, match) \
         SELECT '0190a000-0000-7000-8000-0000000000c3', '0190a000-0000-7000-8000-0000000000c1', name, effect, \
         '{\"anonymous\": true}', servers, match FROM policies LIMIT 1",
    ];
    let version = change(&fleet.control, "gamma", &created).await;
    fleet.admin.wait(version).await.unwrap();
    assert_eq!(held_back(&fleet.node).await, (1, 1));
    let denied = call(&fleet.node, "gamma", &acme, "tool_0").await;
    assert_eq!((denied.status, denied.text()), (before.status, before.text()), "as if it were not there");
    assert_eq!(call(&fleet.node, "gamma", "", "tool_0").await.status.as_u16(), 401);
    serves(&fleet.node, ORG, &acme, "tool_0").await;
    serves(&fleet.node, BETA, &beta, "tool_0").await;

    let cured = change(&fleet.control, "gamma", &["UPDATE mcp_servers SET transport = 1"]).await;
    fleet.admin.wait(cured).await.unwrap();
    assert_eq!(held_back(&fleet.node).await, (0, 0));
    serves(&fleet.node, "gamma", "", "tool_0").await;
}
