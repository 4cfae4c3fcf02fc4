//! A control plane on a database of its own.

use mcpgw_controlplane::app::Addresses;
use mcpgw_controlplane::config::Config;
use mcpgw_controlplane::testing::{self, Running};
use tonic::transport::{Channel, Endpoint};

use super::Admin;

pub use mcpgw_controlplane::testing::OWNER_PASSWORD;
/// The owner that a first start creates; administers the whole installation.
pub const OWNER_EMAIL: &str = "owner@localhost";

/// A running control plane; dropping it stops it.
pub struct Control {
    pub running: Running,
}

impl Control {
    /// On a fresh, migrated database.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(testing::config(&testing::database().await)).await
    }

    /// With settings of the test's own.
    pub async fn with(config: Config) -> anyhow::Result<Self> {
        install_crypto();
        Ok(Self { running: Running::with(config).await })
    }

    pub fn addresses(&self) -> Addresses {
        self.running.addresses
    }

    /// The value of a metric, named with its labels as on the page; one that nothing was counted in is 0.
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.running.core.metrics.text();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// A connection to the admin API.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(Endpoint::from_shared(format!("http://{}", self.addresses().admin))?.connect().await?)
    }

    /// The owner, signed in.
    pub async fn owner(&self) -> anyhow::Result<Admin> {
        Ok(Admin::login(self.channel().await?, OWNER_EMAIL, OWNER_PASSWORD, "").await?)
    }
}

/// Makes aws-lc-rs the process's provider; doing it again changes nothing.
pub fn install_crypto() {
    // The error says that a provider is installed already, which is what we want.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
