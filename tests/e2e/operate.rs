//! The operators' verbs of the command line against real nodes: what clients and processes at the other end get, what people and machines
//! read, and with which code a command ends that could not do what it was asked.

mod world;

use std::collections::BTreeSet;

use http::Method;
use mcpgw_tests::cli::Cli;
use mcpgw_tests::fleet::{Call, Http};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::streams::{call, opening};
use world::{OWN, SHARED, World, until};

/// Nobody's session, and no process.
const UNKNOWN: &str = "5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001";

fn news(data: u32) -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": data}}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_what_operators_say_to_them_wherever_they_are() {
    let world = World::start().await.unwrap();
    let (mut sockets, mut streams) = (world.sockets().await, world.streams().await);
    let table = world.table(&["session", "list"]).await.stdout;
    assert!(table.starts_with("SESSION") && table.lines().count() == 5, "{table}");
    let listed = world.data(&["session", "list", "--ws"]).await;
    assert_eq!((listed["sessions"].as_array().map(Vec::len), &listed["unreachable"]), (Some(2), &json!([])));

    let told = world.table(&["session", "broadcast", "--ws", &news(1)]).await;
    assert_eq!(told.stdout, "2 clients were told\n");
    let told = world.data(&["session", "broadcast", "--sse", &news(1)]).await;
    assert_eq!(told, json!({"reached": 2, "unreachable": []}));

    // One session, of either node, whichever was asked; after the broadcast nothing else is said to it.
    let (of_sockets, of_streams) = (world.sessions("websocket").await, world.sessions("http-sse").await);
    for session in &of_sockets {
        let sent = world.operator.run(&["session", "send", session, "-"], &news(2)).await.unwrap();
        assert_eq!((sent.code, &*sent.stdout, &*sent.stderr), (Some(0), "", &*format!("sent it to session {session}\n")));
    }
    for session in &of_streams {
        let sent = world.data(&["session", "send", session, &news(2)]).await;
        assert_eq!(sent, json!({"session": session, "reached": 1, "found": true, "unreachable": []}));
    }
    for data in [1, 2] {
        for socket in &mut sockets {
            assert_eq!(socket.hears().await["params"]["data"], data);
        }
        for stream in &mut streams {
            assert_eq!(stream.hears().await["params"]["data"], data);
        }
    }

    let asked = world.table(&["session", "ping", &of_sockets[0]]).await;
    assert_eq!((&*asked.stdout, &*asked.stderr), ("", &*format!("asked the client of session {}\n", of_sockets[0])));
    assert_eq!(world.data(&["session", "ping", &of_sockets[1]]).await["reached"], 1);
    for socket in &mut sockets {
        socket.pinged().await;
    }

    let ended = world.data(&["session", "close", &of_sockets[1]]).await;
    assert_eq!(ended, json!({"session": of_sockets[1], "reached": 1, "found": true, "unreachable": []}));
    assert_eq!(sockets[1].closed().await, 1000);
    let ended = world.table(&["session", "close", &of_streams[1]]).await;
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", &*format!("ended session {}\n", of_streams[1])));
    streams.pop().unwrap().ended().await;
    assert_eq!(world.run(&["session", "close", &of_streams[1]]).await.code, Some(3), "it is gone");
    assert_eq!(sockets[0].call("echo", "").await, "echo", "the others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_ones_own_is_told_again_what_it_was_told() {
    let world = World::start().await.unwrap();
    let url = world.nodes[1].url("/o/acme/servers/own/mcp");
    let call = Call { method: Method::POST, ..Call::post(&url, opening().to_string()) };
    let answer = Http::default().send(call.header("authorization", &format!("Bearer {}", world.key))).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let session = world.sessions("streamable-http").await.remove(0);
    let own = ["session", "replay", &session, "--after", "1-0", "--key", &world.key];
    let events = world.run(&[&own[..], &["-o", "json"]].concat()).await.json();
    assert_eq!(events[0]["message"], answer.message(), "{events}");
    let id = events[0]["id"].as_str().unwrap().to_owned();
    let table = world.table(&own).await.stdout;
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with(&id) && line.contains("serverInfo")), "{table}");
    // Somebody else's is not there, not even for an operator.
    assert_eq!(world.run(&["session", "replay", &session]).await.code, Some(3));
}

