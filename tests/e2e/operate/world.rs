//! Two nodes that know each other, servers that are processes of theirs, clients of both, and the command line of who may do what.

use std::path::Path;

use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateServerRequest, Role, Server};
use mcp_gateway::proto::config::v1::{Stdio, StdioScope};
use mcpgw_tests::cli::{Cli, Ran};
use mcpgw_tests::fleet::{Admin, Control, MEMBER_PASSWORD, NodeProcess, ORG, Rule};
use mcpgw_tests::foreign::tests_directory;
use serde_json::Value;

use crate::streams::{Events, Socket};

/// A server with a process for each session.
pub const OWN: &str = "own";
/// A server with one process on each node.
pub const SHARED: &str = "shared";
const OPERATOR: &str = "operator@acme.test";
const AUDITOR: &str = "auditor@acme.test";

pub struct World {
    pub nodes: Vec<NodeProcess>,
    /// A client's key.
    pub key: String,
    pub operator: Cli,
    pub auditor: Cli,
    _control: Control,
}

impl World {
    pub async fn start() -> anyhow::Result<Self> {
        let control = Control::start().await?;
        let admin = control.owner().await?;
        admin.create_org(ORG).await?;
        register(&admin, OWN, StdioScope::Session).await?;
        register(&admin, SHARED, StdioScope::Shared).await?;
        let rule = Rule { name: "tester", server: "*", roles: &["tester"], tools: &["*"], ..Rule::default() };
        admin.create_policy(ORG, rule).await?;
        admin.member(ORG, OPERATOR, Role::Operator).await?;
        admin.member(ORG, AUDITOR, Role::Auditor).await?;
        let mut nodes = Vec::new();
        for _ in 0..2 {
            // Nothing but an operator asks a socket for a sign of life here.
            let settings = [("PEER__LISTEN", "127.0.0.1:0".to_owned()), ("TRANSPORTS__WEBSOCKET__KEEP_ALIVE", "1h".to_owned())];
            nodes.push(NodeProcess::join(&control, &admin, &settings).await?);
        }
        let key = admin.create_key(ORG, &["tester"]).await?;
        admin.wait(key.api_key.as_ref().map_or(0, |key| key.config_version)).await?;
        for node in &nodes {
            until("every node knows the other", async || node.metric("mcpgw_dataplane_peers").await.unwrap() == 2).await;
        }
        let login = async |email| {
            let flags = ["--org", ORG, "--gateway", &nodes[0].url("")];
            Cli::signed_in(&control, email, MEMBER_PASSWORD, &flags).await
        };
        let (operator, auditor) = (login(OPERATOR).await?, login(AUDITOR).await?);
        Ok(Self { nodes, key: key.secret, operator, auditor, _control: control })
    }

    /// A socket on each node, each with a process of its own.
    pub async fn sockets(&self) -> Vec<Socket> {
        let mut sockets = Vec::new();
        for node in &self.nodes {
            sockets.push(Socket::open(node.address(), OWN, &self.key).await);
        }
        sockets
    }

    /// An event stream on each node; those of a node share a process.
    pub async fn streams(&self) -> Vec<Events> {
        let mut streams = Vec::new();
        for node in &self.nodes {
            streams.push(Events::begun(node.address(), SHARED, &self.key).await);
        }
        streams
    }

    /// The id of a node, as orders name it.
    pub fn id(&self, node: usize) -> String {
        identity(&self.nodes[node].state_dir()).unwrap()
    }

    /// What an operator's command comes to.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.operator.run(arguments, "").await.unwrap()
    }

    /// The data of an operator's command, which has to succeed.
    pub async fn data(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[arguments, &["-o", "json"]].concat()).await;
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.json()
    }

    /// What an operator's command says to people, which has to succeed.
    pub async fn table(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran
    }

    /// Ids of open sessions over a transport, by node.
    pub async fn sessions(&self, transport: &str) -> Vec<String> {
        let listed = self.data(&["session", "list"]).await;
        let of = |node: usize| {
            let (id, sessions) = (self.id(node), listed["sessions"].as_array().unwrap());
            let is_one = |session: &&Value| session["node"] == *id && session["transport"] == transport;
            sessions.iter().find(is_one).map(|session| session["session"].as_str().unwrap().to_owned())
        };
        (0..self.nodes.len()).filter_map(of).collect()
    }

    /// Processes of a server that take messages, over all nodes, sorted.
    pub async fn processes(&self, server: &str) -> Vec<String> {
        let listed = self.data(&["server", "process", "list", server]).await;
        let running = listed["processes"].as_array().unwrap().iter().filter(|process| process["state"] == "running");
        let mut ids: Vec<_> = running.map(|process| process["process"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    /// The processes of a server once there are so many and none of these.
    pub async fn processes_other_than(&self, server: &str, gone: &[String], wanted: usize) -> Vec<String> {
        let are_others = |now: &[String]| now.len() == wanted && !now.iter().any(|process| gone.contains(process));
        until("the processes are others", async || are_others(&self.processes(server).await)).await;
        self.processes(server).await
    }
}

/// Returns when something is so. Nobody tells, so this looks again and again.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looked = async {
        let mut turn = tokio::time::interval(std::time::Duration::from_millis(20));
        while !is_so().await {
            turn.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), looked).await.unwrap_or_else(|_elapsed| panic!("never: {what}"));
}

fn identity(state: &Path) -> anyhow::Result<String> {
    let identity: Value = serde_json::from_str(&std::fs::read_to_string(state.join("identity.json"))?)?;
    Ok(identity["node_id"].as_str().unwrap_or_default().to_owned())
}

async fn register(admin: &Admin, name: &str, scope: StdioScope) -> anyhow::Result<()> {
    let script = tests_directory().join("peers/servers/stray.py").display().to_string();
    let stdio = Stdio { command: vec!["python3".to_owned(), script], scope: scope.into(), ..Stdio::default() };
    let request = CreateServerRequest {
        parent: format!("organizations/{ORG}"),
        server_id: name.to_owned(),
        server: Some(Server { stdio: Some(stdio), ..Server::default() }),
        ..CreateServerRequest::default()
    };
    ServerServiceClient::new(admin.channel.clone()).create_server(admin.request(request)).await?;
    Ok(())
}
