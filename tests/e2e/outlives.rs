//! Traffic outlives everything behind it: under steady load through two nodes, with every outcome checked, control planes are killed and
//! stay away, the database restarts, and an organisation is poisoned. No call fails, and after each fault a new version reaches every node.

use std::net::SocketAddr;
use std::time::Duration;

use mcpgw_controlplane::testing::{self, Postgres};
use mcpgw_tests::backend::Backend;
use mcpgw_tests::fleet::{Admin, Call, Control, Http, Mortal, Node, ORG, Rule, SERVER};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long no control plane is there at all.
const AWAY: u64 = 30;
/// Longest wait for what happens within seconds on an idle machine; a node waits up to 30 s before it tries to connect again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Calls of each client that make a phase.
const CALLS: u64 = 20;
/// The pace of a client: steady, so that the machine has room for what the test is about.
const PACE: Duration = Duration::from_millis(25);
/// The organisation beside [`ORG`].
const BETA: &str = "beta";
const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

/// Two organisations with a key each.
struct Orgs {
    keys: [(&'static str, String); 2],
    /// What the servers are.
    _backend: Backend,
}

async fn orgs(admin: &Admin) -> Orgs {
    let backend = Backend::on_free_port().await.unwrap();
    let mut keys = Vec::new();
    for org in [ORG, BETA] {
        admin.create_org(org).await.unwrap();
        admin.create_server(org, SERVER, &backend.url(), false).await.unwrap();
        admin.create_policy(org, RULE).await.unwrap();
        keys.push((org, admin.create_key(org, &["tester"]).await.unwrap().secret));
    }
    Orgs { keys: keys.try_into().unwrap(), _backend: backend }
}

/// Two nodes that know these control planes.
async fn nodes(control: &Control, admin: &Admin, planes: &[SocketAddr]) -> [Node; 2] {
    let join = async || {
        let token = SecretString::from(admin.join_token().await.unwrap());
        let node = Node::with(control, |config| {
            config.control_plane.join_token = Some(token);
            config.control_plane.endpoints = planes.iter().map(|plane| format!("https://{plane}")).collect();
        });
        let node = node.await.unwrap();
        node.ready().await.unwrap();
        node
    };
    [join().await, join().await]
}

/// Clients that never pause: each calls one organisation through one node.
struct Load {
    clients: JoinSet<()>,
    done: Vec<watch::Receiver<u64>>,
    stop: CancellationToken,
}

impl Load {
    fn start(nodes: &[Node], orgs: &Orgs) -> Self {
        let (mut clients, mut done, stop) = (JoinSet::new(), Vec::new(), CancellationToken::new());
        for node in nodes {
            for (org, key) in &orgs.keys {
                let (count, counted) = watch::channel(0);
                let url = node.url(&format!("/o/{org}/servers/{SERVER}/mcp"));
                clients.spawn(call_until(stop.clone(), url, key.clone(), count));
                done.push(counted);
            }
        }
        Self { clients, done, stop }
    }

    /// Returns when every client has made some more calls, all of them good.
    async fn goes_on(&mut self) {
        for done in &mut self.done {
            let target = *done.borrow() + CALLS;
            let reached = done.wait_for(|count| *count >= target);
            tokio::time::timeout(PATIENCE, reached).await.expect("calls are answered").expect("no call failed");
        }
    }

    /// Ends it; how many calls there were.
    async fn end(self) -> u64 {
        self.stop.cancel();
        self.clients.join_all().await;
        self.done.iter().map(|done| *done.borrow()).sum()
    }
}

/// One tool that is allowed and one that is not, in turn. Anything but a result and a refusal fails.
async fn call_until(stop: CancellationToken, url: String, key: String, count: watch::Sender<u64>) {
    let (http, mut turn) = (Http::default(), tokio::time::interval(PACE));
    while !stop.is_cancelled() {
        turn.tick().await;
        let tool = ["tool_0", "tool_1"][usize::from(count.borrow().is_multiple_of(2))];
        let answer = http.send(Call::tool(&url, &key, tool, &json!({}))).await.unwrap_or_else(|error| panic!("{url}: {error:#}"));
        match (tool, answer.status.as_u16(), answer.text().as_deref(), answer.code()) {
            ("tool_0", 200, Some("tool_0"), None) | ("tool_1", 200, None, Some(-32602)) => {}
            _ => panic!("{url}: {tool}: {answer:?}"),
        }
        count.send_modify(|count| *count += 1);
    }
}

/// Publishes a version that changes nothing for the clients, and returns when every node runs it.
async fn reaches(admin: &Admin, nodes: &[Node], name: &str) {
    let rule = Rule { name, roles: &["nobody"], ..RULE };
    let version = admin.create_policy(BETA, rule).await.unwrap().config_version;
    arrives(nodes, version).await;
}

async fn arrives(nodes: &[Node], version: u64) {
    for node in nodes {
        until(node, "mcpgw_dataplane_config_version", |found| found >= version).await;
    }
}

/// Returns when a metric of the node is as expected; there is no watch on metrics.
async fn until(node: &Node, metric: &str, expected: impl Fn(u64) -> bool) {
    let asked = async {
        let mut turn = tokio::time::interval(Duration::from_millis(50));
        while !expected(node.metric(metric).await.unwrap()) {
            turn.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{metric} never became what was expected"));
}

/// Every call has its record, whole, once.
async fn recorded(database: &SecretString, calls: u64) {
    let mut sql = PgConnection::connect(database.expose_secret()).await.unwrap();
    let mut turn = tokio::time::interval(Duration::from_millis(50));
    let asked = async {
        loop {
            turn.tick().await;
            let count = "SELECT count(*) FROM request_logs WHERE method = 'tools/call' AND outcome IS NOT NULL";
            let count: i64 = sqlx::query_scalar(count).fetch_one(&mut sql).await.unwrap();
            if count.unsigned_abs() >= calls {
                return count.unsigned_abs();
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, asked).await.expect("every record arrives");
    assert_eq!(found, calls, "a record for each call and no other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_control_planes_are_killed_and_stay_away() {
    let database = testing::database().await;
    let one = Mortal::start(testing::config(&database)).await.unwrap();
    let two = Mortal::start(testing::config(&database)).await.unwrap();
    let planes = [one.control.addresses().node, two.control.addresses().node];
    let admin = one.control.owner().await.unwrap();
    let orgs = orgs(&admin).await;
    let nodes = nodes(&one.control, &admin, &planes).await;
    reaches(&admin, &nodes, "first").await;
    let mut load = Load::start(&nodes, &orgs);
    load.goes_on().await;

    // One of two is killed: whoever was with it moves to the other. It comes back, and later both are killed.
    let config = one.kill().await.unwrap();
    load.goes_on().await;
    let admin = two.control.owner().await.unwrap();
    reaches(&admin, &nodes, "one-is-gone").await;
    let one = Mortal::start(config).await.unwrap();
    reaches(&admin, &nodes, "one-is-back").await;
    let (config, others_config) = (one.kill().await.unwrap(), two.kill().await.unwrap());
    for node in &nodes {
        until(node, "mcpgw_dataplane_discovery_connected", |connected| connected == 0).await;
    }
    // Half a minute without any: that is how old the configuration says it is, and nothing else tells.
    for node in &nodes {
        until(node, "mcpgw_config_stale_seconds", |stale| stale >= AWAY).await;
    }
    load.goes_on().await;
    let (one, _two) = tokio::try_join!(Mortal::start(config), Mortal::start(others_config)).unwrap();
    reaches(&one.control.owner().await.unwrap(), &nodes, "both-are-back").await;
    for node in &nodes {
        assert_eq!(node.metric("mcpgw_config_stale_seconds").await.unwrap(), 0);
    }
    load.goes_on().await;
    let calls = load.end().await;
    recorded(&one.control.running.core.config.database_url, calls).await;
    println!("{calls} calls, 0 failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_the_database_restarts_and_an_organisation_is_poisoned() {
    let postgres = Postgres::start(); // its own: the others' must not stop
    postgres.execute("CREATE DATABASE frail").await;
    let mut config = testing::config(&postgres.url("frail"));
    config.database_acquire_seconds = 1;
    let control = Control::with(config).await.unwrap();
    let admin = control.owner().await.unwrap();
    let orgs = orgs(&admin).await;
    let nodes = nodes(&control, &admin, &[control.addresses().node]).await;
    reaches(&admin, &nodes, "first").await;
    let mut load = Load::start(&nodes, &orgs);
    load.goes_on().await;

    postgres.down();
    load.goes_on().await;
    assert!(admin.create_policy(BETA, Rule { name: "lost", ..RULE }).await.is_err(), "nothing can be changed meanwhile");
    load.goes_on().await;
    postgres.up();
    while control.running.core.store.head().await.is_err() {} // connections that the restart cut may still be in the pool
    reaches(&admin, &nodes, "database-is-back").await;

    // ACME cannot be compiled any more: it stays as it was, and BETA goes on.
    let acme = "(SELECT id FROM organizations WHERE slug = 'acme')";
    let kept = "UPDATE policies SET display_name = match::text, match = '{}' WHERE org_id = ";
    arrives(&nodes, behind_the_back(&control, &format!("{kept}{acme}")).await).await;
    for node in &nodes {
        assert_eq!(node.metric("mcpgw_dataplane_config_quarantined_organizations").await.unwrap(), 1);
    }
    load.goes_on().await;
    reaches(&admin, &nodes, "acme-is-poisoned").await;
    load.goes_on().await;
    let cure = "UPDATE policies SET match = display_name::jsonb, display_name = '' WHERE org_id = ";
    arrives(&nodes, behind_the_back(&control, &format!("{cure}{acme}")).await).await;
    for node in &nodes {
        assert_eq!(node.metric("mcpgw_dataplane_config_quarantined_organizations").await.unwrap(), 0);
    }
    reaches(&admin, &nodes, "acme-is-cured").await;
    load.goes_on().await;
    let calls = load.end().await;
    recorded(&control.running.core.config.database_url, calls).await;
    println!("{calls} calls, 0 failed");
}

/// Changes rows of ACME behind the API's back, and lets the replicas notice as if the API had; the version that it made.
async fn behind_the_back(control: &Control, sql: &str) -> u64 {
    let mut connection = control.running.sql().await;
    let numbered = "UPDATE config_head SET version = version + 1, committed_at = clock_timestamp()";
    let logged = "INSERT INTO config_change (epoch, version, seq, org_id, org_slug, kind, resource, operation, actor) \
        SELECT head.epoch, head.version, 0, org.id, org.slug, 'policy', 'by hand', 'update', 'test' \
        FROM config_head AS head, organizations AS org WHERE org.slug = 'acme'";
    let told = "SELECT pg_notify('mcpgw_config', version::text) FROM config_head";
    for statement in ["BEGIN", sql, numbered, logged, told, "COMMIT"] {
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.expect(statement);
    }
    let version: i64 = sqlx::query_scalar("SELECT version FROM config_head").fetch_one(&mut connection).await.unwrap();
    version.unsigned_abs()
}
