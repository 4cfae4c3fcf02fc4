//! Which suites there are and how one is run.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::Deserialize;
use tokio::process::Command;

use super::report::Report;
use crate::foreign::{self, Foreign};

/// For one scenario, as the suite itself keeps it.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(30);
/// For one whole suite; a healthy one takes three to ten seconds.
const SUITE_TIMEOUT: Duration = Duration::from_secs(240);

/// One way to run the official suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum Suite {
    /// Every scenario of 2025-03-26
    V2025_03_26,
    /// Every scenario of 2025-06-18
    V2025_06_18,
    /// Every scenario of 2025-11-25
    V2025_11_25,
    /// Every scenario of 2026-07-28
    V2026_07_28,
    /// The frozen requirements of 2026-07-28, with the tasks extension
    Requirements2026_07_28,
}

impl Suite {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] =
        [Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28, Self::Requirements2026_07_28];

    /// The name of the suite and of its record.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
            Self::Requirements2026_07_28 => "2026-07-28-requirements",
        }
    }

    /// Whether its clients speak 2026-07-28.
    pub fn is_modern(self) -> bool {
        match self {
            Self::V2026_07_28 | Self::Requirements2026_07_28 => true,
            Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => false,
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::V2025_03_26 => &["--suite", "all", "--spec-version", "2025-03-26"],
            Self::V2025_06_18 => &["--suite", "all", "--spec-version", "2025-06-18"],
            Self::V2025_11_25 => &["--suite", "all", "--spec-version", "2025-11-25"],
            Self::V2026_07_28 => &["--suite", "all", "--spec-version", "2026-07-28"],
            Self::Requirements2026_07_28 => &["--requirements", "2026-07-28"],
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|suite| suite.name() == name);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            anyhow!("there is no suite {name}; the suites are {names}")
        })
    }
}

impl TryFrom<String> for Suite {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

/// Runs `suite` against the MCP server at `url`, keeping its files in `directory`.
///
/// Failed checks are part of the report, not errors; an error means that the suite itself could not run.
pub async fn run(suite: Suite, url: &str, directory: &Path) -> anyhow::Result<Report> {
    let foreign = Foreign::installed()?;
    let output = foreign::run(
        Command::new(foreign.node())
            .arg(foreign.package("@modelcontextprotocol/conformance/dist/index.js"))
            .args(["server", "--url", url])
            .args(suite.arguments())
            .args(["--timeout", &SCENARIO_TIMEOUT.as_millis().to_string()])
            .arg("--output-dir")
            .arg(directory),
        SUITE_TIMEOUT,
    )
    .await
    .with_context(|| format!("conformance suite {suite} against {url}"))?;
    let report = Report::read(directory)?;
    if report.is_empty() {
        let words = format!("{}\n{}", output.stdout, output.stderr);
        return Err(anyhow!("conformance suite {suite} against {url} judged nothing:\n{words}"));
    }
    Ok(report)
}
