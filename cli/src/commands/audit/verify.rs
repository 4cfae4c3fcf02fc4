//! `mcpgw audit verify`: whether the logs are what was recorded. Findings on stdout, talk on stderr, a failure if anything is found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::evidence_service_client::EvidenceServiceClient;
use mcp_gateway::proto::admin::v1::verify_logs_response::Said;
use mcp_gateway::proto::admin::v1::{LogFinding, VerifyLogsRequest, VerifyProgress, VerifySummary};
use prost_types::Timestamp;
use serde::Deserialize;

use super::checkpoints;
use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Format, time};

/// Flags of `audit verify`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Exits with 1 if anything is found. Every row that the API shows is compared with what was sealed when it was recorded;\ncheckpoints that are kept outside of the database (the control plane's log, or its audit_checkpoint_copy_file) also prove that\nnobody cut off the end.\n\nExamples:\n  mcpgw audit verify --all-orgs\n  mcpgw audit verify --from 24h --checkpoint checkpoints.jsonl\n  mcpgw audit verify --org acme --all -o json"
)]
pub struct Args {
    /// Only requests decided since: an RFC 3339 moment, or how long ago
    #[arg(long, alias = "since", value_name = "WHEN", value_parser = args::moment)]
    from: Option<Timestamp>,
    /// Only requests decided before: an RFC 3339 moment, or how long ago
    #[arg(long, alias = "until", value_name = "WHEN", value_parser = args::moment)]
    to: Option<Timestamp>,
    /// The rows of every organisation; for platform administrators
    #[arg(long, conflicts_with = "org")]
    all_orgs: bool,
    /// Every finding instead of the first of each kind in each lane
    #[arg(long)]
    all: bool,
    /// Also compares checkpoints with copies that were kept outside: lines of JSON, also among other lines
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

/// A checkpoint as it was said outside of the database.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Copy {
    number: i64,
    hash: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    // Read before anything is asked: a file that is not there is a mistake.
    let copies = args.checkpoint.as_ref().map(read_copies).transpose()?;
    let parent = if args.all_orgs { String::new() } else { cx.org_or_all()? };
    let request = VerifyLogsRequest { parent, since: args.from, until: args.to, all_findings: args.all };
    let mut stream = cx.open(EvidenceServiceClient::new, request, async |c, r| c.verify_logs(r).await).await?;
    let (mut summary, mut found) = (None, 0u64);
    while let Some(answer) = stream.message().await.map_err(Failure::from)? {
        match answer.said {
            Some(Said::Progress(progress)) => say(&progress),
            Some(Said::Finding(finding)) => {
                found += 1;
                show(cx, &finding)?;
            }
            Some(Said::Summary(said)) => summary = Some(said),
            None => {}
        }
    }
    let summary = summary.context("the control plane ended the verification before it was done: try again")?;
    for finding in outside(cx, copies.unwrap_or_default()).await? {
        found += 1;
        show(cx, &finding)?;
    }
    conclude(cx, &summary)?;
    let total = summary.findings.values().sum::<u64>().max(found);
    anyhow::ensure!(total == 0, "the logs are not what was recorded: {total} finding(s)");
    Ok(())
}

fn say(progress: &VerifyProgress) {
    let VerifyProgress { stage, seals, rows, records } = progress;
    eprintln!("verifying {stage}: {seals} seals, {rows} rows and {records} administrative records so far");
}

fn show(cx: &Context, finding: &LogFinding) -> anyhow::Result<()> {
    match cx.out.format {
        Format::Table => cx.out.value(&(), || line(finding)),
        Format::Json | Format::Yaml => cx.out.next(finding),
    }
}

/// A finding in a line.
fn line(finding: &LogFinding) -> String {
    let mut line = format!("{}  {}  {}", finding.kind.to_uppercase(), finding.log, finding.message);
    if !finding.half.is_empty() {
        let _ = write!(line, "  half={}", finding.half);
    }
    if !finding.node.is_empty() {
        let _ = write!(line, "  {} run={} lane={} seq={}", finding.node, finding.boot_id, finding.lane, finding.sequence);
    }
    if let Some(at) = &finding.time {
        let _ = write!(line, "  at={}", time(Some(at)));
    }
    if !finding.organization.is_empty() {
        let _ = write!(line, "  {}", finding.organization);
    }
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>() + "\n"
}

fn conclude(cx: &Context, summary: &VerifySummary) -> anyhow::Result<()> {
    if summary.key_id.is_empty() {
        eprintln!(
            "NOT SIGNED: this control plane has no audit_checkpoint_key_file; who can write to the database can rewrite all of this unnoticed"
        );
    } else if summary.unsigned > 0 {
        eprintln!("{} seals, checkpoints or records are not signed: they are from before there was a key", summary.unsigned);
    }
    match cx.out.format {
        Format::Table => cx.out.value(&(), || text(summary)),
        Format::Json | Format::Yaml => cx.out.next(summary),
    }
}

