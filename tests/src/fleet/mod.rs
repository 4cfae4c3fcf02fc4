//! A whole gateway in one process for tests: Postgres, a control plane, nodes that enrolled themselves. The same `App`s that the binaries
//! run, on free ports, over real sockets and mutual TLS; only their configuration is made here.

mod admin;
mod control;
mod mcp;
mod mortal;
mod node;
mod plane;
mod process;
mod witness;

pub use admin::{Admin, MEMBER_PASSWORD, Rule};
pub use control::{Control, OWNER_EMAIL, OWNER_PASSWORD, install_crypto};
pub use mcp::{Answer, Call, Http};
pub use mortal::Mortal;
pub use node::Node;
pub use plane::ControlProcess;
pub use process::NodeProcess;
pub use witness::Witness;

use mcp_gateway::proto::admin::v1::Server;
use mcp_gateway::proto::config::v1::{Endpoint, Era, Transport};

use crate::backend::Backend;

/// One control plane with one node, and a backend to put behind it.
pub struct Fleet {
    pub control: Control,
    pub node: Node,
    pub backend: Backend,
    pub admin: Admin,
}

/// The organisation that fleets start with.
pub const ORG: &str = "acme";
/// The server of that organisation: the conformance backend.
pub const SERVER: &str = "backend";

impl Fleet {
    /// Starts everything and waits until the node serves the backend.
    pub async fn start() -> anyhow::Result<Self> {
        Self::on(Control::start().await?).await
    }

    /// The same, on a control plane of the test's own.
    pub async fn on(control: Control) -> anyhow::Result<Self> {
        let admin = control.owner().await?;
        admin.create_org(ORG).await?;
        let backend = Backend::on_free_port().await?;
        let version = admin.create_server(ORG, SERVER, &backend.url(), false).await?.config_version;
        let node = Node::join(&control, &admin).await?;
        admin.wait(version).await?;
        Ok(Self { control, node, backend, admin })
    }

    /// Where clients reach a server of the fleet's organisation.
    pub fn url(&self, server: &str) -> String {
        self.node.url(&format!("/o/{ORG}/servers/{server}/mcp"))
    }

    /// An API key with policy roles; its secret text.
    pub async fn key(&self, roles: &[&str]) -> anyhow::Result<String> {
        let created = self.admin.create_key(ORG, roles).await?;
        self.admin.wait(created.api_key.map_or(0, |key| key.config_version)).await?;
        Ok(created.secret)
    }

    /// Creates a rule and waits until the node decides by it.
    pub async fn allow(&self, rule: Rule<'_>) -> anyhow::Result<u64> {
        let version = self.admin.create_policy(ORG, rule).await?.config_version;
        self.admin.wait(version).await?;
        Ok(version)
    }
}

impl Fleet {
    /// A rule that allows everything on the fleet's server to callers without a credential, on a server that lets them in.
    pub async fn open(&self, server: &str) -> anyhow::Result<()> {
        self.opened(server, Server::default()).await
    }

    /// The same, with a server of Streamable HTTP that the gateway is told to speak to in one era.
    pub async fn open_in(&self, era: Era, server: &str) -> anyhow::Result<()> {
        let transport = Transport::StreamableHttp.into();
        self.opened(server, Server { transport, era: era.into(), ..Server::default() }).await
    }

    async fn opened(&self, server: &str, registered: Server) -> anyhow::Result<()> {
        let endpoints = vec![Endpoint { url: self.backend.url(), weight: 1 }];
        let registered = Server { endpoints, allow_anonymous: true, ..registered };
        self.admin.register(ORG, server, registered).await?;
        let name = format!("open-{server}");
        let all = &["*"];
        let rule = Rule { name: &name, server, anonymous: true, tools: all, prompts: all, resources: all, ..Rule::default() };
        self.allow(rule).await.map(drop)
    }
}
