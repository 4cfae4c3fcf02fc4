//! What is measured: the mock asked directly, nginx before it, and `mcpgw-dataplane` before it with little and with everything to do.
//! Each is a process of its own, started here and ended with its handle.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::control::Desk;
use super::process::{AROUND, MEASURED, Measured, Rig};
use super::setup::{self, Duty};
use super::work::{Era, Work};
use crate::fleet::{Call, Http};

const START: Duration = Duration::from_secs(60);
/// How often something is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(10);
const NGINX: &str = include_str!("../../bench/nginx.conf");
/// What a node of the benchmark is told beside addresses: everything comes from one address here.
const ROOM: &str = "limits:\n  connections_per_ip: 20000\n  in_flight_per_server: 20000\n  in_flight_per_organization: 20000\n\
                    sessions: { max: 20000, max_per_organization: 20000, max_per_principal: 20000 }\n";

/// One of the things that are compared.
pub struct Anchor {
    pub name: &'static str,
    /// None: the mock itself.
    pub process: Option<Measured>,
    pub work: Work,
    /// A node's control plane.
    pub desk: Option<Desk>,
    /// Where a node tells its metrics.
    pub admin: Option<SocketAddr>,
    /// The token of somebody who may speak to all clients of a node.
    pub operator: Option<String>,
    /// What tells how often a node has allocated, where it counts.
    pub counter: Option<Counter>,
    _directory: Option<tempfile::TempDir>,
}

/// The mock as a process.
pub async fn mock(rig: &Rig) -> anyhow::Result<(Measured, String)> {
    let address = free()?;
    let child = rig.command(AROUND, &rig.program).args(["mock", &address.to_string()]).stdout(Stdio::null()).spawn()?;
    let measured = Measured { child };
    listening(address).await.context("the mock")?;
    Ok((measured, address.to_string()))
}

impl Anchor {
    pub fn direct(upstream: &str) -> Self {
        Self {
            name: "direct",
            process: None,
            work: work(upstream, "/mcp", Vec::new()),
            desk: None,
            admin: None,
            operator: None,
            counter: None,
            _directory: None,
        }
    }

