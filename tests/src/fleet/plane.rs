//! A control plane as a process of its own: the built program, with everything that it logs.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, StatusCode};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

use super::{Call, Http};
use crate::program::{beside, own_addresses};

/// See the module. Dropped, it is killed.
pub struct ControlProcess {
    /// The admin API over gRPC.
    pub admin: SocketAddr,
    /// What nodes connect to.
    pub node: SocketAddr,
    /// Health, metrics, and the admin API over HTTP.
    pub http: SocketAddr,
    log: NamedTempFile,
    child: Child,
}

impl ControlProcess {
    /// Starts it and waits until it is open. `settings` are variables of the environment, without their prefix.
    pub async fn start(settings: &[(&str, String)]) -> anyhow::Result<Self> {
        let [admin, node, http] = own_addresses();
        let log = NamedTempFile::new()?;
        let listen = [("ADMIN_LISTEN", admin), ("NODE_LISTEN", node), ("HTTP_LISTEN", http)];
        let program = beside("mcpgw-controlplane")?;
        let mut command = Command::new(&program);
        command.envs(settings.iter().map(|(name, value)| (format!("MCPGW_{name}"), value)));
        command.envs(listen.map(|(name, address)| (format!("MCPGW_{name}"), address.to_string())));
        let append = || OpenOptions::new().append(true).open(log.path());
        let (out, err) = (append()?, append()?);
        command.stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true);
        let child = command.spawn().with_context(|| program.display().to_string())?;
        let mut process = Self { admin, node, http, log, child };
        process.ready().await?;
        Ok(process)
    }

    /// A connection to the admin API.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(Endpoint::from_shared(format!("http://{}", self.admin))?.connect().await?)
    }

    /// A page of its HTTP listener, such as `metrics`.
    pub async fn page(&self, page: &str) -> anyhow::Result<String> {
        let call =
            Call { url: format!("http://{}/{page}", self.http), method: Method::GET, headers: Vec::new(), body: Bytes::new() };
        Ok(String::from_utf8(Http::default().send(call).await?.body.to_vec())?)
    }

    /// Everything that it logged.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.log.path())?).into_owned())
    }

    /// `/ready` has no watch, so this asks again and again.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let (http, url) = (Http::default(), format!("http://{}/ready", self.http));
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        let asked = async {
            loop {
                turn.tick().await;
                let call = Call { url: url.clone(), method: Method::GET, headers: Vec::new(), body: Bytes::new() };
                // A process that has just been started does not listen yet.
                if http.send(call).await.is_ok_and(|answer| answer.status == StatusCode::OK) {
                    return;
                }
            }
        };
        let result = tokio::select! {
            asked = tokio::time::timeout(Duration::from_secs(60), asked) => asked.context("the control plane never became ready"),
            ended = self.child.wait() => {
                let ended = ended?;
                Err(anyhow::anyhow!("the control plane ended with {ended}"))
            }
        };
        result.with_context(|| format!("its log:\n{}", self.log().unwrap_or_default()))
    }
}
