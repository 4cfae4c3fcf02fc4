//! The suite's verdicts, read from the `checks.json` of each scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// A verdict on one check, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It holds
    Success,
    /// Not judged: a trace line, or something that could not be tried
    Info,
    /// Does not apply
    Skipped,
    /// A SHOULD is not kept
    Warning,
    /// A MUST is not kept
    Failure,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "SUCCESS",
            Self::Info => "INFO",
            Self::Skipped => "SKIPPED",
            Self::Warning => "WARNING",
            Self::Failure => "FAILURE",
        })
    }
}

/// `scenario/check`, with `#2` and so on when a scenario makes the same check repeatedly.
pub type CheckId = String;

#[derive(Clone, Debug)]
struct Verdict {
    status: Status,
    reason: Option<String>,
}

/// How many checks ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// SUCCESS
    pub success: usize,
    /// WARNING
    pub warning: usize,
    /// FAILURE
    pub failure: usize,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { success, warning, failure } = self;
        write!(f, "{success} passed, {failure} failed, {warning} warnings")
    }
}

/// Every verdict of one run.
#[derive(Clone, Debug, Default)]
pub struct Report(BTreeMap<CheckId, Verdict>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    id: String,
    status: Status,
    error_message: Option<String>,
}

impl Report {
    /// Reads what the suite left in `directory`: one folder per scenario.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut verdicts = BTreeMap::new();
        let folders =
            std::fs::read_dir(directory).with_context(|| format!("the suite left nothing in {}", directory.display()))?;
        for folder in folders {
            let folder = folder?;
            let file = folder.path().join("checks.json");
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let checks: Vec<Check> =
                serde_json::from_str(&text).with_context(|| format!("{} is not a list of checks", file.display()))?;
            let name = folder.file_name();
            let name = name.to_string_lossy();
            let scenario = scenario(&name);
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for check in checks {
                let times = seen.entry(check.id.clone()).or_default();
                *times += 1;
                let mut id = format!("{scenario}/{}", check.id);
                if *times > 1 {
                    id.push_str(&format!("#{times}"));
                }
                let verdict = Verdict { status: check.status, reason: check.error_message };
                ensure!(
                    verdicts.insert(id.clone(), verdict).is_none(),
                    "{} holds more than one run: {id} is there twice",
                    directory.display()
                );
            }
        }
        Ok(Self(verdicts))
    }

    /// Whether nothing was judged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The verdict on one check.
    pub fn status(&self, check: &str) -> Option<Status> {
        self.0.get(check).map(|verdict| verdict.status)
    }

    /// Why a check did not succeed, in the suite's words.
    pub fn reason(&self, check: &str) -> Option<&str> {
        self.0.get(check)?.reason.as_deref()
    }

    /// All checks and their verdicts, sorted.
    pub fn checks(&self) -> impl Iterator<Item = (&CheckId, Status)> {
        self.0.iter().map(|(id, verdict)| (id, verdict.status))
    }

    /// How many checks ended how.
    pub fn totals(&self) -> Totals {
        let count = |status| self.checks().filter(|(_, found)| *found == status).count();
        Totals { success: count(Status::Success), warning: count(Status::Warning), failure: count(Status::Failure) }
    }

    /// Keeps the worse verdict on every check, so that a record of several runs promises only what all of them kept.
    pub fn merge_worst(&mut self, other: Self) {
        for (id, verdict) in other.0 {
            match self.0.get_mut(&id) {
                Some(mine) if mine.status < verdict.status => *mine = verdict,
                Some(_) => {}
                None => {
                    self.0.insert(id, verdict);
                }
            }
        }
    }
}

/// The scenario in a folder name such as `server-tools-list-2026-11-22T20-00-50-571Z`.
fn scenario(folder: &str) -> &str {
    const TIME: usize = "-2026-11-22T20-00-50-571Z".len();
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    name.len().checked_sub(TIME).map_or(name, |end| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(directory: &Path, name: &str, checks: &str) {
        let folder = directory.join(format!("server-{name}-2026-11-22T20-00-50-571Z"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("checks.json"), checks).unwrap();
    }

    #[test]
    fn repeated_checks_of_a_scenario_are_numbered() {
        let directory = tempfile::tempdir().unwrap();
        let checks = r#"[{"id":"a","status":"SUCCESS"},{"id":"a","status":"FAILURE","errorMessage":"why"}]"#;
        folder(directory.path(), "tools-list", checks);
        let report = Report::read(directory.path()).unwrap();
        assert_eq!(report.status("tools-list/a"), Some(Status::Success));
        assert_eq!(report.status("tools-list/a#2"), Some(Status::Failure));
        assert_eq!(report.reason("tools-list/a#2"), Some("why"));
        assert_eq!(report.totals(), Totals { success: 1, warning: 0, failure: 1 });
    }

    #[test]
    fn a_directory_of_two_runs_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let checks = r#"[{"id":"a","status":"SUCCESS"}]"#;
        folder(directory.path(), "ping", checks);
        let again = directory.path().join("server-ping-2026-11-22T20-00-51-000Z");
        std::fs::create_dir(&again).unwrap();
        std::fs::write(again.join("checks.json"), checks).unwrap();
        assert!(Report::read(directory.path()).is_err());
    }

    #[test]
    fn merging_keeps_the_worse_verdict() {
        let one = |status| Report(BTreeMap::from([("x/a".to_owned(), Verdict { status, reason: None })]));
        let mut merged = one(Status::Success);
        merged.merge_worst(one(Status::Warning));
        merged.merge_worst(one(Status::Success));
        assert_eq!(merged.status("x/a"), Some(Status::Warning));
    }
}
