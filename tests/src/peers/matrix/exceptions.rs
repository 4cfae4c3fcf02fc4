//! The frozen list of what does not pass through the gateway, with the exact answer each time: `tests/peers/exceptions.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::compatibility::Pair;
use super::{Check, Client, Server, Verdict};
use crate::foreign::tests_directory;

type Place = (Client, Server, Check);

/// Checks that fail for one reason, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The clients that see it
    pub clients: Vec<Client>,
    /// The servers behind it
    pub servers: Vec<Server>,
    /// The checks that end so
    pub checks: Vec<Check>,
    /// What the client observes, word for word
    pub answer: String,
    /// Why it cannot be otherwise
    pub why: String,
}

/// All exceptions; nothing else may fail, and each of these must.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    list: Vec<Exception>,
    /// The place of the exception in the list
    places: BTreeMap<Place, usize>,
}

impl Exceptions {
    /// The committed list.
    pub fn committed() -> anyhow::Result<Self> {
        let path = Self::path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no list of exceptions", path.display()))
    }

    /// Where the list is committed.
    pub fn path() -> PathBuf {
        tests_directory().join("peers/exceptions.yaml")
    }

    /// A YAML list; each check of a pair at most once.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let list: Vec<Exception> = serde_saphyr::from_str(text)?;
        let mut places = BTreeMap::new();
        for (index, exception) in list.iter().enumerate() {
            for place in exception.places() {
                let (client, server, check) = place;
                ensure!(places.insert(place, index).is_none(), "{client:?} to {server:?}: {check} is listed twice");
            }
        }
        Ok(Self { list, places })
    }

    /// In the order of the file, which numbers them.
    pub fn list(&self) -> &[Exception] {
        &self.list
    }

    /// The exception that covers a check of a pair, by its place in the list.
    pub fn covering(&self, client: Client, server: Server, check: Check) -> Option<usize> {
        self.places.get(&(client, server, check)).copied()
    }

    /// Everything in which `pairs` differ from the list: failures that are not in it or ended otherwise, and exceptions of
    /// these pairs that are none any more. Empty means that the list is exact.
    pub fn differences(&self, pairs: &[Pair]) -> Vec<String> {
        pairs.iter().flat_map(|pair| self.differences_of(pair)).collect()
    }

    fn differences_of(&self, pair: &Pair) -> Vec<String> {
        let Pair { client, server, report } = pair;
        let differing = report.findings.iter().filter_map(|finding| {
            let listed = self.covering(*client, *server, finding.check).map(|index| &self.list[index].answer);
            let words = match (finding.verdict, listed) {
                (Verdict::Passed | Verdict::Absent, None) => return None,
                (Verdict::Failed, Some(answer)) if *answer == finding.detail => return None,
                (Verdict::Failed, Some(answer)) => format!("failed with {:?}, not with {answer:?} as listed", finding.detail),
                (Verdict::Failed, None) => format!("failed with {:?} and is not listed", finding.detail),
                (Verdict::Passed, Some(_)) => "is listed, yet it passed".to_owned(),
                (Verdict::Absent, Some(_)) => "is listed, yet this client never makes it".to_owned(),
            };
            Some(format!("{client:?} to {server:?}: {} {words}", finding.check))
        });
        differing.collect()
    }
}

impl Exception {
    fn places(&self) -> impl Iterator<Item = Place> {
        self.clients.iter().flat_map(move |&client| {
            self.servers.iter().flat_map(move |&server| self.checks.iter().map(move |&check| (client, server, check)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::matrix::{Finding, Report};

    const LIST: &str = r"
- clients: [stdio, websocket]
  servers: [json-rpc]
  checks: [progress, list_changed]
  answer: no progress was heard
  why: the server cannot stream
";

    fn pair(client: Client, check: Check, verdict: Verdict, detail: &str) -> Pair {
        let findings = vec![Finding { check, verdict, detail: detail.to_owned() }];
        Pair { client, server: Server::JsonRpc, report: Report { protocol_version: None, findings } }
    }

    #[test]
    fn only_what_differs_from_the_list_is_told() {
        let exceptions = Exceptions::parse(LIST).unwrap();
        let heard = "no progress was heard";
        let cases = [
            (Client::Stdio, Check::Progress, Verdict::Failed, heard, None),
            (Client::Stdio, Check::Error, Verdict::Passed, "", None),
            (
                Client::Stdio,
                Check::Error,
                Verdict::Failed,
                "x",
                Some("Stdio to JsonRpc: error failed with \"x\" and is not listed"),
            ),
            (Client::Stdio, Check::Progress, Verdict::Passed, "", Some("Stdio to JsonRpc: progress is listed, yet it passed")),
            (
                Client::WebSocket,
                Check::Progress,
                Verdict::Failed,
                "x",
                Some("WebSocket to JsonRpc: progress failed with \"x\", not with \"no progress was heard\" as listed"),
            ),
            (Client::JsonRpc, Check::Progress, Verdict::Absent, "", None),
        ];
        for (client, check, verdict, detail, expected) in cases {
            let told = exceptions.differences(&[pair(client, check, verdict, detail)]);
            assert_eq!(told.first().map(String::as_str), expected);
        }
    }

    #[test]
    fn a_list_that_says_something_twice_or_something_unknown_is_refused() {
        let twice = Exceptions::parse(&format!("{LIST}{LIST}")).unwrap_err().to_string();
        assert!(twice.contains("Stdio to JsonRpc: progress is listed twice"), "{twice}");
        for unknown in [LIST.replace("stdio", "telnet"), LIST.replace("why", "because")] {
            Exceptions::parse(&unknown).unwrap_err();
        }
    }
}
