//! The settings of both planes from one set of flags: what one plane tells the other has to agree.
//! Never starts anything. Called by `standalone`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args as Flags;
use figment::value::{Dict, Value};
use mcpgw_controlplane::config::Config as ControlPlane;
use mcpgw_dataplane::config::{Config as DataPlane, Overrides};
use mcpgw_dataplane::node::Identity;

use super::home::Home;
use super::owner::Owner;

/// The data plane's part of the data directory.
const NODE: &str = "node";

/// Where things listen, and the settings files of the planes.
#[derive(Debug, Clone, Flags)]
#[command(next_help_heading = "Addresses and settings")]
pub struct Settings {
    /// A YAML file with the sections controlplane and dataplane
    #[arg(long, env = "MCPGW_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The document of an organisation to begin with, as `mcpgw export` writes it; only read if there never was one of that name
    #[arg(long, env = "MCPGW_BOOTSTRAP_FILE", value_name = "FILE")]
    bootstrap: Option<PathBuf>,
    /// Where MCP clients connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The URL by which clients reach the gateway [default: that of --listen]
    #[arg(long, env = "MCPGW_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// The admin API (gRPC)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7400")]
    admin_listen: SocketAddr,
    /// Discovery and enrolment of nodes (gRPC over mutual TLS)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7401")]
    node_listen: SocketAddr,
    /// Health, metrics and keys of the control plane
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7402")]
    http_listen: SocketAddr,
    /// Health, readiness and metrics of the data plane
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8081")]
    health_listen: SocketAddr,
}

/// What both planes will be told.
#[derive(Debug)]
pub struct Plan {
    settings: Settings,
    listen: SocketAddr,
    pub public_url: String,
}

impl Plan {
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let listen = settled(settings.listen)?;
        let public_url = settings.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(listen)));
        Ok(Self { settings, listen, public_url })
    }

    /// The control plane's settings.
    pub fn control_plane(&self, home: &Home, database_url: &str, owner: &Owner) -> anyhow::Result<ControlPlane> {
        let master_key = home.secret("master.key", || make_up(32))?;
        let checkpoint_key = home.secret("audit-checkpoint.key", || make_up(32))?;
        let flags = [
            ("database_url", database_url.to_owned()),
            ("master_key_file", master_key.display().to_string()),
            ("audit_checkpoint_key_file", checkpoint_key.display().to_string()),
            ("admin_listen", self.settings.admin_listen.to_string()),
            ("node_listen", self.settings.node_listen.to_string()),
            ("http_listen", self.settings.http_listen.to_string()),
            ("gateway_public_url", self.public_url.clone()),
            ("owner_email", owner.email.clone()),
            ("owner_password", owner.password.clone()),
        ];
        let mut flags: Dict = flags.map(|(name, value)| (name.to_owned(), Value::from(value))).into();
        if let Some(file) = &self.settings.bootstrap {
            flags.insert("bootstrap_file".into(), Value::from(file.display().to_string()));
        }
        Ok(ControlPlane::load(self.settings.config.as_deref(), flags)?)
    }

    /// Whether the node of this data directory has joined a control plane.
    pub fn has_joined(home: &Home) -> anyhow::Result<bool> {
        Ok(Identity::load(&home.private_dir(NODE)?)?.is_some())
    }

    /// The data plane's settings, for a control plane that listens at `node`.
    pub fn data_plane(&self, home: &Home, node: SocketAddr) -> anyhow::Result<DataPlane> {
        let flags = Overrides {
            listen: Some(self.listen),
            public_url: Some(self.public_url.clone()),
            admin_listen: Some(self.settings.health_listen),
            state_dir: Some(home.private_dir(NODE)?),
            ..Overrides::default()
        };
        let mut config = mcpgw_dataplane::config::load(self.settings.config.as_deref(), flags)?;
        ensure!(config.static_files.is_empty(), "static_files: expected none, the node of standalone follows its control plane");
        config.control_plane.endpoints = vec![format!("https://{}", reachable(node))];
        "localhost".clone_into(&mut config.control_plane.server_name);
        Ok(config)
    }
}

/// `bytes` random bytes in Base64.
pub fn make_up(bytes: usize) -> String {
    use base64::Engine as _;
    let random: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
    base64::prelude::BASE64_STANDARD.encode(random)
}

/// How a client on this machine reaches a listener.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Port 0 as a port that is free now: the public URL has to be known before anything is bound.
fn settled(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    let found = TcpListener::bind(listen).and_then(|it| it.local_addr());
    found.with_context(|| format!("no free port at {}", listen.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        let table = [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080"), ("192.0.2.1:8080", "192.0.2.1:8080")];
        for (listen, expected) in table {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
