//! Servers that are processes of a node: bounded, ended when nobody uses them, gone with the node however it goes, and never anything but
//! what was registered.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http::Method;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateServerRequest, Role, Server};
use mcp_gateway::proto::config::v1::{Stdio, StdioScope};
use mcpgw_tests::fleet::{Admin, Answer, Call, Control, Http, NodeProcess, ORG, Rule};
use mcpgw_tests::foreign::tests_directory;
use mcpgw_tests::strace::Strace;
use serde_json::{Value, json};
use uuid::Uuid;

const NAME: &str = "stray";
/// The same, in one process for everybody.
const SHARED: &str = "shared";
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, and a server that it runs; `mark` is in the command line of all its processes.
struct World {
    node: NodeProcess,
    mark: String,
    http: Http,
    /// An operator's token.
    operator: String,
    _control: Control,
}

impl World {
    async fn start(settings: &[(&'static str, String)]) -> anyhow::Result<Self> {
        let control = Control::start().await?;
        let admin = control.owner().await?;
        admin.create_org(ORG).await?;
        let mark = Uuid::new_v4().to_string();
        register(&admin, NAME, &mark, StdioScope::Session).await?;
        register(&admin, SHARED, &mark, StdioScope::Shared).await?;
        let rule = Rule { name: "everybody", server: "*", roles: &["*"], anonymous: true, tools: &["*"], ..Rule::default() };
        admin.create_policy(ORG, rule).await?;
        let operator = admin.member(ORG, "operator@acme.test", Role::Operator).await?;
        let node = NodeProcess::join(&control, &admin, settings).await?;
        Ok(Self { node, mark, http: Http::default(), operator, _control: control })
    }

    async fn send(&self, method: Method, path: &str, session: Option<&str>, body: &Value) -> Answer {
        let mut call = Call::post(&self.node.url(path), body.to_string());
        call.method = method;
        let call = session.into_iter().fold(call, |call, session| call.header("mcp-session-id", session));
        self.http.send(call).await.unwrap()
    }

    /// What an operator orders.
    async fn order(&self, method: Method, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let call = Call { method, ..Call::post(&self.node.url(path), body) };
        self.http.send(call.header("authorization", &format!("Bearer {}", self.operator))).await.unwrap()
    }

    /// Opens a session, or tells why there is none.
    async fn open(&self) -> Result<String, Value> {
        self.open_at(NAME).await
    }

    async fn open_at(&self, server: &str) -> Result<String, Value> {
        let path = format!("/o/{ORG}/servers/{server}/mcp");
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let opening = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answer = self.send(Method::POST, &path, None, &opening).await;
        let session = answer.headers.get("mcp-session-id").map(|session| session.to_str().unwrap().to_owned());
        session.ok_or_else(|| answer.message())
    }

    async fn call(&self, session: &str, tool: &str) -> Answer {
        self.call_at(NAME, session, tool).await
    }

    async fn call_at(&self, server: &str, session: &str, tool: &str) -> Answer {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}});
        self.send(Method::POST, &format!("/o/{ORG}/servers/{server}/mcp"), Some(session), &call).await
    }

    /// The server's processes that are there.
    fn processes(&self) -> Vec<u32> {
        marked(&self.mark)
    }

    /// Returns when so many of the server's processes are there. The kernel tells nobody, so this looks again and again.
    async fn until(&self, wanted: usize) {
        until(&self.mark, wanted).await;
    }
}

async fn until(mark: &str, wanted: usize) {
    let looked = async {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        while marked(mark).len() != wanted {
            turn.tick().await;
        }
    };
    let looked = tokio::time::timeout(PATIENCE, looked).await;
    looked.unwrap_or_else(|_elapsed| panic!("{} processes instead of {wanted}", marked(mark).len()));
}

/// Interpreters whose command line has this mark; helpers have it too and are not counted.
fn marked(mark: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"python3")) && words.any(|word| word == mark.as_bytes())
    };
    processes.filter(is_one).collect()
}

/// Children of a process that have ended and were not buried.
fn zombies_of(parent: u32) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_one = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let mut fields = after.split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
    };
    processes.filter(is_one).count()
}

