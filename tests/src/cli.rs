//! The command line as people and scripts run it: the built program, with a home of its own.

use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::fleet::Control;
use crate::program::beside;

/// See the module. What it saves is forgotten with it.
pub struct Cli {
    home: TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    /// Signed in to nothing.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { home: tempfile::tempdir()? })
    }

    /// Signed in to a control plane; `flags` are further ones of `login`.
    pub async fn signed_in(control: &Control, email: &str, password: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let cli = Self::new()?;
        let endpoint = format!("http://{}", control.addresses().admin);
        let words = ["login", email, "--endpoint", &endpoint, "--password-stdin"];
        let ran = cli.run(&[&words, flags].concat(), password).await?;
        anyhow::ensure!(ran.code == Some(0), "{}", ran.stderr);
        Ok(cli)
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<Ran> {
        let mut child = self.start(arguments)?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        Ok(Ran { code: output.status.code(), stdout, stderr })
    }

    /// Starts a command that goes on. Dropped, it is killed.
    pub fn start(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        let mut command = Command::new(beside("mcpgw")?);
        command.args(arguments).env("MCPGW_CONFIG_DIR", self.home.path()).current_dir(self.home.path());
        for name in ["MCPGW_ORG", "MCPGW_GATEWAY", "MCPGW_API_KEY", "MCPGW_ENDPOINT"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command.spawn()?)
    }
}

impl Ran {
    /// Its data as JSON; null if there is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_default()
    }
}
