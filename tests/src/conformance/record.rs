//! The committed record of direct runs, and the one question asked of any other run: is anything worse?

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::report::{CheckId, Report, Status};
use super::suite::Suite;
use crate::foreign::tests_directory;

/// What was judged, and how.
pub type Record = BTreeMap<CheckId, Status>;

/// One check that ended worse than in the direct run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worse {
    /// `scenario/check`
    pub check: CheckId,
    /// In the direct run; none if the check was not made
    pub direct: Option<Status>,
    /// In this run; none if the check was not made
    pub found: Option<Status>,
    /// The suite's words, if any
    pub reason: Option<String>,
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |status: Option<Status>| status.map_or_else(|| "not made".to_owned(), |status| status.to_string());
        write!(f, "{}: {} became {}", self.check, name(self.direct), name(self.found))?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// Where the record of a direct run of `suite` is committed.
pub fn record_path(suite: Suite) -> PathBuf {
    tests_directory().join("conformance/direct").join(format!("{suite}.json"))
}

/// The committed record of a direct run of `suite`.
pub fn direct(suite: Suite) -> anyhow::Result<Record> {
    let path = record_path(suite);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("no record {}: run mcpgw-conformance-record", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a record", path.display()))
}

/// `report` as a record: without the suite's trace lines.
pub fn judged(report: &Report) -> Record {
    report.checks().filter(|(_, status)| *status != Status::Info).map(|(check, status)| (check.clone(), status)).collect()
}

/// Writes `report` as a record: sorted, one line per check, without the suite's trace lines.
pub fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(&judged(report))?;
    text.push('\n');
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Everything in `report` that is worse than in `direct`: checks with a worse verdict, checks no longer made, and
/// new ones that warn or fail. Empty means that nothing is worse.
pub fn worse_than(direct: &Record, report: &Report) -> Vec<Worse> {
    let known = direct.iter().filter_map(|(check, &was)| {
        let found = report.status(check);
        found.is_none_or(|found| found > was).then_some((check, Some(was), found))
    });
    let new = report.checks().filter_map(|(check, found)| {
        let bad = found >= Status::Warning && !direct.contains_key(check);
        bad.then_some((check, None, Some(found)))
    });
    let mut worse: Vec<_> = known
        .chain(new)
        .map(|(check, direct, found)| Worse {
            check: check.clone(),
            direct,
            found,
            reason: report.reason(check).map(str::to_owned),
        })
        .collect();
    worse.sort_by(|one, other| one.check.cmp(&other.check));
    worse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &str) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("server-s-2026-11-22T20-00-50-571Z");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("checks.json"), checks).unwrap();
        Report::read(directory.path()).unwrap()
    }

    fn record(status: Status) -> Record {
        Record::from([("s/a".to_owned(), status)])
    }

    #[test]
    fn only_what_got_worse_is_reported() {
        let cases = [
            (Status::Success, r#"[{"id":"a","status":"SUCCESS"}]"#, None),
            (Status::Warning, r#"[{"id":"a","status":"SUCCESS"}]"#, None),
            (Status::Success, r#"[{"id":"a","status":"SUCCESS"},{"id":"t","status":"INFO"}]"#, None),
            (Status::Success, r#"[{"id":"a","status":"INFO"}]"#, Some("s/a: SUCCESS became INFO")),
            (
                Status::Success,
                r#"[{"id":"a","status":"FAILURE","errorMessage":"why"}]"#,
                Some("s/a: SUCCESS became FAILURE (why)"),
            ),
            (Status::Success, r#"[{"id":"t","status":"INFO"}]"#, Some("s/a: SUCCESS became not made")),
            (
                Status::Success,
                r#"[{"id":"a","status":"SUCCESS"},{"id":"b","status":"WARNING"}]"#,
                Some("s/b: not made became WARNING"),
            ),
        ];
        for (was, checks, expected) in cases {
            let worse = worse_than(&record(was), &report(checks));
            let said: Vec<_> = worse.iter().map(ToString::to_string).collect();
            assert_eq!(said.first().map(String::as_str), expected, "{checks}");
            assert!(said.len() <= 1, "{said:?}");
        }
    }

    #[test]
    fn a_written_record_reads_back_without_trace_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/record.json");
        let checks = r#"[{"id":"b","status":"SUCCESS"},{"id":"a","status":"SKIPPED"},{"id":"t","status":"INFO"}]"#;
        write(&path, &report(checks)).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "{\n  \"s/a\": \"SKIPPED\",\n  \"s/b\": \"SUCCESS\"\n}\n");
    }
}
