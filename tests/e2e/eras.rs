//! What nodes find out about servers, from the first call of a client to what operators are shown.

use std::time::Duration;

use http::StatusCode;
use mcpgw_tests::cli::Cli;
use mcpgw_tests::fleet::{Call, Control, Http, Node, ORG, OWNER_EMAIL, OWNER_PASSWORD, Rule};
use mcpgw_tests::peers::matrix::{Endpoint, Running, Server};
use secrecy::SecretString;
use serde_json::{Value, json};

const SERVERS: [(&str, Server); 3] =
    [("old", Server::StreamableHttp), ("older", Server::Sse), ("new", Server::StreamableHttp20260728)];

/// Servers that do not say how they want to be spoken to, and a node that reports ten times a second.
struct World {
    control: Control,
    node: Node,
    key: String,
    _servers: Vec<Running>,
}

impl World {
    async fn start() -> Self {
        let control = Control::start().await.unwrap();
        let admin = control.owner().await.unwrap();
        admin.create_org(ORG).await.unwrap();
        let mut servers = Vec::new();
        for (name, kind) in SERVERS {
            let server = kind.start().await.unwrap();
            let Endpoint::Url(url) = server.endpoint() else { panic!("{name} has no URL") };
            admin.create_server(ORG, name, url, false).await.unwrap();
            servers.push(server);
        }
        let rule = Rule { name: "tester", server: "*", roles: &["tester"], tools: &["*"], ..Rule::default() };
        admin.create_policy(ORG, rule).await.unwrap();
        let key = admin.create_key(ORG, &["tester"]).await.unwrap();
        let token = admin.join_token().await.unwrap();
        let node = Node::with(&control, |config| {
            config.control_plane.join_token = Some(SecretString::from(token));
            config.control_plane.report_interval = Duration::from_millis(100);
        });
        let node = node.await.unwrap();
        node.ready().await.unwrap();
        admin.wait(key.api_key.map_or(0, |key| key.config_version)).await.unwrap();
        Self { control, node, key: key.secret, _servers: servers }
    }

    /// A modern client's call.
    async fn call(&self, server: &str) {
        let url = self.node.url(&format!("/o/{ORG}/servers/{server}/mcp"));
        let answer = Http::default().send(Call::tool(&url, &self.key, "echo", &json!({"text": "hi"}))).await.unwrap();
        assert_eq!((answer.status, answer.text().as_deref()), (StatusCode::OK, Some("hi")), "{server}: {answer:?}");
    }
}

async fn said(cli: &Cli, words: &[&str]) -> String {
    let ran = cli.run(words, "").await.unwrap();
    assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.stderr);
    ran.stdout
}

async fn shown(cli: &Cli, server: &str) -> Value {
    serde_json::from_str(&said(cli, &["server", "get", server, "-o", "json"]).await).unwrap()
}

/// What was found out about a server, once something was; nodes report by themselves, and there is no watch.
async fn found(cli: &Cli, server: &str) -> Value {
    let asked = async {
        let mut turn = tokio::time::interval(Duration::from_millis(100));
        loop {
            turn.tick().await;
            if let [one] = shown(cli, server).await["foundOut"].as_array().map_or(&[][..], Vec::as_slice) {
                return one.clone();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("the node reports it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_what_each_node_found_out_about_a_server() {
    let world = World::start().await;
    let cli = Cli::signed_in(&world.control, OWNER_EMAIL, OWNER_PASSWORD, &["--org", ORG]).await.unwrap();
    for (server, _) in SERVERS {
        assert_eq!(shown(&cli, server).await.get("foundOut"), None, "nobody has asked {server}");
        world.call(server).await;
    }
    let node = world.node.identity().unwrap().node_id;
    for (server, transport, era) in [
        ("old", "TRANSPORT_STREAMABLE_HTTP", "ERA_LEGACY"),
        ("older", "TRANSPORT_HTTP_SSE", "ERA_LEGACY"),
        ("new", "TRANSPORT_STREAMABLE_HTTP", "ERA_MODERN"),
    ] {
        let found = found(&cli, server).await;
        assert_eq!(found["node"], format!("nodes/{node}"), "{server}: {found}");
        assert_eq!((&found["transport"], &found["era"]), (&json!(transport), &json!(era)), "{server}: {found}");
        assert!(found["findTime"].is_string(), "{server}: {found}");
    }
    let table = said(&cli, &["server", "get", "older"]).await;
    assert!(table.lines().any(|line| line.starts_with("foundOut[0].era ") && line.ends_with("ERA_LEGACY")), "{table}");
    let list = said(&cli, &["server", "list"]).await;
    let line = list.lines().find(|line| line.starts_with("older ")).unwrap();
    assert!(line.contains("http-sse (found)") && line.contains("legacy (found)"), "{list}");

    // What is registered is not found out.
    said(&cli, &["server", "update", "old", "--era", "legacy", "--transport", "streamable-http"]).await;
    let asked = async { while shown(&cli, "old").await.get("foundOut").is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("the node reports nothing any more");

    world.node.stop().await.unwrap();
    said(&cli, &["node", "delete", &node]).await;
    assert_eq!(shown(&cli, "new").await.get("foundOut"), None, "a node that is gone does not count");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_choose_how_modern_clients_share_sessions() {
    let world = World::start().await;
    let cli = Cli::signed_in(&world.control, OWNER_EMAIL, OWNER_PASSWORD, &["--org", ORG]).await.unwrap();
    let wrong = cli.run(&["server", "update", "old", "--legacy-sessions", "never"], "").await.unwrap();
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("pooled, per-call"), "{wrong:?}");
    assert_eq!(shown(&cli, "old").await.get("legacySessions"), None);
    world.call("old").await;
    assert_eq!(sessions(&world).await, 1, "it waits for the next call");

    let updated = said(&cli, &["server", "update", "older", "--legacy-sessions", "per-call", "-o", "json"]).await;
    let updated: Value = serde_json::from_str(&updated).unwrap();
    assert_eq!(updated["legacySessions"], "LEGACY_SESSIONS_PER_CALL");
    said(&cli, &["config", "wait", updated["configVersion"].as_str().unwrap()]).await;
    for _ in 0..2 {
        world.call("older").await;
    }
    let over = async { while sessions(&world).await > 1 {} };
    tokio::time::timeout(Duration::from_secs(60), over).await.expect("its sessions are over with their calls");
}

async fn sessions(world: &World) -> u64 {
    world.node.metric("mcpgw_dataplane_sessions").await.unwrap()
}
