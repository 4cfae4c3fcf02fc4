//! `docs/COMPATIBILITY.md`, written from what the pairs of the matrix reported. Runs nothing itself.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{Check, Client, Exceptions, Report, Server, Verdict};
use crate::foreign::tests_directory;

const INTRODUCTION: &str = "# Compatibility

Generated from a run of every client against every server through the gateway (`tests/e2e`); never edited by hand. At both ends are
published SDKs and libraries that know nothing of the gateway. A cell counts the checks that passed of those that the client can make;
a note says what is missing and what the client is told instead.
";

/// One client and one server, with the gateway between them.
#[derive(Clone, Debug)]
pub struct Pair {
    /// In front of the gateway
    pub client: Client,
    /// Behind it
    pub server: Server,
    /// What the client found out
    pub report: Report,
}

/// The pairs of the matrix, row by row.
pub fn pairs() -> impl Iterator<Item = (Client, Server)> {
    Client::ALL.into_iter().flat_map(|client| Server::ALL.into_iter().map(move |server| (client, server)))
}

/// Where the page is committed.
pub fn committed_page() -> PathBuf {
    tests_directory().join("../docs/COMPATIBILITY.md")
}

/// The whole page. Refuses pairs that differ from the list of exceptions, and a matrix with holes.
pub fn markdown(pairs: &[Pair], exceptions: &Exceptions) -> anyhow::Result<String> {
    let differences = exceptions.differences(pairs);
    ensure!(differences.is_empty(), "{} is not what was measured:\n{}", Exceptions::path().display(), differences.join("\n"));
    let mut page = INTRODUCTION.to_owned();
    table(&mut page, pairs, exceptions)?;
    page.push_str("\nThe checks: ");
    page.push_str(&Check::ALL.map(Check::name).join(", "));
    page.push_str(".\n\n## Clients\n\n| client | release | version | checks it cannot make |\n|---|---|---|---|\n");
    for client in Client::ALL {
        let absent: Vec<&str> = client.absent().iter().map(|check| check.name()).collect();
        let version = client.protocol_version().unwrap_or("no handshake");
        writeln!(page, "| {} | {} | {version} | {} |", client.name(), client_release(client)?, absent.join(", "))?;
    }
    page.push_str("\n## Servers\n\n| server | release |\n|---|---|\n");
    for server in Server::ALL {
        writeln!(page, "| {} | {} |", server.name(), server_release(server)?)?;
    }
    page.push_str("\n## What is missing\n\n");
    if exceptions.list().is_empty() {
        page.push_str("Nothing.\n");
    }
    for (index, exception) in exceptions.list().iter().enumerate() {
        let checks: Vec<&str> = exception.checks.iter().map(|check| check.name()).collect();
        writeln!(page, "[^{}]: {}: {}. The client is told: `{}`", index + 1, checks.join(", "), exception.why, exception.answer)?;
    }
    Ok(page)
}

fn table(page: &mut String, pairs: &[Pair], exceptions: &Exceptions) -> anyhow::Result<()> {
    writeln!(page, "\n| client \\ server | {} |", Server::ALL.map(Server::name).join(" | "))?;
    writeln!(page, "|{}", "---|".repeat(Server::ALL.len() + 1))?;
    for client in Client::ALL {
        write!(page, "| {} |", client.name())?;
        for server in Server::ALL {
            let mut found = pairs.iter().filter(|pair| pair.client == client && pair.server == server);
            match (found.next(), found.next()) {
                (Some(pair), None) => write!(page, " {} |", cell(pair, exceptions))?,
                (None, _) => bail!("{client:?} was not run against {server:?}"),
                (Some(_), Some(_)) => bail!("{client:?} was run twice against {server:?}"),
            }
        }
        page.push('\n');
    }
    Ok(())
}

/// `12/12`, or `10/12[^1][^3]`.
fn cell(pair: &Pair, exceptions: &Exceptions) -> String {
    let passed = pair.report.checks(Verdict::Passed).len();
    let failed = pair.report.checks(Verdict::Failed);
    let covering = |check: &Check| exceptions.covering(pair.client, pair.server, *check);
    let mut notes: Vec<usize> = failed.iter().filter_map(covering).collect();
    notes.sort_unstable();
    notes.dedup();
    let notes: String = notes.iter().map(|index| format!("[^{}]", index + 1)).collect();
    format!("{passed}/{}{notes}", passed + failed.len())
}

