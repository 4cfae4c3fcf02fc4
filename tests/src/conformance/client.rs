//! The suite the other way around: it is the server, and judges the client of `tests/peers/conformance_client.mjs`, which reaches it
//! directly or through a gateway that it asks for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::report::Report;
use crate::foreign::{self, Foreign, tests_directory};

/// For the client, which needs two seconds; a machine that is busy with builds needs more.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(120);

/// The scenarios that are not about authorization, by the version that they are played in.
const LEGACY: &[&str] =
    &["initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry", "json-schema-2020-12-preservation"];
const MODERN: &[&str] = &[
    "tools_call",
    "request-metadata",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
    "json-schema-2020-12-preservation",
];
const BY_VERSION: [(&str, &[&str]); 3] =
    [("2025-06-18", &["initialize", "tools_call"]), ("2025-11-25", LEGACY), ("2026-07-28", MODERN)];

/// One scenario of one version.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub version: &'static str,
    pub name: &'static str,
}

/// All of them, oldest version first.
pub fn scenarios() -> impl Iterator<Item = Scenario> {
    BY_VERSION.iter().flat_map(|&(version, names)| names.iter().map(move |&name| Scenario { version, name }))
}

/// How the client speaks, and to whom.
#[derive(Clone, Debug, Default)]
pub struct Speaker {
    /// `legacy` or `modern`, in place of the era of the scenario's version.
    pub era: Option<&'static str>,
    /// Where it asks for a gateway to the suite.
    pub through: Option<String>,
}

impl Speaker {
    fn command(&self, foreign: &Foreign) -> String {
        let peers = tests_directory().join("peers");
        // The suite splits this at spaces and appends the URL of its server.
        let mut command = format!(
            "{} --import {} {}",
            foreign.node().display(),
            peers.join("resolve.mjs").display(),
            peers.join("conformance_client.mjs").display()
        );
        for (flag, value) in [("era", self.era), ("through", self.through.as_deref())] {
            if let Some(value) = value {
                command.push_str(&format!(" --{flag} {value}"));
            }
        }
        command
    }
}

/// Plays one scenario. Failed checks are part of the report; an error means that the suite could not run, or that the client ended in an
/// error, which a client that got what it wanted does not. `cache` is where Node keeps what it compiled.
pub async fn play(scenario: Scenario, speaker: &Speaker, cache: &Path) -> anyhow::Result<Report> {
    let (foreign, directory) = (Foreign::installed()?, tempfile::tempdir()?);
    let Scenario { version, name } = scenario;
    let output = foreign::run(
        Command::new(foreign.node())
            .arg(foreign.package("@modelcontextprotocol/conformance/dist/index.js"))
            .args(["client", "--scenario", name, "--spec-version", version, "--command", &speaker.command(&foreign)])
            .args(["--timeout", &CLIENT_TIMEOUT.as_millis().to_string()])
            .arg("--output-dir")
            .arg(directory.path())
            .env("NODE_COMPILE_CACHE", cache),
        SCENARIO_TIMEOUT,
    )
    .await
    .with_context(|| format!("{name} of {version} by {speaker:?}"))?;
    let report = Report::read(directory.path())?;
    if report.is_empty() || output.stderr.contains("Client exited with code") || output.stderr.contains("Client timed out") {
        bail!("{name} of {version} by {speaker:?}:\n{}\n{}", output.stdout, output.stderr);
    }
    Ok(report)
}