fn text(summary: &VerifySummary) -> String {
    let verdict = match summary.clean {
        true => "CLEAN".to_owned(),
        false => {
            let kinds: Vec<String> = summary.findings.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            format!("DAMAGED: {}", kinds.join(", "))
        }
    };
    format!(
        "{verdict}\n{} rows in {} seals of {} lanes, {} administrative records, {} checkpoints\n\
         {} halves of rows expired, {} rows are from before there was evidence, {} seals are newer than the last checkpoint{}\n",
        summary.rows,
        summary.seals,
        summary.lanes,
        summary.records,
        summary.checkpoints,
        summary.expired,
        summary.before_evidence,
        summary.seals_since_checkpoint,
        summary.last_checkpoint_time.as_ref().map(|at| format!(" of {}", time(Some(at)))).unwrap_or_default(),
    )
}

/// The checkpoints among the lines of a file: alone, or within the line of a log.
fn read_copies(path: &PathBuf) -> anyhow::Result<Vec<Copy>> {
    let content = std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    let copies: Vec<Copy> = content.lines().filter_map(copy).collect();
    if copies.is_empty() {
        return Err(
            Failure::Usage(format!("{}: expected lines of JSON with number and hash of a checkpoint", path.display())).into()
        );
    }
    Ok(copies)
}

fn copy(line: &str) -> Option<Copy> {
    let begin = line.find("{\"").unwrap_or(0);
    if let Ok(copy) = serde_json::from_str(line.get(begin..)?) {
        return Some(copy);
    }
    // In a log of JSON objects the line is a text of its own; in one of texts it may be followed by others.
    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let inner = value.as_ref().and_then(|value| value.pointer("/fields/checkpoint").or(value.get("checkpoint"))?.as_str());
    match inner {
        Some(inner) => serde_json::from_str(inner).ok(),
        None => serde_json::Deserializer::from_str(line.get(line.find("{\"")?..)?).into_iter().next()?.ok(),
    }
}

/// What the database says otherwise than copies that it could not change.
async fn outside(cx: &Context, copies: Vec<Copy>) -> anyhow::Result<Vec<LogFinding>> {
    let Some(oldest) = copies.iter().map(|copy| copy.number).min() else { return Ok(Vec::new()) };
    let now: BTreeMap<i64, String> = checkpoints::since(cx, oldest).await?.into_iter().map(|it| (it.number, it.hash)).collect();
    eprintln!("compared {} checkpoints that were kept outside", copies.len());
    let wrong = |copy: Copy| {
        let (kind, message) = match now.get(&copy.number) {
            Some(hash) if *hash == copy.hash => return None,
            Some(_) => ("edited", format!("checkpoint {} is not the one that was kept outside", copy.number)),
            None => ("truncated", format!("checkpoint {} was kept outside and is gone from the database", copy.number)),
        };
        Some(LogFinding {
            kind: kind.into(),
            log: "log_checkpoints".into(),
            message: message + ": the database was altered, or restored to an earlier moment",
            sequence: copy.number,
            ..LogFinding::default()
        })
    };
    Ok(copies.into_iter().filter_map(wrong).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_found_alone_and_in_logs() {
        let alone = r#"{"auditNumber":3,"hash":"ab","number":7}"#;
        let text = format!("2026-01-01T00:00:00Z  INFO task: checkpoint 7 of the logs checkpoint={alone} more=1");
        let fields = serde_json::json!({ "level": "INFO", "fields": { "message": "x", "checkpoint": alone } }).to_string();
        let flat = serde_json::json!({ "message": "x", "checkpoint": alone }).to_string();
        for line in [alone, &text, &fields, &flat] {
            let found = copy(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((found.number, found.hash.as_str()), (7, "ab"), "{line}");
        }
        assert!(copy("something else").is_none() && copy(r#"{"number":"x"}"#).is_none());
    }

    #[test]
    fn a_finding_is_one_line_whatever_is_in_it() {
        let finding = LogFinding {
            kind: "edited".into(),
            log: "request_logs".into(),
            message: "a\nb".into(),
            node: "nodes/n".into(),
            boot_id: "b".into(),
            lane: 1,
            sequence: 9,
            half: "ended".into(),
            ..LogFinding::default()
        };
        assert_eq!(line(&finding), "EDITED  request_logs  a b  half=ended  nodes/n run=b lane=1 seq=9\n");
    }
}
