//! The transport matrix through the gateway: every foreign client against every foreign server, long-lived servers, one client process per
//! pair. What does not pass is a committed list with the exact answer; the page in docs is what was measured.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateServerRequest, Server as Registered};
use mcp_gateway::proto::config::v1::{self as config, Era, Stdio, Transport};
use mcpgw_tests::fleet::{Admin, Control, NodeProcess, ORG, Rule};
use mcpgw_tests::peers::matrix::{Client, Endpoint, Exceptions, Pair, Running, Server, committed_page, markdown, pairs};
use mcpgw_tests::program::beside;

/// Clients are processes, and the machine has two cores.
const AT_ONCE: usize = 3;
/// Of keys, in policies.
const ROLE: &str = "matrix";

struct World {
    node: NodeProcess,
    /// Of clients of the modern era: without sessions, callers are told apart by who they are.
    keys: BTreeMap<Client, String>,
    /// Where the command line finds its login, which it needs none of here.
    home: tempfile::TempDir,
    _control: Control,
    _servers: BTreeMap<Server, Running>,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let started = Server::ALL.map(async |server| server.start().await.map(|running| (server, running)));
        let servers: BTreeMap<Server, Running> = try_join_all(started).await?.into_iter().collect();
        let control = Control::start().await?;
        let admin = control.owner().await?;
        admin.create_org(ORG).await?;
        for (server, running) in &servers {
            register(&admin, *server, running.endpoint()).await?;
        }
        let all = &["*"];
        let rule =
            Rule { name: "everybody", server: "*", anonymous: true, tools: all, prompts: all, resources: all, ..Rule::default() };
        admin.create_policy(ORG, rule).await?;
        let keyed =
            Rule { name: "keys", server: "*", roles: &[ROLE], tools: all, prompts: all, resources: all, ..Rule::default() };
        admin.create_policy(ORG, keyed).await?;
        let mut keys = BTreeMap::new();
        for client in Client::ALL.into_iter().filter(|client| client.protocol_version() == Some("2026-07-28")) {
            keys.insert(client, admin.create_key(ORG, &[ROLE]).await?.secret);
        }
        let node = NodeProcess::join(&control, &admin, &[]).await?;
        Ok(Self { node, keys, home: tempfile::tempdir()?, _control: control, _servers: servers })
    }

    /// Where a client finds a server.
    fn endpoint(&self, client: Client, server: Server) -> anyhow::Result<Endpoint> {
        let base = format!("/o/{ORG}/servers/{}", slug(server));
        Ok(match client {
            Client::Sse20241105 => Endpoint::Url(self.node.url(&format!("{base}/sse"))),
            Client::StreamableHttp20250326
            | Client::StreamableHttp20250618
            | Client::StreamableHttp20251125
            | Client::StreamableHttp20260728
            | Client::StreamableHttp20260728Python => Endpoint::Url(self.node.url(&format!("{base}/mcp"))),
            Client::WebSocket => Endpoint::Url(self.node.url(&format!("{base}/ws")).replace("http:", "ws:")),
            Client::JsonRpc => Endpoint::Url(self.node.url(&format!("{base}/rpc"))),
            Client::Stdio | Client::Stdio20260728 => Endpoint::Command(self.connect(client, server)?),
        })
    }

    /// What a client shows over HTTP, if anything.
    fn token(&self, client: Client) -> Option<&str> {
        self.keys.get(&client).filter(|_| client != Client::Stdio20260728).map(String::as_str)
    }

    /// The command line of a desktop client.
    fn connect(&self, client: Client, server: Server) -> anyhow::Result<Vec<String>> {
        let program = beside("mcpgw")?.display().to_string();
        let config = format!("MCPGW_CONFIG_DIR={}", self.home.path().display());
        let mut words = vec!["env".to_owned(), config];
        words.extend(self.keys.get(&client).map(|key| format!("MCPGW_API_KEY={key}")));
        words.extend([program, "connect".to_owned(), slug(server).to_owned()]);
        words.extend(["--org".to_owned(), ORG.to_owned(), "--gateway".to_owned(), self.node.url("")]);
        if !self.keys.contains_key(&client) {
            words.push("--anonymous".to_owned());
        }
        Ok(words)
    }
}

fn slug(server: Server) -> &'static str {
    match server {
        Server::Sse => "sse",
        Server::StreamableHttp => "streamable-http",
        Server::WebSocket => "websocket",
        Server::Stdio => "stdio",
        Server::JsonRpc => "json-rpc",
        Server::StreamableHttp20260728 => "streamable-http-2026-07-28",
        Server::Stdio20260728 => "stdio-2026-07-28",
    }
}

/// As an administrator would. What the gateway can find out by itself is left to it: how the two over http are spoken to that can be told
/// apart, and in which era all but one.
async fn register(admin: &Admin, server: Server, endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut registered = Registered { allow_anonymous: true, ..Registered::default() };
    match endpoint {
        Endpoint::Url(url) => registered.endpoints = vec![config::Endpoint { url: url.clone(), weight: 1 }],
        Endpoint::Command(command) => registered.stdio = Some(Stdio { command: command.clone(), ..Stdio::default() }),
    }
    match server {
        Server::JsonRpc => registered.transport = Transport::JsonRpc.into(),
        Server::StreamableHttp20260728 => registered.era = Era::Modern.into(),
        Server::Sse | Server::StreamableHttp | Server::WebSocket | Server::Stdio | Server::Stdio20260728 => {}
    }
    let request = CreateServerRequest {
        parent: format!("organizations/{ORG}"),
        server_id: slug(server).to_owned(),
        server: Some(registered),
        ..CreateServerRequest::default()
    };
    ServerServiceClient::new(admin.channel.clone()).create_server(admin.request(request)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_reaches_every_server_and_the_page_says_so() {
    let world = World::start().await.unwrap();
    let reports = pairs().map(async |(client, server)| {
        let report = client.check(&world.endpoint(client, server)?, world.token(client)).await?;
        assert_eq!(report.protocol_version.as_deref(), client.protocol_version(), "{client:?} to {server:?}");
        anyhow::Ok(Pair { client, server, report })
    });
    let pairs: Vec<Pair> = stream::iter(reports).buffer_unordered(AT_ONCE).try_collect().await.unwrap();
    let exceptions = Exceptions::committed().unwrap();
    println!("{} exceptions", exceptions.list().len());
    let page = markdown(&pairs, &exceptions).unwrap();
    let committed = std::fs::read_to_string(committed_page()).unwrap_or_default();
    if page != committed {
        let measured = std::env::temp_dir().join("COMPATIBILITY.md");
        std::fs::write(&measured, &page).unwrap();
        panic!("docs/COMPATIBILITY.md is not what was measured: that is in {}", measured.display());
    }
}
