//! A running `mcpgw standalone --demo`, a small MCP server behind it, and the command line to use it with.

pub mod documents;

use std::io::{BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const MCPGW: &str = env!("CARGO_BIN_EXE_mcpgw");

/// The gateway; ended when dropped.
pub struct Gateway {
    process: Child,
    pub announcement: Value,
    /// Data, saved login and files of a test.
    home: tempfile::TempDir,
}

/// What a command came to.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Gateway {
    pub fn start(server: &str) -> Self {
        let home = tempfile::Builder::new().prefix("mcpgw-test-").tempdir_in("/tmp").unwrap();
        // The account of Postgres passes through, where this runs as root.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let (process, announcement) = start(home.path(), server);
        Self { process, announcement, home }
    }

    /// Ends it as nothing can prepare for.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn start_again(&mut self, server: &str) {
        (self.process, self.announcement) = start(self.home.path(), server);
    }

    /// Writes a file that commands find by its name.
    pub fn file(&self, name: &str, content: &str) {
        std::fs::write(self.home.path().join(name), content).unwrap();
    }

    pub fn sign_in(&self) {
        let password = self.announcement["owner"]["password"].as_str().unwrap();
        let ran = self.sign_in_with(password);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }

    pub fn sign_in_with(&self, password: &str) -> Ran {
        let of = |name: &str| self.announcement[name].as_str().unwrap().to_owned();
        let (admin, gateway) = (of("admin"), of("gateway"));
        let arguments =
            ["login", "owner@localhost", "--endpoint", &admin, "--gateway", &gateway, "--org", "demo", "--password-stdin"];
        self.run(&arguments, Some(password))
    }

    pub fn mcpgw(&self, arguments: &[&str]) -> Ran {
        self.run(arguments, None)
    }

    /// Runs a command that ends with this exit code.
    pub fn ends(&self, code: i32, arguments: &[&str]) {
        let ran = self.run(arguments, None);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
    }

    /// The data of a command that succeeds.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[arguments, &["-o", "json"]].concat(), None);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    fn run(&self, arguments: &[&str], input: Option<&str>) -> Ran {
        let mut command = Command::new(MCPGW);
        command.args(arguments).current_dir(self.home.path()).env("MCPGW_CONFIG_DIR", self.home.path().join("config"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.unwrap_or_default().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // In order, so that nothing writes into the directory that is about to go.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

fn start(home: &Path, server: &str) -> (Child, Value) {
    let mut command = Command::new(MCPGW);
    command.args(["standalone", "-o", "json", "--demo", "--demo-server", server]).arg("--data-dir").arg(home.join("data"));
    for listener in ["--listen", "--admin-listen", "--node-listen", "--http-listen", "--health-listen"] {
        command.args([listener, "127.0.0.1:0"]);
    }
    command.env("MCPGW_CLI_LOG", "warn").env_remove("DATABASE_URL").stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    let first = serde_json::Deserializer::from_reader(stdout).into_iter().next();
    (process, first.expect("standalone announces itself: see stderr").unwrap())
}

/// An MCP server of both eras with one tool, `add`.
pub struct McpServer {
    pub url: String,
}

impl McpServer {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                spawn(async move {
                    let service = service_fn(serve);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url }
    }
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let params = &message["params"];
    let result = match message["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "test", "version": "1"}}),
        Some("server/discover") => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        Some("tools/list") => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "tools": [{"name": "add", "inputSchema": {"type": "object"}}]}),
        Some("tools/call") => {
            let sum = params["arguments"]["a"].as_i64().unwrap_or(0) + params["arguments"]["b"].as_i64().unwrap_or(0);
            json!({"resultType": "complete", "content": [{"type": "text", "text": sum.to_string()}]})
        }
        _ => return Ok(Response::builder().status(202).body(Full::default()).expect("a plain answer")),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let answer = Response::builder().header("content-type", "application/json").body(Full::from(answer));
    Ok(answer.expect("a plain answer"))
}

#[allow(clippy::disallowed_methods)] // lives as long as the test's runtime
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