/// A command that follows, and what it has said on stdout.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(cli: &Cli, arguments: &[&str]) -> Self {
        let mut child = cli.start(arguments).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn next(&mut self) -> String {
        let line = tokio::time::timeout(std::time::Duration::from_secs(60), self.lines.next_line()).await;
        line.expect("a line in time").unwrap().expect("a line")
    }

    async fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next().await).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_processes_write_is_read_and_followed_on_every_node() {
    let world = World::start().await.unwrap();
    let mut sockets = world.sockets().await;
    assert_eq!(sockets[0].call("mutter", "before").await, "mutter");
    let mut following = Following::start(&world.operator, &["server", "logs", OWN, "--follow", "-o", "json"]);
    let kept = following.next_json().await;
    assert_eq!((&kept["text"], &kept["stream"], &kept["node"]), (&json!("before"), &json!("stderr"), &json!(world.id(0))));
    // Both at once, and each once: the next line of either node is the next that it writes.
    for round in ["one", "two"] {
        let mut heard = BTreeSet::new();
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.call("mutter", &format!("{round} of {}", world.id(number))).await;
        }
        for _ in &world.nodes {
            let line = following.next_json().await;
            assert_eq!(line["text"], format!("{round} of {}", line["node"].as_str().unwrap()));
            heard.insert(line["node"].to_string());
        }
        assert_eq!(heard.len(), 2);
    }
    let table = world.table(&["server", "logs", OWN]).await.stdout;
    assert_eq!(table.lines().filter(|line| line.contains(" stderr: one of ")).count(), 2, "{table}");
    let told = world.data(&["server", "logs", "organizations/acme/servers/own"]).await;
    assert_eq!((told["lines"].as_array().map(Vec::len), &told["unreachable"]), (Some(5), &json!([])));

    let mut people = Following::start(&world.operator, &["server", "logs", OWN, "-f"]);
    for _ in 0..5 {
        assert!(people.next().await.contains(" stderr: "));
    }
    sockets[1].call("mutter", "three").await;
    assert!(people.next().await.ends_with(" stderr: three"));
    assert_eq!(following.next_json().await["text"], "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_are_seen_ended_and_replaced() {
    let world = World::start().await.unwrap();
    let (mut sockets, streams) = (world.sockets().await, world.streams().await);
    let table = world.table(&["server", "process", "list"]).await.stdout;
    assert!(table.starts_with("PROCESS") && table.lines().count() == 5, "{table}");
    let (own, shared) = (world.processes(OWN).await, world.processes("organizations/acme/servers/shared").await);
    assert_eq!((own.len(), shared.len()), (2, 2));

    // A session that lost nothing with its process goes on with another.
    let ended = world.data(&["server", "process", "stop", &own[0]]).await;
    assert_eq!(ended, json!({"processes": [own[0]], "unreachable": []}));
    let own = world.processes_other_than(OWN, &own[..1], 2).await;
    for socket in &mut sockets {
        assert_eq!(socket.call("echo", "").await, "echo");
    }
    let ended = world.table(&["server", "process", "stop", OWN]).await;
    assert_eq!((&*ended.stdout, ended.stderr.lines().count()), ("", 2), "{ended:?}");
    world.processes_other_than(OWN, &own, 2).await;
    let refused = world.run(&["server", "process", "restart", OWN]).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("only a process that sessions share"), "{refused:?}");

    // Sessions that share one go on with the next.
    let ended = world.data(&["server", "process", "restart", "organizations/acme/servers/shared"]).await;
    let named: BTreeSet<_> = ended["processes"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(named, shared.iter().map(String::as_str).collect(), "{ended}");
    let shared = world.processes_other_than(SHARED, &shared, 2).await;
    for mut stream in streams {
        assert_eq!(stream.post(&call("echo", "")).await, 202);
        assert_eq!(stream.hears().await["result"]["content"][0]["text"], "echo");
    }
    // And the next is there before anybody comes: no session is left to start it.
    until("the streams are over", async || world.sessions("http-sse").await.is_empty()).await;
    let ended = world.table(&["server", "process", "restart", &shared[0]]).await;
    assert_eq!(ended.stderr, format!("asked for another in place of process {}\n", shared[0]));
    let waiting = world.processes_other_than(SHARED, &shared[..1], 2).await;
    drop(world.streams().await);
    assert_eq!(world.processes(SHARED).await, waiting, "whoever comes next finds it");
    world.table(&["server", "process", "stop", SHARED]).await;
    until("none is started where it was stopped", async || world.processes(SHARED).await.is_empty()).await;
    assert_eq!(world.run(&["server", "process", "stop", SHARED]).await.code, Some(3), "none runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_ends_with_the_documented_code_and_says_why() {
    let world = World::start().await.unwrap();
    let _sockets = world.sockets().await;
    let session = world.sessions("websocket").await.remove(0);
    let asks = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let (stranger, note) = (Cli::new().unwrap(), news(1));
    let gateway = world.nodes[0].url("");
    let (operator, auditor) = (&world.operator, &world.auditor);
    for (who, arguments, code, says) in [
        (operator, &["session", "close", UNKNOWN][..], 3, "No such session"),
        (operator, &["session", "ping", UNKNOWN], 3, "No such session"),
        (operator, &["session", "send", UNKNOWN, &note], 3, "No such session"),
        (operator, &["session", "replay", UNKNOWN], 3, "No such session"),
        (operator, &["server", "process", "stop", UNKNOWN], 3, "No such process"),
        (operator, &["server", "process", "restart", UNKNOWN], 3, "No such process"),
        (operator, &["server", "logs", "nothing"], 3, "No such stdio server"),
        (operator, &["server", "logs", "nothing", "--follow"], 3, "No such stdio server"),
        (operator, &["session", "send", &session, &asks], 2, "one JSON-RPC notification"),
        (operator, &["session", "broadcast", "--ws", &asks], 2, "one JSON-RPC notification"),
        (operator, &["session", "broadcast", "--ws", "{"], 2, "the message is not JSON"),
        (operator, &["session", "close", "no-id"], 2, "invalid value"),
        (operator, &["server", "logs", "servers/own"], 2, "expected an id or organizations/ORG/servers/ID"),
        (operator, &["session", "list", "--org", "other"], 4, "the saved login is for organizations/acme"),
        (operator, &["server", "logs", "organizations/other/servers/own"], 4, "the saved login is for organizations/acme"),
        (operator, &["session", "list", "--org", "other", "--key", &world.key], 4, "The credential is not for this organisation"),
        (operator, &["session", "list", "--gateway", "http://127.0.0.1:1"], 6, "cannot reach"),
        (auditor, &["session", "close", &session], 4, "This is for operators"),
        (auditor, &["session", "ping", &session], 4, "This is for operators"),
        (auditor, &["session", "send", &session, &note], 4, "This is for operators"),
        (auditor, &["session", "broadcast", "--ws", &note], 4, "This is for operators"),
        (auditor, &["server", "logs", OWN], 4, "This is for operators"),
        (auditor, &["server", "logs", OWN, "--follow"], 4, "This is for operators"),
        (auditor, &["server", "process", "list"], 4, "This is for operators"),
        (auditor, &["server", "process", "stop", OWN], 4, "This is for operators"),
        (&stranger, &["session", "list"], 2, "which gateway?"),
        (&stranger, &["session", "list", "--gateway", &gateway, "--key", "mcpgw_nothing"], 4, "The credential is not valid"),
    ] {
        let ran = who.run(arguments, "").await.unwrap();
        assert_eq!((ran.code, &*ran.stdout), (Some(code), ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
    let listed = auditor.run(&["session", "list", "-o", "json"], "").await.unwrap();
    assert_eq!(listed.json(), json!({"sessions": [], "unreachable": []}), "{listed:?}");
    assert_eq!(world.sessions("websocket").await.len(), 2, "nothing was ended");
    assert_eq!(world.data(&["session", "list", "--org", "acme"]).await["sessions"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_dead_is_named_and_nothing_is_said_to_be_done_that_was_not() {
    let mut world = World::start().await.unwrap();
    let mut sockets = world.sockets().await;
    let (alive, dead) = (world.id(0), world.id(1));
    let sessions = world.sessions("websocket").await;
    let mut following = Following::start(&world.operator, &["server", "logs", OWN, "--follow"]);
    for socket in &mut sockets {
        socket.call("mutter", "here").await;
        following.next().await;
    }
    world.nodes[1].kill().await.unwrap();
    let mut said = BufReader::new(following.child.stderr.take().unwrap()).lines();
    let warned = said.next_line().await.unwrap().unwrap();
    assert!(warned.contains(&dead), "{warned}");
    sockets[0].call("mutter", "still").await;
    assert!(following.next().await.ends_with("stderr: still"), "the other node is followed on");

    let silent = |text: &str| text.matches(&*dead).count();
    for arguments in [
        &["session", "close", UNKNOWN][..],
        &["session", "ping", &sessions[1]],
        &["session", "send", UNKNOWN, &news(1)],
        &["session", "replay", UNKNOWN],
        &["server", "process", "stop", UNKNOWN],
    ] {
        let ran = world.run(arguments).await;
        assert_eq!((ran.code, &*ran.stdout, silent(&ran.stderr)), (Some(6), "", 1), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("on any node that answered"), "{ran:?}");
    }
    // What is known is told, once with the warning for people and with the node's name for machines.
    for arguments in [&["session", "list"][..], &["server", "logs", OWN], &["server", "process", "list"]] {
        let ran = world.table(arguments).await;
        assert!(ran.stdout.contains(&*alive) && silent(&ran.stdout) == 0 && silent(&ran.stderr) == 1, "{arguments:?}: {ran:?}");
        let data = world.data(arguments).await;
        assert_eq!((&data["unreachable"][0]["node"], &data["unreachable"][1]), (&json!(dead), &Value::Null), "{data}");
    }
    // What was meant for all was done where it could be, and that is not everywhere.
    let told = world.run(&["session", "broadcast", "--ws", &news(1), "-o", "json"]).await;
    assert_eq!((told.code, &told.json()["reached"], silent(&told.stderr)), (Some(6), &json!(1), 1), "{told:?}");
    assert_eq!(sockets[0].hears().await["params"]["data"], 1);
    let ended = world.run(&["server", "process", "stop", OWN, "-o", "json"]).await;
    assert_eq!((ended.code, ended.json()["processes"].as_array().map(Vec::len)), (Some(6), Some(1)), "{ended:?}");
    // What is found needs nobody else.
    assert_eq!(world.table(&["session", "close", &sessions[0]]).await.code, Some(0));
    assert_eq!(sockets[0].closed().await, 1000);
}
