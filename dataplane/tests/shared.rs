//! Sessions that share the process of a stdio server, over a real process under the real helper: each has its own answers, and nobody is
//! held up by anybody else.
#![allow(clippy::unwrap_used)] // the lint spares test functions, not what they call

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mcp_gateway::proto::config::v1::{
    ClientTransport, ClientTransportSettings, EnvironmentVariable, Global, Manifest, OrgBundle, Organization, Secrets, Server,
    SessionKey, Stdio, StdioScope, Transport,
};
use mcp_gateway::seal::{PoolKey, seal_secrets};
use mcp_gateway::snapshot::{Staged, compile};
use mcp_gateway::type_url;
use mcpgw_dataplane::bridge::legacy_client::Known;
use mcpgw_dataplane::children::{Children, EndedWhy, Handle as Process, Program};
use mcpgw_dataplane::config;
use mcpgw_dataplane::tasks::Tasks;
use mcpgw_dataplane::upstream::Upstreams;
use mcpgw_dataplane::upstream::link::{Found, FromServer, Hubs, Kind, Link, LinkError, Reach, ToServer, Way};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::runtime::Handle;

const HELPER: &str = env!("CARGO_BIN_EXE_mcpgw-dataplane");
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/servers/shared.py");
const ORG: &str = "0190a000-0000-7000-8000-0000000000a1";
const FIRST: &str = "0190a000-0000-7000-8000-0000000000b1";
const SECOND: &str = "0190a000-0000-7000-8000-0000000000b2";
/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);
const URI: &str = "file:///a";

struct World {
    reach: Reach,
}

impl World {
    fn new() -> Self {
        let (tasks, provider) = (Tasks::new(Handle::current()), Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let children = Children::new(config::Children::default(), Program::at(HELPER), tasks.clone());
        Self {
            reach: Reach {
                upstreams: Upstreams::new(PATIENCE, &provider),
                tasks,
                children,
                hubs: Hubs::default(),
                mirrors: Known::default(),
                eras: Found::default(),
            },
        }
    }

    async fn open(&self, way: &Way) -> Session {
        Session { link: way.open(&self.reach, "session").await.unwrap(), held: Vec::new() }
    }

    /// Processes that run, oldest first.
    fn processes(&self) -> Vec<Process> {
        self.reach.children.list().into_iter().map(|child| self.reach.children.get(child.id).unwrap()).collect()
    }
}

/// A shared server that is registered with these variables.
fn registered(id: &str, variables: &[(&str, &str)]) -> Server {
    let variable = |(name, value): &(&str, &str)| EnvironmentVariable { name: (*name).into(), value: (*value).into() };
    let command = ["python3", SERVER].map(String::from).to_vec();
    let environment = variables.iter().map(variable).collect();
    let stdio = Stdio { command, environment, scope: StdioScope::Shared.into(), ..Stdio::default() };
    Server { id: id.into(), slug: "shared".into(), transport: Transport::Stdio.into(), stdio: Some(stdio), ..Server::default() }
}

/// How a session gets there.
fn way(server: Server) -> Way {
    let id = server.id.clone();
    let organization = Some(Organization { slug: "acme".into(), ..Organization::default() });
    let org = OrgBundle { org_id: ORG.into(), chunk_count: 1, organization, servers: vec![server], ..OrgBundle::default() };
    let key = SessionKey { key_id: "s1".into(), key: vec![1; 32].into(), current: true };
    let secrets = Secrets { session_keys: vec![key], credentials: vec![] };
    let pool_key = PoolKey::from_bytes(&[9; 32]).unwrap();
    let sealed = seal_secrets("p1", &pool_key, "secrets/default", &secrets);
    let global = Global { pool: "default".into(), ..Global::default() };
    let mut staged = Staged::new();
    for (kind, name, body) in [
        (type_url::GLOBAL, "global/default".to_owned(), global.encode_to_vec()),
        (type_url::ORG_BUNDLE, format!("org/{ORG}/0"), org.encode_to_vec()),
        (type_url::SECRET_ENVELOPE, "secrets/default".to_owned(), sealed.encode_to_vec()),
    ] {
        staged.put(kind, &name, body.into()).unwrap();
    }
    let manifest = Manifest { epoch: 1, version: 1, scope: "default".into(), ..Manifest::default() };
    let snapshot = compile(&manifest, &staged, &BTreeMap::from([("p1".to_owned(), pool_key)]), None).unwrap();
    assert_eq!(snapshot.report(), [""; 0]);
    Way {
        server: snapshot.server(&id).unwrap().1.clone(),
        transport: Transport::Stdio,
        era: None,
        listens: true,
        url: http::Uri::default(),
        credential: None,
        variable: None,
        message_bytes: 8 << 20,
        keep_alive: PATIENCE,
        connect_timeout: PATIENCE,
    }
}

/// One session's end of the link.
struct Session {
    link: Link,
    held: Vec<(Value, Option<u64>)>,
}

impl Session {
    async fn say(&self, kind: Kind, message: Value) {
        self.link.to.send(ToServer::new(message.to_string().into(), kind)).await.unwrap();
    }