    pub async fn nginx(rig: &Rig, upstream: &str) -> anyhow::Result<Self> {
        let (directory, address) = (tempfile::tempdir()?, free()?);
        let place = directory.path().to_str().context("a directory with a plain name")?;
        let text = NGINX.replace("@DIRECTORY@", place).replace("@LISTEN@", &address.to_string()).replace("@UPSTREAM@", upstream);
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, text)?;
        let mut command = rig.command(MEASURED, nginx()?);
        command
            .arg("-e")
            .arg(directory.path().join("start.log"))
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Measured { child: command.spawn()? };
        listening(address).await.context("nginx")?;
        let work = work(&address.to_string(), "/mcp", Vec::new());
        let process = Some(process);
        Ok(Self {
            name: "nginx",
            process,
            work,
            desk: None,
            admin: None,
            operator: None,
            counter: None,
            _directory: Some(directory),
        })
    }

    /// A node before the server at `server`: enrolled, configured and connected over mutual TLS as any other.
    pub async fn node(name: &'static str, duty: Duty, rig: &Rig, server: &str) -> anyhow::Result<Self> {
        let program = rig.command(MEASURED, rig.beside("mcpgw-dataplane")?);
        Self::node_by(program, name, duty, server).await
    }

    /// The same data plane within the benchmark's own program, which counts what it allocates.
    pub async fn counting(name: &'static str, duty: Duty, rig: &Rig, server: &str) -> anyhow::Result<Self> {
        let mut program = rig.command(MEASURED, &rig.program);
        program.arg("node").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut anchor = Self::node_by(program, name, duty, server).await?;
        anchor.counter = anchor.process.as_mut().map(|process| Counter::of(&mut process.child)).transpose()?;
        Ok(anchor)
    }

    async fn node_by(mut command: Command, name: &'static str, duty: Duty, server: &str) -> anyhow::Result<Self> {
        let desk = Desk::open().await?;
        let directory = tempfile::tempdir()?;
        let (listen, admin) = (free()?, free()?);
        let token = desk.admin.join_token().await?;
        let settings = format!(
            "listen: [{{ address: \"{listen}\" }}]\npublic_url: {}\nadmin_listen: \"{admin}\"\nstate_dir: {}\n\
             control_plane: {{ endpoints: [\"https://{}\"], server_name: localhost, join_token: \"{token}\" }}\n\
             log: {{ filter: warn }}\n{ROOM}",
            desk.control.running.core.config.gateway_public_url,
            directory.path().join("state").display(),
            desk.address,
        );
        let (path, log) = (directory.path().join("dataplane.yaml"), directory.path().join("log"));
        std::fs::write(&path, settings)?;
        command.arg("--config").arg(&path).stderr(std::fs::File::create(&log)?);
        let mut process = Measured { child: command.spawn()? };
        ready(&mut process, admin, &log).await?;
        let place = setup::fill(&desk, duty, server).await?;
        let work = work(&listen.to_string(), &place.path, place.tokens);
        let (process, desk, admin) = (Some(process), Some(desk), Some(admin));
        Ok(Self { name, process, work, desk, admin, operator: place.operator, counter: None, _directory: Some(directory) })
    }

    /// A counter of a node's metrics, all its labels together.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let admin = self.admin.context("only nodes have metrics")?;
        let (_, page) = get(admin, "/metrics").await.context("no metrics")?;
        let page = std::str::from_utf8(&page)?;
        let values = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        let of_name = values.filter(|(key, _)| key.split('{').next() == Some(name));
        Ok(of_name.map(|(_, value)| value.parse::<f64>()).sum::<Result<f64, _>>()? as u64)
    }
}

/// A conversation with a node that counts: a line asks, a number answers.
pub struct Counter {
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Counter {
    fn of(child: &mut Child) -> anyhow::Result<Self> {
        let (asks, answers) = child.stdin.take().zip(child.stdout.take()).context("both are piped")?;
        Ok(Self { asks, answers: BufReader::new(answers).lines() })
    }

    /// How often the node has allocated or grown something so far.
    pub async fn allocations(&mut self) -> anyhow::Result<u64> {
        self.asks.write_all(b"\n").await?;
        let line = self.answers.next_line().await?.context("the node has ended")?;
        Ok(line.parse()?)
    }
}

fn work(address: &str, path: &str, tokens: Vec<String>) -> Work {
    Work { address: address.to_owned(), path: path.to_owned(), era: Era::Modern, tokens, tool: "echo".to_owned(), across: false }
}

fn nginx() -> anyhow::Result<&'static str> {
    let known = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/opt/homebrew/bin/nginx", "/usr/bin/nginx"];
    known.into_iter().find(|place| Path::new(place).exists()).context("no nginx: scripts/ensure-nginx installs it")
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

async fn listening(address: SocketAddr) -> anyhow::Result<()> {
    let end = Instant::now() + START;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        anyhow::ensure!(Instant::now() < end, "does not listen on {address}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn ready(process: &mut Measured, admin: SocketAddr, log: &Path) -> anyhow::Result<()> {
    let end = Instant::now() + START;
    while get(admin, "/ready").await.is_none_or(|(status, _)| status != StatusCode::OK) {
        let ended = process.child.try_wait()?;
        if ended.is_some() || Instant::now() > end {
            bail!("the node is not ready ({ended:?}); its log:\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn get(address: SocketAddr, path: &str) -> Option<(StatusCode, Bytes)> {
    let url = format!("http://{address}{path}");
    let answer = Http::default().send(Call { url, method: Method::GET, headers: Vec::new(), body: Bytes::new() }).await.ok()?;
    Some((answer.status, answer.body))
}
