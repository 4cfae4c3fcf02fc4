//! A control plane that can be killed: it ends in the middle of whatever it does, and says good-bye to nobody.

use std::time::Duration;

use mcpgw_controlplane::config::Config;
use tokio::runtime::Runtime;

use super::Control;

/// Longest wait for threads to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// See the module.
pub struct Mortal {
    pub control: Control,
    /// All that it runs on.
    runtime: Option<Runtime>,
}

impl Mortal {
    /// Starts one on a runtime of its own.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let control = runtime.spawn(Control::with(config)).await??;
        Ok(Self { control, runtime: Some(runtime) })
    }

    /// Returns when its sockets are closed; what it takes to begin again where it was.
    pub async fn kill(mut self) -> anyhow::Result<Config> {
        let addresses = self.control.addresses();
        let mut config = (*self.control.running.core.config).clone();
        (config.node_listen, config.admin_listen) = (addresses.node, addresses.admin);
        if let Some(runtime) = self.runtime.take() {
            // Waits for a thread that has to come to rest, which it may not do on a thread of a runtime.
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await?;
        }
        Ok(config)
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
