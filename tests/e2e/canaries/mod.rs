//! Canaries: secrets in every part of requests, answers and settings, and a search for them in everything that a gateway keeps, logs, counts
//! and answers. Real processes that log all they can; a node is killed in the middle of a stream and comes back.

mod administrators;
mod clients;
mod garden;
mod server;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use mcpgw_controlplane::testing::Postgres;
use mcpgw_tests::fleet::{Admin, Call, ControlProcess, NodeProcess, ORG, OWNER_EMAIL, Rule, SERVER};
use sqlx::{Connection as _, PgConnection};

use garden::Garden;
use server::Server;

/// Longest wait for what happens within seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The place where the owner's password is planted.
const OWNER_PASSWORD: &str = "the owner's password";
/// What is no secret and has to be found: else nothing was searched.
const DECOY: &str = "the name of a tool";

/// A whole gateway in processes of its own.
struct World {
    garden: Arc<Garden>,
    postgres: Postgres,
    control: ControlProcess,
    node: NodeProcess,
    server: Server,
    admin: Admin,
    /// May use everything on the server.
    key: String,
    /// May use nothing.
    powerless: String,
    /// A user's token for the gateway, once there is a user.
    token: OnceLock<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_kept_logged_counted_or_answered() {
    let mut world = World::start().await;
    let garden = world.garden.clone();
    let mut wrong = world.administer().await;
    wrong.extend(world.traffic().await);
    for place in
        ["an argument", "an argument's key", "_meta", "a large argument", "an answer to an elicitation", "a prompt's argument"]
    {
        assert!(world.server.saw(place), "{place} did not reach the server");
    }
    for place in ["Cookie", "Proxy-Authorization", "a custom header", "the key", "a bearer that is none", "X-Forwarded-For"] {
        assert!(!world.server.saw(place), "{place} reached the server");
    }

    // Killed in the middle of a stream: what lies on the disk of a node that had no time to do anything about it.
    let decoy = garden.plant(DECOY);
    world.call(&decoy).await;
    let stream = world.hang().await;
    world.node.kill().await.unwrap();
    drop(stream);
    let spool = world.node.state_dir().join("spool");
    let found = garden.found_below(&[&spool]);
    assert!(found.iter().any(|line| line.ends_with(DECOY) && line.contains(".seg: ")), "the spool has its records: {found:?}");
    let of_secrets = |found: Vec<String>| found.into_iter().filter(|line| !line.ends_with(DECOY));
    wrong.extend(of_secrets(garden.found_below(&[&world.node.state_dir()])));

    world.node.again().await.unwrap();
    world.call("plain").await;
    world.shipped().await;
    let gathered = tempfile::tempdir().unwrap();
    world.gather(gathered.path()).await;
    world.read_everything(gathered.path()).await;
    let found = garden.found_below(&[gathered.path(), world.postgres.home(), &world.node.state_dir()]);
    for kept in ["table-request_logs", "cli-18-json", "http-logs"] {
        assert!(found.iter().any(|line| line.contains(kept) && line.ends_with(DECOY)), "{kept} has the records: {found:#?}");
    }
    wrong.extend(of_secrets(found));
    assert!(wrong.is_empty(), "{} finds:\n{}", wrong.len(), wrong.join("\n"));
    println!("{} secrets, none of them found", garden.places() - 1);
}

impl World {
    async fn start() -> Self {
        let garden = Arc::new(Garden::default());
        let postgres = Postgres::start();
        let master = garden.plant("the master key") + "12345678";
        let settings = [
            ("DATABASE_URL", format!("{}&password={}", postgres.url("postgres"), garden.plant("the database's password"))),
            ("MASTER_KEY", STANDARD.encode(&master[..32])),
            ("OWNER_PASSWORD", garden.plant(OWNER_PASSWORD)),
            ("LOG", "trace".into()),
        ];
        let control = ControlProcess::start(&settings).await.unwrap();
        let channel = control.channel().await.unwrap();
        let admin = Admin::login(channel, OWNER_EMAIL, &garden.plant(OWNER_PASSWORD), "").await.unwrap();
        garden.note("the owner's token", &admin.token);
        let server = Server::start(&garden).await;
        admin.create_org(ORG).await.unwrap();
        admin.create_server(ORG, SERVER, &server.url(), false).await.unwrap();
        let all = &["*"];
        let rule =
            Rule { name: "all", server: SERVER, roles: &["tester"], tools: all, prompts: all, resources: all, ..Rule::default() };
        admin.create_policy(ORG, rule).await.unwrap();
        let key = admin.create_key(ORG, &["tester"]).await.unwrap().secret;
        let powerless = admin.create_key(ORG, &["nobody"]).await.unwrap();
        garden.note("the key", &key);
        garden.note("a key that may nothing", &powerless.secret);
        let join = admin.join_token().await.unwrap();
        let secret = join.split_once('.').unwrap().0;
        garden.note("a join token", secret);
        let node =
            NodeProcess::enrol(control.node, "http://127.0.0.1:8080", join.clone(), &[("LOG", "trace".into())]).await.unwrap();
        admin.wait(powerless.api_key.unwrap().config_version).await.unwrap();
        Self { garden, postgres, control, node, server, admin, key, powerless: powerless.secret, token: OnceLock::new() }
    }

