//! The MCP inspector on its command line: one method per run.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

use super::document::{Outcome, Refusal};
use crate::foreign::{self, Foreign};

const INSPECTOR_TIMEOUT: Duration = Duration::from_secs(60);

/// What the inspector is told to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// The handshake
    Legacy,
    /// 2026-07-28
    Modern,
    /// Probes first
    Auto,
}

impl Era {
    fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
            Self::Auto => "auto",
        }
    }
}

/// Runs `mcp-inspector --cli --server-url URL --transport http --protocol-era ERA --format json --quiet` with
/// `arguments` such as `["--method", "tools/call", "--tool-name", "echo", "--tool-args-json", "{}"]`.
///
/// A refusal is an outcome; an error means that the inspector itself could not run.
pub async fn inspect(url: &str, token: Option<&str>, era: Era, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let foreign = Foreign::installed()?;
    let launcher = "@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    // The inspector keeps a catalogue in the home directory, which tests have no business with.
    let home = tempfile::tempdir()?;
    let mut command = Command::new(foreign.node());
    command
        .env("HOME", home.path())
        .arg(foreign.package(launcher))
        .args(["--cli", "--server-url", url, "--transport", "http"])
        .args(["--protocol-era", era.name(), "--format", "json", "--quiet"])
        .args(arguments);
    if let Some(token) = token {
        command.arg("--header").arg(format!("Authorization: Bearer {token}"));
    }
    let output = foreign::run(&mut command, INSPECTOR_TIMEOUT).await.context("mcp-inspector")?;
    // A tool's own error has a result on one stream and the verdict on the other.
    let printed = [&output.stdout, &output.stderr]
        .into_iter()
        .flat_map(|stream| stream.lines())
        .find_map(|line| serde_json::from_str::<Value>(line).ok())
        .with_context(|| format!("mcp-inspector printed no JSON: {output:?}"))?;
    let error = match printed.get("error") {
        Some(error) => Some(serde_json::from_value::<Refusal>(error.clone())?),
        None => None,
    };
    Ok(Outcome { op: arguments.join(" "), ok: error.is_none(), result: printed["result"].clone(), error })
}
