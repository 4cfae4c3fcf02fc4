//! What a data-plane process is told at start: addresses, paths, sizes, deadlines.
//!
//! Owns the defaults, the layering (defaults, YAML, `MCPGW_*`, flags) and the checks; everything that can change while
//! serving comes in the snapshot instead. Called by `main`, by tests and by `mcpgw standalone`.

mod children;
mod limits;
mod load;
mod redis;
mod sessions;
mod units;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use children::Children;
pub use limits::{Limits, Timeouts};
pub(crate) use load::variable;
pub use load::{Overrides, Problems, load};
pub use redis::Redis;
pub use sessions::{Sessions, Transports};

/// Configuration of one data-plane process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where MCP clients connect.
    pub listen: Vec<Listen>,
    /// The URL by which clients reach this node, without a path: what `aud` and the Host header are compared with.
    pub public_url: String,
    /// Host names beside that of `public_url` that requests may be addressed to; loopback names are always accepted
    /// on loopback listeners.
    pub allowed_hosts: Vec<String>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where `/health`, `/ready` and `/metrics` are served; no credentials are asked for, keep it private.
    pub admin_listen: SocketAddr,
    /// Where identity, last good configuration and audit spool lie.
    pub state_dir: PathBuf,
    /// Documents of organisations to serve, in place of what a control plane says; watched. Empty: a control plane is joined.
    pub static_files: Vec<PathBuf>,
    /// Where the configuration comes from.
    pub control_plane: ControlPlane,
    /// How other nodes reach this one.
    pub peer: Peer,
    /// The audit spool.
    pub audit: Audit,
    /// Sizes and counts that a request or connection may have.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Sessions that live in this node.
    pub sessions: Sessions,
    /// How clients may come.
    pub transports: Transports,
    /// Where nodes share the counts of limits.
    pub redis: Redis,
    /// MCP servers that this node runs itself.
    pub children: Children,
    /// How the process logs.
    pub log: Log,
}

/// One client-facing address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Certificates to choose from by SNI, the first is the default; empty: plain HTTP.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
}

/// A certificate chain and its key, both PEM; reloaded when a file changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How the node reaches and recognises its control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlPlane {
    /// `https://host:port` of each replica, tried in random order.
    pub endpoints: Vec<String>,
    /// The name that the control plane's certificate must carry; empty: the endpoint's host.
    pub server_name: String,
    /// A one-time join token; only read while the node has no identity.
    #[serde(with = "units::secret")]
    pub join_token: Option<SecretString>,
    /// A file with the join token, instead of `join_token`.
    pub join_token_file: Option<PathBuf>,
    /// The node's name for people; default: the host's.
    pub node_name: Option<String>,
    /// Between two reports of how the node is, give or take 20 %.
    #[serde(with = "units::duration")]
    pub report_interval: Duration,
}

/// How other nodes of the pool reach this one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Where this node listens for them, with mutual TLS; none: it does not.
    pub listen: Option<SocketAddr>,
    /// `host:port` that they are told; none: they cannot reach it.
    pub advertise: Option<String>,
}

/// Bounds of the audit spool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// Most bytes that unshipped records may take on disk, over all lanes.
    #[serde(with = "units::bytes")]
    pub spool_max_bytes: u64,
    /// How many lanes the spool has; 0: one per worker thread.
    pub lanes: usize,
}

/// Logging.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// A `tracing` filter, such as `info` or `mcpgw_dataplane=debug,info`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![Listen { address: SocketAddr::from(([127, 0, 0, 1], 8080)), certificates: Vec::new() }],
            public_url: "http://127.0.0.1:8080".into(),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            state_dir: PathBuf::from("/var/lib/mcpgw/dataplane"),
            static_files: Vec::new(),
            control_plane: ControlPlane::default(),
            peer: Peer::default(),
            audit: Audit::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            sessions: Sessions::default(),
            transports: Transports::default(),
            redis: Redis::default(),
            children: Children::default(),
            log: Log::default(),
        }
    }
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self {
            endpoints: vec!["https://127.0.0.1:7401".into()],
            server_name: String::new(),
            join_token: None,
            join_token_file: None,
            node_name: None,
            report_interval: Duration::from_secs(10),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { spool_max_bytes: 1 << 30, lanes: 0 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}
