//! What a client got an answer to is on record, once: nodes are killed in mid-answer again and again, with everything behind them there,
//! with no control plane at all, and with a database that restarts; their disks fill up; what they wrote is damaged.

mod disk;
mod kills;
mod sync;
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use mcpgw_controlplane::config::Config;
use mcpgw_tests::backend::Backend;
use mcpgw_tests::fleet::{Admin, Mortal, NodeProcess, ORG, Rule, SERVER};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection};
use traffic::Client;

/// Longest wait for what happens within seconds on an idle machine; a node waits up to 30 s before it tries to connect again.
const PATIENCE: Duration = Duration::from_secs(120);
const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &[traffic::PLAIN, traffic::STREAMED],
    prompts: &[],
    resources: &[],
};

/// A node that can be killed, behind a control plane that can be killed.
struct Scene {
    node: NodeProcess,
    /// None while there is none.
    control: Option<Mortal>,
    key: String,
    _backend: Backend,
}

impl Scene {
    async fn on(config: Config) -> Self {
        let control = Mortal::start(config).await.unwrap();
        let admin = control.control.owner().await.unwrap();
        let backend = Backend::on_free_port().await.unwrap();
        let key = organization(&admin, ORG, &backend).await;
        let node = NodeProcess::join(&control.control, &admin, &[]).await.unwrap();
        Self { node, control: Some(control), key, _backend: backend }
    }

    /// Takes the control plane away; what it takes to begin again where it was.
    async fn deprive(&mut self) -> Config {
        self.control.take().expect("there is one").kill().await.unwrap()
    }

    async fn restore(&mut self, config: Config) {
        self.control = Some(Mortal::start(config).await.unwrap());
    }

    fn config(&self) -> Config {
        let control = self.control.as_ref().expect("there is a control plane");
        (*control.control.running.core.config).clone()
    }

    /// Returns when the node has nothing left to ship; there is no watch on metrics.
    async fn shipped(&self) {
        let asked = async {
            let mut turn = tokio::time::interval(Duration::from_millis(50));
            while self.node.metric("mcpgw_dataplane_audit_spool_frames").await.unwrap() > 0 {
                turn.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the spool empties");
    }

    fn client(&self) -> Client {
        Client::new(self.node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp")), self.key.clone())
    }
}

/// An organisation with a server and a rule; a key that the rule is about.
async fn organization(admin: &Admin, org: &str, backend: &Backend) -> String {
    admin.create_org(org).await.unwrap();
    admin.create_server(org, SERVER, &backend.url(), false).await.unwrap();
    admin.create_policy(org, RULE).await.unwrap();
    admin.create_key(org, &["tester"]).await.unwrap().secret
}

/// The record of each request: whether its end is known. Fails if a request has two.
async fn records(config: &Config) -> BTreeMap<String, bool> {
    let mut sql = PgConnection::connect(config.database_url.expose_secret()).await.unwrap();
    let rows = "SELECT request_id::text, outcome IS NOT NULL FROM request_logs";
    let rows: Vec<(String, bool)> = sqlx::query_as(rows).fetch_all(&mut sql).await.unwrap();
    let count = rows.len();
    let records: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(records.len(), count, "a request has two records");
    records
}
