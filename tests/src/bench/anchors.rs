//! What is measured: the mock asked directly, nginx before it, and `mcpgw-dataplane` before it with little and with everything to do.
//! Each is a process of its own, started here and ended with its handle.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, StatusCode};

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
const ROOM: &str = "limits:\n  connections_per_ip: 20000\n  in_flight_per_server: 20000\n  in_flight_per_organization: 20000\n";

/// One of the things that are compared.
pub struct Anchor {
    pub name: &'static str,
    /// None: the mock itself.
    pub process: Option<Measured>,
    pub work: Work,
    /// A node's control plane.
    pub desk: Option<Desk>,
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
        Self { name: "direct", process: None, work: work(upstream, "/mcp", Vec::new()), desk: None, _directory: None }
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
        Ok(Self { name: "nginx", process: Some(process), work, desk: None, _directory: Some(directory) })
    }

    /// A node: enrolled, configured and connected over mutual TLS as any other.
    pub async fn node(name: &'static str, duty: Duty, rig: &Rig, upstream: &str) -> anyhow::Result<Self> {
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
        let mut command = rig.command(MEASURED, rig.beside("mcpgw-dataplane")?);
        command.arg("--config").arg(&path).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        let mut process = Measured { child: command.spawn()? };
        ready(&mut process, admin, &log).await?;
        let place = setup::fill(&desk, duty, upstream).await?;
        let work = work(&listen.to_string(), &place.path, place.tokens);
        Ok(Self { name, process: Some(process), work, desk: Some(desk), _directory: Some(directory) })
    }
}

fn work(address: &str, path: &str, tokens: Vec<String>) -> Work {
    Work { address: address.to_owned(), path: path.to_owned(), era: Era::Modern, tokens, tool: "echo".to_owned() }
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
