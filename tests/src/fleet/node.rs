//! A data-plane node that joined a control plane like any other: with a token, over mutual TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, StatusCode};
use mcpgw_dataplane::app::{Addresses, App};
use mcpgw_dataplane::config::{Config, Listen};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Admin, Call, Control, Http};

/// A running node; dropping it stops it and forgets its state.
pub struct Node {
    pub addresses: Addresses,
    config: Config,
    state: TempDir,
    stop: CancellationToken,
    ended: Option<JoinHandle<anyhow::Result<()>>>,
}

/// The parts of a node's identity that a stock client can use.
#[derive(Debug, serde::Deserialize)]
pub struct Identity {
    pub node_id: String,
    pub certificate_pem: String,
    pub ca_pem: String,
    #[serde(rename = "private_key_pem")]
    pub key_pem: String,
}

impl Node {
    /// Enrols with a fresh token, starts, and waits until the first configuration is in force.
    pub async fn join(control: &Control, admin: &Admin) -> anyhow::Result<Self> {
        let token = admin.join_token().await?;
        let node = Self::with(control, |config| config.control_plane.join_token = Some(SecretString::from(token))).await?;
        node.ready().await?;
        Ok(node)
    }

    /// Returns once `/ready` says so.
    pub async fn ready(&self) -> anyhow::Result<()> {
        ready(self.addresses.admin).await
    }

    /// With settings of the test's own.
    pub async fn with(control: &Control, change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let mut config = Config {
            listen: vec![Listen { address: local(), certificates: Vec::new() }],
            public_url: control.running.core.config.gateway_public_url.clone(),
            admin_listen: local(),
            state_dir: state.path().to_owned(),
            ..Config::default()
        };
        // Tests get more wrong than anybody who shares an address.
        config.limits.failures_per_address = 10_000;
        config.control_plane.endpoints = vec![format!("https://{}", control.addresses().node)];
        config.control_plane.server_name = "localhost".to_owned();
        change(&mut config);
        let (addresses, stop, ended) = start(config.clone()).await?;
        Ok(Self { addresses, config, state, stop, ended: Some(ended) })
    }

    /// Drains and stops; the state directory stays for [`Node::resume`].
    pub async fn halt(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        match self.ended.take() {
            Some(ended) => ended.await?,
            None => Ok(()),
        }
    }

    /// Starts another process's worth of node on the same state directory, at new addresses.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let (addresses, stop, ended) = start(self.config.clone()).await?;
        (self.addresses, self.stop, self.ended) = (addresses, stop, Some(ended));
        Ok(())
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        metric(self.addresses.admin, name).await
    }

    /// An address on the node.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.listen[0])
    }

    /// Where the node keeps its identity and spool.
    pub fn state_dir(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// What the node got when it enrolled, as it lies in the state directory.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        let text = std::fs::read_to_string(self.state.path().join("identity.json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Drains and stops.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.halt().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns once `/ready` of a node's admin listener says so. The endpoint has no watch, so this asks again and again.
pub(super) async fn ready(admin: SocketAddr) -> anyhow::Result<()> {
    let http = Http::default();
    let mut turn = tokio::time::interval(Duration::from_millis(10));
    let asked = async {
        loop {
            turn.tick().await;
            // A process that has just been started does not listen yet.
            if http.send(get(admin, "ready")).await.is_ok_and(|answer| answer.status == StatusCode::OK) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.context("the node never became ready")
}

/// The value of a metric without labels.
pub(super) async fn metric(admin: SocketAddr, name: &str) -> anyhow::Result<u64> {
    let page = metrics(admin).await?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no metric {name} in:\n{page}"))?.parse()?)
}

/// The page of `/metrics`.
pub(super) async fn metrics(admin: SocketAddr) -> anyhow::Result<String> {
    let page = Http::default().send(get(admin, "metrics")).await?;
    Ok(String::from_utf8(page.body.to_vec())?)
}

fn get(admin: SocketAddr, page: &str) -> Call {
    Call { url: format!("http://{admin}/{page}"), method: Method::GET, headers: Vec::new(), body: Bytes::new() }
}

async fn start(config: Config) -> anyhow::Result<(Addresses, CancellationToken, JoinHandle<anyhow::Result<()>>)> {
    let app = App::build(config).await?;
    let (addresses, stop) = (app.addresses().clone(), CancellationToken::new());
    let running = app.run(stop.clone());
    // The task lives as long as this handle; there is no supervisor in a test.
    #[allow(clippy::disallowed_methods)]
    let ended = tokio::spawn(async move { Ok(running.await?) });
    Ok((addresses, stop, ended))
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
