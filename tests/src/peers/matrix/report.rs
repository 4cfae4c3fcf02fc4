//! What one client found out about one server: a verdict and the exact observation per check.

use std::fmt;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::peers::{Document, Outcome};

/// What is checked in one connection, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Check {
    /// The fixture's tools are listed
    #[serde(rename = "tools/list")]
    ToolsList,
    /// A tool answers
    #[serde(rename = "tools/call")]
    ToolsCall,
    /// Every step of a call is heard, in order, under the token that was sent
    #[serde(rename = "progress")]
    Progress,
    /// A tool asks the user and gets the answer
    #[serde(rename = "elicitation")]
    Elicitation,
    /// A tool asks the model and gets the answer
    #[serde(rename = "sampling")]
    Sampling,
    /// Resources and templates are listed and read
    #[serde(rename = "resources/read")]
    ResourcesRead,
    /// An update of a subscribed resource is heard
    #[serde(rename = "subscription")]
    Subscription,
    /// A prompt is listed and filled in
    #[serde(rename = "prompts/get")]
    PromptsGet,
    /// An argument of a prompt is completed
    #[serde(rename = "completion")]
    Completion,
    /// The server sees that a call was cancelled
    #[serde(rename = "cancellation")]
    Cancellation,
    /// A new tool is announced and then listed
    #[serde(rename = "list_changed")]
    ListChanged,
    /// A failing and an unknown tool end as the server says
    #[serde(rename = "error")]
    Error,
    /// One body with several requests is answered in kind
    #[serde(rename = "batch")]
    Batch,
}

impl Check {
    /// All of them, in the order they are made.
    pub const ALL: [Self; 13] = [
        Self::ToolsList,
        Self::ToolsCall,
        Self::Progress,
        Self::Elicitation,
        Self::Sampling,
        Self::ResourcesRead,
        Self::Subscription,
        Self::PromptsGet,
        Self::Completion,
        Self::Cancellation,
        Self::ListChanged,
        Self::Error,
        Self::Batch,
    ];

    /// The name that peers print and exceptions use.
    pub fn name(self) -> &'static str {
        match self {
            Self::ToolsList => "tools/list",
            Self::ToolsCall => "tools/call",
            Self::Progress => "progress",
            Self::Elicitation => "elicitation",
            Self::Sampling => "sampling",
            Self::ResourcesRead => "resources/read",
            Self::Subscription => "subscription",
            Self::PromptsGet => "prompts/get",
            Self::Completion => "completion",
            Self::Cancellation => "cancellation",
            Self::ListChanged => "list_changed",
            Self::Error => "error",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should
    Passed,
    /// Otherwise; the detail says what was observed
    Failed,
    /// Not made: the client's version or transport knows no such thing
    Absent,
}

/// One check of one pair.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Finding {
    /// What was checked
    pub check: Check,
    /// How it ended
    pub verdict: Verdict,
    /// What was observed, in words that do not change from run to run
    pub detail: String,
}

/// All checks of one pair.
#[derive(Clone, Debug)]
pub struct Report {
    /// The protocol version agreed on; none without a handshake
    pub protocol_version: Option<String>,
    /// One per check, in the order of [`Check::ALL`]
    pub findings: Vec<Finding>,
}

impl Report {
    /// Reads what a peer printed. A client that could not connect failed every check but the `absent` ones.
    pub fn read(document: &Document, absent: &[Check]) -> anyhow::Result<Self> {
        let findings = match &document.operations[..] {
            [] => unconnected(&document.connect, absent),
            [matrix] if matrix.ok => serde_json::from_value(matrix.result.clone()).context("findings of the matrix")?,
            other => bail!("a peer was asked for one matrix and printed {other:?}"),
        };
        let made: Vec<Check> = findings.iter().map(|finding| finding.check).collect();
        if made != Check::ALL {
            bail!("a peer made the checks {made:?}, not each of them in order");
        }
        Ok(Self { protocol_version: document.protocol_version().map(str::to_owned), findings })
    }

    /// The findings with `verdict`.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.verdict == verdict)
    }

    /// The checks with `verdict`.
    pub fn checks(&self, verdict: Verdict) -> Vec<Check> {
        self.with(verdict).map(|finding| finding.check).collect()
    }
}

fn unconnected(connect: &Outcome, absent: &[Check]) -> Vec<Finding> {
    let why = connect.error.as_ref().map_or_else(|| "nothing was checked".to_owned(), |error| error.message.clone());
    let finding = |check: Check| {
        let verdict = if absent.contains(&check) { Verdict::Absent } else { Verdict::Failed };
        Finding { check, verdict, detail: format!("not connected: {why}") }
    };
    Check::ALL.map(finding).to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: serde_json::Value) -> Document {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_client_that_cannot_connect_failed_every_check_it_would_have_made() {
        let refused = document(json!({
            "connect": { "op": "connect", "ok": false, "error": { "code": null, "message": "refused" } },
            "operations": [],
        }));
        let report = Report::read(&refused, &[Check::Batch]).unwrap();
        assert_eq!(report.checks(Verdict::Absent), [Check::Batch]);
        assert_eq!(report.checks(Verdict::Failed).len(), Check::ALL.len() - 1);
        assert_eq!(report.findings[0].detail, "not connected: refused");
    }

    #[test]
    fn a_check_that_was_not_made_is_no_report() {
        let passed = |check: Check| json!({ "check": check.name(), "verdict": "passed", "detail": "seen" });
        let told = |checks: &[Check]| {
            let result: Vec<_> = checks.iter().map(|check| passed(*check)).collect();
            let connect = json!({ "op": "connect", "ok": true, "result": { "protocolVersion": "2025-11-25" } });
            document(json!({ "connect": connect, "operations": [{ "op": "matrix", "ok": true, "result": result }] }))
        };
        let report = Report::read(&told(&Check::ALL), &[]).unwrap();
        assert_eq!(report.checks(Verdict::Passed), Check::ALL);
        assert_eq!(report.protocol_version.as_deref(), Some("2025-11-25"));
        let error = Report::read(&told(&Check::ALL[1..]), &[]).unwrap_err().to_string();
        assert!(error.contains("not each of them in order"), "{error}");
    }
}
