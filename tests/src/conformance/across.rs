//! What the suite finds when server and suite are of different eras, beside what it finds in a direct run: the frozen list
//! `tests/conformance/across.yaml`, each check with how it ends and why it cannot end better.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::record::Worse;
use super::report::{CheckId, Status};
use super::suite::Suite;
use crate::foreign::tests_directory;

/// How a listed check ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum End {
    Failure,
    Warning,
    Skipped,
    /// It judges nothing
    Info,
    /// It judges nothing, or is as in a direct run: that is up to how fast the answers come.
    InfoAtTimes,
    /// Its scenario does not get there.
    NotMade,
}

impl End {
    fn status(self) -> Option<Status> {
        match self {
            Self::Failure => Some(Status::Failure),
            Self::Warning => Some(Status::Warning),
            Self::Skipped => Some(Status::Skipped),
            Self::Info | Self::InfoAtTimes => Some(Status::Info),
            Self::NotMade => None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    suites: Vec<Suite>,
    checks: Vec<CheckId>,
    ends: End,
    /// For whoever reads the list.
    why: String,
}

/// The list; nothing else may be worse than in a direct run, and all of it must.
#[derive(Debug, Default)]
pub struct Across(BTreeMap<(Suite, CheckId), End>);

impl Across {
    /// The committed list.
    pub fn committed() -> anyhow::Result<Self> {
        let path = Self::path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no list of exceptions", path.display()))
    }

    /// Where the list is committed.
    pub fn path() -> PathBuf {
        tests_directory().join("conformance/across.yaml")
    }

    /// A YAML list; each check of a suite at most once, each with a reason.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let list: Vec<Exception> = serde_saphyr::from_str(text)?;
        let mut places = BTreeMap::new();
        for Exception { suites, checks, ends, why } in list {
            ensure!(!why.trim().is_empty(), "{checks:?} are listed without a reason");
            for suite in suites {
                for check in &checks {
                    ensure!(places.insert((suite, check.clone()), ends).is_none(), "{suite}: {check} is listed twice");
                }
            }
        }
        Ok(Self(places))
    }

    /// How many checks of `suite` are listed.
    pub fn count(&self, suite: Suite) -> usize {
        self.0.keys().filter(|(of, _)| *of == suite).count()
    }

    /// Everything in which a run differs from the list: what is worse without being listed, what ended otherwise, and
    /// what is listed and not worse any more. Empty means that the list is exact.
    pub fn differences(&self, suite: Suite, worse: &[Worse]) -> Vec<String> {
        let found: BTreeMap<&CheckId, &Worse> = worse.iter().map(|worse| (&worse.check, worse)).collect();
        let unlisted = worse.iter().filter_map(|worse| match self.0.get(&(suite, worse.check.clone())) {
            Some(end) if end.status() == worse.found => None,
            Some(end) => Some(format!("{worse}, and is listed as {end:?}")),
            None => Some(format!("{worse}, and is not listed")),
        });
        let always = self.0.iter().filter(|(_, end)| **end != End::InfoAtTimes).map(|(place, _)| place);
        let listed = always.filter(|(of, check)| *of == suite && !found.contains_key(check));
        unlisted.chain(listed.map(|(_, check)| format!("{check} is listed, yet it is as in a direct run"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r"
- suites: [2026-07-28, 2026-07-28-requirements]
  checks: [s/a]
  ends: failure
  why: it cannot be
- suites: [2026-07-28]
  checks: [s/b]
  ends: not-made
  why: the one before ends the scenario
- suites: [2026-07-28]
  checks: [s/sometimes]
  ends: info-at-times
  why: it may come at once
";

    fn worse(check: &str, found: Option<Status>) -> Worse {
        Worse { check: check.to_owned(), direct: Some(Status::Success), found, reason: None }
    }

    #[test]
    fn only_what_differs_from_the_list_is_told() {
        let across = Across::parse(LIST).unwrap();
        assert_eq!((across.count(Suite::V2026_07_28), across.count(Suite::Requirements2026_07_28)), (3, 1));
        let (a, b) = (worse("s/a", Some(Status::Failure)), worse("s/b", None));
        let cases: [(Vec<Worse>, &[&str]); 5] = [
            (vec![a.clone(), b.clone()], &[]),
            (vec![a.clone(), b.clone(), worse("s/sometimes", Some(Status::Info))], &[]),
            (vec![b.clone()], &["s/a is listed, yet it is as in a direct run"]),
            (vec![a.clone(), b.clone(), worse("s/c", None)], &["s/c: SUCCESS became not made, and is not listed"]),
            (vec![worse("s/a", None), b], &["s/a: SUCCESS became not made, and is listed as Failure"]),
        ];
        for (found, told) in cases {
            assert_eq!(across.differences(Suite::V2026_07_28, &found), told);
        }
    }

    #[test]
    fn a_list_that_says_something_twice_or_without_a_reason_or_of_no_suite_is_refused() {
        let twice = Across::parse(&format!("{LIST}{LIST}")).unwrap_err().to_string();
        assert!(twice.contains("2026-07-28: s/a is listed twice"), "{twice}");
        for wrong in [LIST.replace("it cannot be", "''"), LIST.replace("2026-07-28-requirements", "2027-01-01")] {
            Across::parse(&wrong).unwrap_err();
        }
    }

    #[test]
    fn the_committed_list_reads() {
        Across::committed().unwrap();
    }
}