async fn register(admin: &Admin, name: &str, mark: &str, scope: StdioScope) -> anyhow::Result<()> {
    let script = tests_directory().join("peers/servers/stray.py").display().to_string();
    let stdio = Stdio { command: vec!["python3".to_owned(), script, mark.to_owned()], scope: scope.into(), ..Stdio::default() };
    let request = CreateServerRequest {
        parent: format!("organizations/{ORG}"),
        server_id: name.to_owned(),
        server: Some(Server { allow_anonymous: true, stdio: Some(stdio), ..Server::default() }),
        ..CreateServerRequest::default()
    };
    ServerServiceClient::new(admin.channel.clone()).create_server(admin.request(request)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_abandoned_sessions_keep_to_the_bound_and_leave_nothing() {
    const MOST: usize = 10;
    let settings = [
        ("CHILDREN__MAX", MOST.to_string()),
        ("CHILDREN__MAX_PER_ORGANIZATION", MOST.to_string()),
        ("TRANSPORTS__STREAMABLE_HTTP__SESSION_IDLE", "5s".to_owned()),
    ];
    let world = World::start(&settings).await.unwrap();
    let opened: Vec<Result<String, Value>> = stream::iter((0..200).map(|_| world.open())).buffer_unordered(8).collect().await;
    let (open, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
    println!("{} sessions opened, {} refused", open.len(), refused.len());
    assert!(open.len() >= MOST, "as many as may are");
    assert!(!refused.is_empty(), "and no more");
    for refusal in refused {
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal["error"]["code"], -32603, "{refusal}");
        assert!(
            refusal["error"]["message"].as_str().unwrap().starts_with("As many processes of servers run as may"),
            "{refusal}"
        );
    }
    assert!(world.processes().len() <= MOST);
    world.until(0).await;
    let node = world.node.id().unwrap();
    let buried = async {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        while zombies_of(node) > 0 {
            turn.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, buried).await.expect("no zombie stays");
    // And there is room again.
    let session = world.open().await.unwrap();
    assert_eq!(world.call(&session, "echo").await.text().as_deref(), Some("echo"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_leaves_no_process_not_even_one_that_ran_away() {
    let mut world = World::start(&[]).await.unwrap();
    for _ in 0..3 {
        let session = world.open().await.unwrap();
        assert_eq!(world.call(&session, "stray").await.text().as_deref(), Some("stray"));
    }
    world.until(6).await;
    let mark = world.mark.clone();
    world.node.kill().await.unwrap();
    until(&mark, 0).await;
}

/// What would start something else if a shell, a path or a loader ever saw it.
const PAYLOADS: [&str; 10] = [
    "; /bin/sh -c id",
    "$(id)",
    "`id`",
    "| id",
    "&& id",
    "../../../../bin/sh",
    "/bin/sh",
    "stray\n/bin/sh",
    "LD_PRELOAD=/tmp/x.so stray",
    "stray\0/bin/sh",
];

/// Everything but letters and digits, as a query has it.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_payloads_start_no_process_and_an_order_starts_what_was_registered() {
    let world = World::start(&[]).await.unwrap();
    let (list, note) =
        (json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), json!({"jsonrpc": "2.0", "method": "notifications/x"}));
    let trace = Strace::attach(world.node.id().unwrap(), &["-e", "trace=execve,execveat"]).await.unwrap();
    let mut refused = 0;
    for payload in PAYLOADS {
        let query = escaped(payload);
        for (method, path, body) in [
            (Method::POST, format!("/stdio/execute?server={query}"), list.clone()),
            (Method::GET, format!("/stdio/logs?server={query}"), Value::Null),
            (Method::POST, "/stdio/process".to_owned(), json!({"action": "stop", "process": payload})),
            (
                Method::POST,
                "/stdio/process".to_owned(),
                json!({"action": "start", "server": payload, "command": [payload], "env": {"LD_PRELOAD": payload}}),
            ),
            (Method::POST, "/stdio/send".to_owned(), json!({"process": payload, "message": note})),
        ] {
            let answer = world.order(method, &path, &body).await;
            assert!(answer.status.is_client_error(), "{path} {body}: {answer:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 50);
    assert_eq!(trace.detach().await.unwrap(), [""; 0], "nothing was executed");
    assert_eq!(world.processes(), [0; 0]);

    let trace = Strace::attach(world.node.id().unwrap(), &["-e", "trace=execve,execveat"]).await.unwrap();
    let answer = world.order(Method::POST, &format!("/stdio/execute?server={NAME}"), &list).await;
    assert_eq!(answer.message()["result"]["tools"][0]["name"], "echo", "{answer:?}");
    world.until(0).await;
    let executed: Vec<String> = trace.detach().await.unwrap().into_iter().filter(|line| line.contains("= 0")).collect();
    let known = |line: &String| line.contains("/proc/self/exe") || line.contains("python3");
    assert!(!executed.is_empty() && executed.iter().all(known), "{executed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_ends_and_reads_processes() {
    let world = World::start(&[]).await.unwrap();
    let session = world.open().await.unwrap();
    assert_eq!(world.call(&session, "echo").await.status, 200);
    let listed = world.order(Method::GET, "/stdio/process", &Value::Null).await.message();
    let process = &listed["processes"][0];
    assert_eq!(
        (&process["server"], &process["state"], listed["processes"].as_array().map(Vec::len)),
        (&json!(NAME), &json!("running"), Some(1))
    );
    let told = world.order(Method::GET, &format!("/stdio/logs?server={NAME}"), &Value::Null).await;
    assert_eq!(told.message()["lines"], json!([]), "it wrote nothing: {told:?}");
    let ended = world.order(Method::POST, "/stdio/process", &json!({"action": "stop", "process": process["process"]})).await;
    assert_eq!(ended.status, 200, "{ended:?}");
    world.until(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_in_a_call_is_an_error_that_says_so_and_its_session_is_over() {
    let world = World::start(&[]).await.unwrap();
    let session = world.open().await.unwrap();
    let answer = world.call(&session, "die").await;
    assert_eq!(answer.code(), Some(-32603), "{answer:?}");
    assert_eq!(world.call(&session, "echo").await.status, 404);
    world.until(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_share_a_process_and_never_each_others_answers() {
    let world = World::start(&[]).await.unwrap();
    let sessions: Vec<String> =
        stream::iter((0..20).map(|_| world.open_at(SHARED))).buffer_unordered(8).map(Result::unwrap).collect().await;
    assert_eq!(world.processes().len(), 1);
    // All with the same id, all at once.
    let calls = (0..200).map(|call| {
        let (world, session) = (&world, &sessions[call % sessions.len()]);
        async move {
            let tool = format!("tool-{call}");
            (world.call_at(SHARED, session, &tool).await.text(), tool)
        }
    });
    // A session has one request of an id under way: as many calls at once as there are sessions.
    let answers: Vec<_> = stream::iter(calls).buffered(sessions.len()).collect().await;
    for (answer, tool) in answers {
        assert_eq!(answer.as_deref(), Some(&*tool));
    }
    // One request of an operator's has a session of its own there, and no process.
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = world.order(Method::POST, &format!("/stdio/execute?server={SHARED}"), &list).await;
    assert_eq!(answer.message()["result"]["tools"][0]["name"], "echo", "{answer:?}");
    assert_eq!(world.processes().len(), 1);
    assert_eq!(world.call_at(SHARED, &sessions[0], "die").await.code(), Some(-32603));
    for session in &sessions[1..] {
        // A session in which nothing was lost goes on with the next process, which is started once the last one's end is long enough ago.
        let mut turn = tokio::time::interval(Duration::from_millis(50));
        let answer = loop {
            let answer = world.call_at(SHARED, session, "echo").await;
            if !answer.message()["error"]["message"].as_str().unwrap_or_default().contains("keeps ending") {
                break answer;
            }
            turn.tick().await;
        };
        assert_eq!(answer.text().as_deref(), Some("echo"), "{answer:?}");
    }
    assert_eq!(world.processes().len(), 1);
}
