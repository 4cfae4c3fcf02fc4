//! The stock xDS client of `tests/foreign`: official Envoy stubs, nothing of ours.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use crate::foreign::{self, Foreign, tests_directory};

const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Python has to start, too.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);

/// A subscription to every resource of one type, over mutual TLS.
#[derive(Clone, Debug)]
pub struct StockXds {
    /// `HOST:PORT` of the control plane
    pub address: String,
    /// PEM file of the authority that signed the server
    pub ca: PathBuf,
    /// PEM file with the chain of the node
    pub cert: PathBuf,
    /// PEM file with the key of the node
    pub key: PathBuf,
    /// Name in the server's certificate
    pub server_name: String,
    /// `node.id` of the first request
    pub node_id: String,
    /// Type to subscribe to
    pub type_url: String,
}

/// The first response, which the client acknowledged.
#[derive(Clone, Debug, Deserialize)]
pub struct FirstResponse {
    /// Type of the resources
    pub type_url: String,
    /// What was acknowledged
    pub nonce: String,
    /// Version of the whole response, for people
    pub system_version_info: String,
    /// The resources offered
    pub resources: Vec<NamedVersion>,
}

/// One resource of a response.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct NamedVersion {
    /// Resource name
    pub name: String,
    /// Resource version
    pub version: String,
}

impl StockXds {
    /// Subscribes, waits for the first response and acknowledges it. A refusal by the control plane is an error that
    /// holds the client's `{"error": {"code", "message"}}`.
    pub async fn first_response(&self) -> anyhow::Result<FirstResponse> {
        let foreign = Foreign::installed()?;
        let output = foreign::run(
            Command::new(foreign.python())
                .arg(tests_directory().join("foreign/xds_stock_client.py"))
                .args(["--address", &self.address, "--server-name", &self.server_name])
                .args(["--node-id", &self.node_id, "--type-url", &self.type_url])
                .args(["--timeout", &EXCHANGE_TIMEOUT.as_secs().to_string()])
                .arg("--ca")
                .arg(&self.ca)
                .arg("--cert")
                .arg(&self.cert)
                .arg("--key")
                .arg(&self.key),
            PROCESS_TIMEOUT,
        )
        .await?
        .succeeded("the stock xDS client")?;
        serde_json::from_str(&output.stdout).with_context(|| format!("the stock xDS client printed {:?}", output.stdout))
    }
}