    async fn request(&self, number: u64, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "id": number, "method": method, "params": params});
        self.say(if method == "initialize" { Kind::Initialize(number) } else { Kind::Request(number) }, message).await;
    }

    /// The next thing that comes; none: the link is down.
    async fn next(&mut self) -> Option<(Value, Option<u64>)> {
        match tokio::time::timeout(PATIENCE, self.link.from.recv()).await.expect("something comes") {
            Some(FromServer::Message { message, about }) => Some((serde_json::from_slice(&message).unwrap(), about)),
            Some(FromServer::Unanswered { why, .. }) => panic!("{why}"),
            Some(FromServer::Down { .. }) | None => None,
        }
    }

    /// The next message for which `wanted` holds; what comes before it is kept.
    async fn hears(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.held.iter().position(|(message, _)| wanted(message)) {
            return self.held.remove(place).0;
        }
        loop {
            let next = self.next().await.expect("the link is up");
            if wanted(&next.0) {
                return next.0;
            }
            self.held.push(next);
        }
    }

    async fn ask(&mut self, number: u64, method: &str, params: Value) -> Value {
        self.request(number, method, params).await;
        self.hears(|message| message["id"] == number && message.get("method").is_none()).await
    }

    /// What a tool says.
    async fn call(&mut self, number: u64, tool: &str, arguments: Value) -> Value {
        let answer = self.ask(number, "tools/call", json!({"name": tool, "arguments": arguments})).await;
        serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap()
    }

    /// Methods that the process was told, with what they were about.
    async fn told(&mut self, number: u64, method: &str) -> Vec<Value> {
        let heard = self.call(number, "heard", json!({})).await;
        heard.as_array().unwrap().iter().filter(|heard| heard["method"] == method).cloned().collect()
    }

    /// Returns when the process was told this. It tells nobody by itself, so it is asked again and again.
    async fn until_told(&mut self, method: &str) {
        let asked = async {
            let mut number = 1000;
            while self.told(number, method).await.is_empty() {
                number += 1;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the process is told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_sessions_have_their_own_answers_and_their_own_progress() {
    const SESSIONS: u64 = 20;
    const CALLS: u64 = 50;
    let (world, way) = (World::new(), way(registered(FIRST, &[])));
    let sessions = join_all((0..SESSIONS).map(|_| world.open(&way))).await;
    let talk = |(name, mut session): (u64, Session)| async move {
        let opened = session.ask(1, "initialize", json!({"protocolVersion": "2025-06-18"})).await;
        assert_eq!(opened["result"]["protocolVersion"], "2025-06-18");
        assert!(opened["result"]["capabilities"].get("tasks").is_none(), "{opened}");
        let nonce = |call: u64| json!({"nonce": format!("{name}-{call}")});
        // The same numbers as everybody else, ten at a time.
        for ten in (0..CALLS).collect::<Vec<_>>().chunks(10) {
            for call in ten {
                let params = json!({"name": "echo", "arguments": nonce(*call), "_meta": {"progressToken": call}});
                session.request(*call, "tools/call", params).await;
            }
            let (mut answered, mut progressed) = (HashSet::new(), HashSet::new());
            while answered.len() < ten.len() {
                let (message, about) = session.next().await.expect("the link is up");
                let about = about.expect("everything here is about a call");
                let (text, id) = if message.get("method").is_some() {
                    assert!(progressed.insert(about), "{message}");
                    (&message["params"]["message"], &message["params"]["progressToken"])
                } else {
                    assert!(answered.insert(about) && progressed.contains(&about), "{message}");
                    (&message["result"]["content"][0]["text"], &message["id"])
                };
                assert_eq!(*id, about);
                assert_eq!(serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap(), nonce(about));
            }
            assert_eq!(answered, ten.iter().copied().collect());
        }
        session
    };
    let sessions = join_all((0..SESSIONS).zip(sessions).map(talk)).await;
    assert_eq!(world.processes().len(), 1);
    drop(sessions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_both_ways_at_once_do_not_wait_for_each_other() {
    let (world, way) = (World::new(), way(registered(FIRST, &[])));
    let text = "x".repeat(1 << 20);
    let talks = (0..8).map(|_| async {
        let mut session = world.open(&way).await;
        for call in 0..5 {
            session.request(call, "tools/call", json!({"name": "echo", "arguments": {"text": text}})).await;
        }
        for call in 0..5 {
            let answer = session.hears(|message| message["id"] == call).await;
            assert!(answer["result"]["content"][0]["text"].as_str().unwrap().len() > text.len());
        }
    });
    join_all(talks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_does_not_open_holds_nobody_up() {
    let world = World::new();
    let (hanging, fine) = (way(registered(FIRST, &[("HANG", "1")])), way(registered(SECOND, &[])));
    tokio::select! {
        biased;
        _ = hanging.open(&world.reach, "session") => panic!("it hangs"),
        mut session = world.open(&fine) => assert_eq!(session.call(1, "echo", json!({"a": 1})).await, json!({"a": 1})),
    }
    // Whoever waits for it hears at once that it is in vain, and nobody starts another one for that.
    let world = World::new();
    let hanging = way(Server { call_timeout_ms: 3000, ..registered(FIRST, &[("HANG", "1")]) });
    for opened in join_all((0..5).map(|_| hanging.open(&world.reach, "session"))).await {
        assert!(matches!(opened, Err(LinkError::NotOpened)));
    }
    let said = world.reach.children.logs(FIRST);
    assert_eq!(said.iter().map(|line| &*line.text).collect::<Vec<_>>(), ["up"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_registered_otherwise_is_another_process_and_the_old_one_ends_with_its_last_session() {
    let world = World::new();
    let (before, after) = (way(registered(FIRST, &[("MARK", "1")])), way(registered(FIRST, &[("MARK", "2")])));
    let mark = json!({"name": "MARK"});
    let mut old = world.open(&before).await;
    let mut new = world.open(&after).await;
    assert_eq!([old.call(1, "env", mark.clone()).await, new.call(1, "env", mark.clone()).await], ["1", "2"]);
    let processes = world.processes();
    assert_eq!(processes.len(), 2);
    drop(old);
    assert_eq!(processes[0].ended().await.why, EndedWhy::Dropped);
    assert_eq!(new.call(2, "env", mark.clone()).await, "2");
    // Kept for whoever comes next.
    drop(new);
    let mut next = world.open(&after).await;
    assert_eq!(next.call(1, "env", mark).await, "2");
    assert_eq!(world.processes().iter().map(Process::id).collect::<Vec<_>>(), [processes[1].id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_talks_to_nobody_ends_as_its_registration_says() {
    let world = World::new();
    let idle = ClientTransportSettings {
        transport: ClientTransport::StreamableHttp.into(),
        session_idle_seconds: 1,
        ..ClientTransportSettings::default()
    };
    let way = way(Server { client_transports: vec![idle], ..registered(FIRST, &[("CHATTER", "1")]) });
    let mut session = world.open(&way).await;
    session.hears(|message| message["method"] == "notifications/tools/list_changed").await;
    let process = world.processes().remove(0);
    drop(session);
    let ended = tokio::time::timeout(PATIENCE, process.ended()).await.expect("it ends although it talks");
    assert_eq!(ended.why, EndedWhy::Dropped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_subscriber_to_leave_unsubscribes_all() {
    let (world, way) = (World::new(), way(registered(FIRST, &[])));
    let (mut first, mut second, mut watching) = (world.open(&way).await, world.open(&way).await, world.open(&way).await);
    for session in [&mut first, &mut second] {
        assert_eq!(session.ask(1, "resources/subscribe", json!({"uri": URI})).await["result"], json!({}));
        assert_eq!(session.ask(2, "logging/setLevel", json!({"level": "info"})).await["result"], json!({}));
    }
    watching.call(1, "news", json!({"uri": URI})).await;
    for session in [&mut first, &mut second] {
        session.hears(|message| message["method"] == "notifications/resources/updated").await;
    }
    assert_eq!(watching.told(2, "resources/subscribe").await.len(), 1);
    assert!(watching.held.is_empty(), "it did not subscribe");
    first.ask(3, "resources/unsubscribe", json!({"uri": URI})).await;
    assert_eq!(watching.told(3, "resources/unsubscribe").await.len(), 0, "somebody is subscribed");
    drop((first, second));
    watching.until_told("resources/unsubscribe").await;
    let levels = watching.told(4, "logging/setLevel").await;
    assert_eq!(levels.last().unwrap()["level"], "emergency", "{levels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_does_not_read_loses_its_link_and_nobody_waits_for_it() {
    let (world, way) = (World::new(), way(registered(FIRST, &[])));
    let (mut deaf, mut other) = (world.open(&way).await, world.open(&way).await);
    let params = json!({"name": "flood", "arguments": {"times": 64, "size": 1 << 20}, "_meta": {"progressToken": 1}});
    deaf.request(1, "tools/call", params).await;
    assert_eq!(other.call(1, "echo", json!({"a": 1})).await, json!({"a": 1}));
    // It is more than fits between a process and a session: the gateway gives up the call of one that has to go.
    other.until_told("notifications/cancelled").await;
    while deaf.next().await.is_some() {}
    assert_eq!(world.processes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_progress_costs_nobody_the_link_and_garbage_is_counted() {
    let (world, way) = (World::new(), way(registered(FIRST, &[])));
    let mut session = world.open(&way).await;
    let params = json!({"name": "flood", "arguments": {"times": 1000, "size": 10}, "_meta": {"progressToken": 1}});
    session.request(1, "tools/call", params).await;
    let mut told = 0;
    while session.next().await.expect("the link is up").0.get("method").is_some() {
        told += 1;
    }
    assert_eq!(told, 1001);
    session.call(2, "garbage", json!({})).await;
    assert_eq!(world.reach.children.list()[0].garbage, 1);
    assert!(world.reach.children.logs(FIRST).iter().any(|line| &*line.text == "no message"));
}