    /// The public part of the key.
    fn key_id(&self) -> &str {
        self.key.split('_').nth(1).unwrap()
    }

    /// A call of a tool that is answered.
    async fn call(&self, tool: &str) {
        let url = self.node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"));
        let answer =
            mcpgw_tests::fleet::Http::default().send(Call::tool(&url, &self.key, tool, &serde_json::json!({}))).await.unwrap();
        assert!(answer.text().is_some(), "{answer:?}");
    }

    /// A stream that has begun and does not end; dropped, it is given up.
    async fn hang(&self) -> tokio::net::TcpStream {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let url = self.node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"));
        let call =
            Call::tool(&url, &self.key, "hang", &serde_json::json!({ "x": self.garden.plant("an argument before the crash") }));
        let address = self.node.address();
        let mut head =
            format!("POST /o/{ORG}/servers/{SERVER}/mcp HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n", call.body.len());
        call.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&[b"\r\n", &call.body[..]].concat()).await.unwrap();
        let (event, mut seen) = (self.garden.plant("server: what came before the crash"), Vec::new());
        let began = async {
            while memchr::memmem::find(&seen, event.as_bytes()).is_none() {
                assert!(socket.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
            }
        };
        tokio::time::timeout(PATIENCE, began).await.expect("the stream begins");
        socket
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

    /// Writes tables, logs and metrics to files in `to`.
    async fn gather(&self, to: &Path) {
        let mut sql = PgConnection::connect(&self.postgres.url("postgres")).await.unwrap();
        // What was changed is in the files too, not only in memory and in the log of changes.
        sqlx::query("CHECKPOINT").execute(&mut sql).await.unwrap();
        let tables = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut sql).await.unwrap();
        assert!(tables.len() > 20, "{tables:?}");
        for table in tables {
            let copy = format!("COPY (SELECT * FROM \"{table}\") TO STDOUT");
            let rows = sql.copy_out_raw(&copy).await.unwrap();
            let rows: Vec<_> = rows.try_collect().await.unwrap();
            std::fs::write(to.join(format!("table-{table}")), rows.concat()).unwrap();
        }
        let node = self.node.log().unwrap();
        assert!(node.contains("TRACE") && node.contains("request refused"), "the node logs all it can");
        std::fs::write(to.join("log-node"), node).unwrap();
        std::fs::write(to.join("log-control"), self.control.log().unwrap()).unwrap();
        std::fs::write(to.join("metrics-node"), self.node.metrics().await.unwrap()).unwrap();
        std::fs::write(to.join("metrics-control"), self.control.page("metrics").await.unwrap()).unwrap();
    }
}