/// `@modelcontextprotocol/sdk@1.32.2`, whatever alias it is installed under.
fn npm_release(package: &str) -> anyhow::Result<String> {
    let path = tests_directory().join("foreign/package.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let release = file["dependencies"][package].as_str();
    let release = release.with_context(|| format!("{} does not name {package}", path.display()))?;
    Ok(release.strip_prefix("npm:").map_or_else(|| format!("{package}@{release}"), str::to_owned))
}

fn client_release(client: Client) -> anyhow::Result<String> {
    match client {
        Client::StreamableHttp20260728Python => python_release("requirements.txt", client.package()),
        _ => npm_release(client.package()),
    }
}

fn server_release(server: Server) -> anyhow::Result<String> {
    match server {
        Server::Sse | Server::StreamableHttp | Server::Stdio => npm_release("@modelcontextprotocol/sdk"),
        Server::StreamableHttp20260728 | Server::Stdio20260728 => npm_release("@modelcontextprotocol/server"),
        Server::JsonRpc => npm_release("jayson"),
        Server::WebSocket => python_release("requirements-python1.txt", "mcp"),
    }
}

/// `mcp==2.3.0`, as a file of requirements pins it.
fn python_release(requirements: &str, package: &str) -> anyhow::Result<String> {
    let path = tests_directory().join("foreign").join(requirements);
    let lines = std::fs::read_to_string(&path)?;
    let line = lines.lines().find(|line| line.strip_prefix(package).is_some_and(|rest| rest.starts_with("==")));
    Ok(line.with_context(|| format!("{} does not name {package}", path.display()))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::matrix::Finding;

    const LIST: &str = r"
- clients: [stdio]
  servers: [json-rpc]
  checks: [progress]
  answer: no progress was heard
  why: the server cannot stream
";

    fn reported() -> Vec<Pair> {
        let of = |(client, server): (Client, Server)| {
            let finding = |check: Check| {
                let failed = client == Client::Stdio && server == Server::JsonRpc && check == Check::Progress;
                let made = if failed { Verdict::Failed } else { Verdict::Passed };
                let verdict = if client.absent().contains(&check) { Verdict::Absent } else { made };
                Finding { check, verdict, detail: "no progress was heard".to_owned() }
            };
            Pair { client, server, report: Report { protocol_version: None, findings: Check::ALL.map(finding).to_vec() } }
        };
        pairs().map(of).collect()
    }

    #[test]
    fn a_cell_counts_and_a_note_says_what_is_missing() {
        let page = markdown(&reported(), &Exceptions::parse(LIST).unwrap()).unwrap();
        let row = |name: &str| page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap().to_owned();
        assert_eq!(row("stdio"), "| stdio | 12/12 | 12/12 | 12/12 | 12/12 | 11/12[^1] | 12/12 | 12/12 |");
        assert_eq!(row("JSON-RPC over POST"), "| JSON-RPC over POST | 8/8 | 8/8 | 8/8 | 8/8 | 8/8 | 8/8 | 8/8 |");
        assert!(page.contains("[^1]: progress: the server cannot stream. The client is told: `no progress was heard`"), "{page}");
        assert!(page.contains("| HTTP+SSE 2024-11-05 | @modelcontextprotocol/sdk@1.10.2 | 2024-11-05 |"), "{page}");
        assert!(page.contains("| Streamable HTTP 2026-07-28, Python | mcp==2."), "{page}");
    }

    #[test]
    fn a_matrix_with_holes_or_unlisted_failures_makes_no_page() {
        let exceptions = Exceptions::parse(LIST).unwrap();
        let hole = markdown(&reported()[1..], &exceptions).unwrap_err().to_string();
        assert!(hole.contains("Sse20241105 was not run against Sse"), "{hole}");
        let unlisted = markdown(&reported(), &Exceptions::default()).unwrap_err().to_string();
        assert!(unlisted.contains("progress failed with"), "{unlisted}");
    }

    #[test]
    fn the_committed_list_reads() {
        Exceptions::committed().unwrap();
    }
}
