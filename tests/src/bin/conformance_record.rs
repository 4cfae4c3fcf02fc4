//! `mcpgw-conformance-record`: runs the official conformance suite directly against the backend and refreshes the
//! records in `tests/conformance/direct`, or judges another server by them.

use std::io::Write as _;

use anyhow::bail;
use clap::Parser;
use mcpgw_tests::backend::Backend;
use mcpgw_tests::conformance::{self, Report, Suite};

/// Refreshes the records of direct runs, or compares a server with them.
#[derive(Parser)]
struct Options {
    /// Only these suites, such as 2025-11-25 or 2026-07-28-requirements; all if absent
    #[arg(long)]
    suite: Vec<Suite>,
    /// Runs per suite; a record keeps the worst verdict on each check
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Writes nothing; fails if anything is worse than the records
    #[arg(long)]
    check: bool,
    /// Judges the server at this URL instead of the backend; implies --check
    #[arg(long)]
    url: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let suites = if options.suite.is_empty() { Suite::ALL.to_vec() } else { options.suite.clone() };
    let mut worse = 0;
    for suite in suites {
        let report = run(suite, &options).await?;
        say(&format!("{suite}: {}", report.totals()))?;
        if options.check || options.url.is_some() {
            for finding in conformance::worse_than(&conformance::direct(suite)?, &report) {
                say(&format!("  worse: {finding}"))?;
                worse += 1;
            }
        } else {
            let path = conformance::record_path(suite);
            conformance::write(&path, &report)?;
        }
    }
    if worse > 0 {
        bail!("{worse} checks are worse than in the direct run");
    }
    Ok(())
}

async fn run(suite: Suite, options: &Options) -> anyhow::Result<Report> {
    let backend = match &options.url {
        Some(_) => None,
        None => Some(Backend::on_free_port().await?),
    };
    let url = backend.as_ref().map(Backend::url).or_else(|| options.url.clone());
    let mut report = Report::default();
    for _ in 0..options.runs {
        let directory = tempfile::tempdir()?;
        let url = url.as_deref().unwrap_or_default();
        report.merge_worst(conformance::run(suite, url, directory.path()).await?);
    }
    Ok(report)
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
