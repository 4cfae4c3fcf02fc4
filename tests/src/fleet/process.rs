//! A node as a process of its own: the built program, which can be killed like any other, and comes back where it was.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use tempfile::{NamedTempFile, TempDir};
use tokio::process::{Child, Command};

use super::node::{self, metric};
use super::{Admin, Control};
use crate::program::{beside, own_addresses};

/// What the program is started with, each time.
struct Started {
    variables: Vec<(&'static str, String)>,
    flags: [(&'static str, String); 4],
}

/// See the module. Dropped, it is killed and its state is forgotten.
pub struct NodeProcess {
    command: Started,
    listen: SocketAddr,
    admin: SocketAddr,
    state: TempDir,
    log: NamedTempFile,
    child: Child,
}

impl NodeProcess {
    /// Enrols with a fresh token, starts, and waits until the first configuration is in force. `settings` are variables of the
    /// environment, without their prefix.
    pub async fn join(control: &Control, admin: &Admin, settings: &[(&'static str, String)]) -> anyhow::Result<Self> {
        let public_url = control.running.core.config.gateway_public_url.clone();
        Self::enrol(control.addresses().node, &public_url, admin.join_token().await?, settings).await
    }

    /// As [`NodeProcess::join`], with a token, at a control plane that listens for nodes on `control`.
    pub async fn enrol(
        control: SocketAddr,
        public_url: &str,
        token: String,
        settings: &[(&'static str, String)],
    ) -> anyhow::Result<Self> {
        let (state, log) = (tempfile::tempdir()?, NamedTempFile::new()?);
        let [listen, admin_listen] = own_addresses();
        let mut variables = vec![
            ("CONTROL_PLANE__ENDPOINTS", format!("[\"https://{control}\"]")),
            ("CONTROL_PLANE__SERVER_NAME", "localhost".to_owned()),
            ("CONTROL_PLANE__JOIN_TOKEN", token),
        ];
        variables.extend_from_slice(settings);
        let flags = [
            ("listen", listen.to_string()),
            ("admin-listen", admin_listen.to_string()),
            ("public-url", public_url.to_owned()),
            ("state-dir", state.path().display().to_string()),
        ];
        let command = Started { variables, flags };
        let child = command.spawn(&log)?;
        let mut process = Self { command, listen, admin: admin_listen, state, log, child };
        process.ready().await?;
        Ok(process)
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again on the same state and addresses, and waits until it serves.
    pub async fn again(&mut self) -> anyhow::Result<()> {
        self.child = self.command.spawn(&self.log)?;
        self.ready().await
    }

    /// An address on the node.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// Where the node keeps its identity and spool.
    pub fn state_dir(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// Everything that it logged, over all its lives.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.log.path())?)
    }

    /// The page of `/metrics`.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        node::metrics(self.admin).await
    }

    /// The address that MCP clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The process's id.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        metric(self.admin, name).await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            ready = node::ready(self.admin) => ready,
            ended = self.child.wait() => {
                let ended = ended?;
                Err(anyhow::anyhow!("the node ended with {ended}"))
            }
        }
        .with_context(|| format!("its log:\n{}", self.log().unwrap_or_default()))
    }
}

impl Started {
    fn spawn(&self, log: &NamedTempFile) -> anyhow::Result<Child> {
        let program = beside("mcpgw-dataplane")?;
        let log = OpenOptions::new().append(true).open(log.path())?;
        let mut command = Command::new(&program);
        command.envs(self.variables.iter().map(|(name, value)| (format!("MCPGW_{name}"), value)));
        command.args(self.flags.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        command.spawn().with_context(|| program.display().to_string())
    }
}
