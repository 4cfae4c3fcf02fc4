//! `mcpgw why`: the story of one MCP request, from its `Mcpgw-Request-Id`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::{
    CapturedPayload, GetRequestLogRequest, GetRequestPayloadRequest, RequestLog, RequestPayload,
};

use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Format, time};

/// Pause between questions while a record has not arrived: nodes ship them in batches.
const PAUSE: Duration = Duration::from_millis(250);
const STAGES: [&str; 6] = ["target", "decode", "authenticate", "authorize", "limit", "route"];

/// Flags of `why`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw why 0198c0de-0000-7000-8000-000000000001\n  mcpgw why 0198c0de-0000-7000-8000-000000000001 -o json\n  mcpgw why 0198c0de-0000-7000-8000-000000000001 --payload"
)]
pub struct Args {
    /// As in the answer's header Mcpgw-Request-Id
    request_id: String,
    /// How long to wait for the record: nodes ship records in batches
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "5s")]
    wait: Duration,
    /// Also what is kept of its arguments and result: for owners and auditors, and that it was read is put on record. With -o json or yaml only that
    #[arg(long)]
    payload: bool,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let log = fetch(cx, &args).await?;
    let payload = if args.payload { Some(payload(cx, &log.request_id).await?) } else { None };
    match (cx.out.format, &payload) {
        (Format::Table, _) => cx.out.value(&(), || story(&log) + &payload.iter().map(said).collect::<String>()),
        (Format::Json | Format::Yaml, None) => cx.out.one(&log),
        (Format::Json | Format::Yaml, Some(payload)) => cx.out.one(payload),
    }
}

async fn payload(cx: &Context, request_id: &str) -> anyhow::Result<RequestPayload> {
    let request = GetRequestPayloadRequest { request_id: request_id.to_owned() };
    cx.call(LogServiceClient::new, request, async |c, r| c.get_request_payload(r).await).await
}

/// What is kept of the call.
fn said(payload: &RequestPayload) -> String {
    let mut text = String::new();
    for (title, part) in [("arguments", &payload.arguments), ("result", &payload.result)] {
        let Some(CapturedPayload { text: json, bytes, cut, redactions }) = part else { continue };
        let shown = if *cut { ", cut off" } else { "" };
        let taken = if *redactions > 0 { format!(", {redactions} taken out") } else { String::new() };
        // JSON escapes what would move a terminal's cursor, except where it was cut.
        let json: String = json.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(text, "{title:<9} {json}{}({bytes} bytes{shown}{taken})", if json.is_empty() { "" } else { " " });
    }
    text
}

/// Asks until the record is there and complete, or the time is up.
async fn fetch(cx: &Context, args: &Args) -> anyhow::Result<RequestLog> {
    let until = Instant::now() + args.wait;
    loop {
        let request = GetRequestLogRequest { request_id: args.request_id.clone() };
        let answer = cx.call(LogServiceClient::new, request, async |c, r| c.get_request_log(r).await).await;
        let late = Instant::now() >= until;
        match answer {
            Ok(log) if late || log.outcome != "pending" => return Ok(log),
            Err(error) if late || !is_not_found(&error) => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let status = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(Failure::Rpc(status)) => Some(status),
        _ => None,
    });
    status.is_some_and(|it| it.code() == tonic::Code::NotFound)
}

/// What happened, for people: who, what, which rule, which configuration, where, how long, and what came of it.
fn story(log: &RequestLog) -> String {
    let mut text = format!("request   {}, {}\n", log.request_id, time(log.decide_time.as_ref()));
    let mut line = |title: &str, value: String| {
        let _ = writeln!(text, "{title:<9} {value}");
    };
    line("who", who(log));
    line("asked", asked(log));
    line("decided", decided(log));
    line("under", under(log));
    line("node", format!("{} (boot {}, lane {}, sequence {})", log.node, log.boot_id, log.lane, log.seq));
    let upstream = if log.upstream.is_empty() { "nowhere: the gateway answered itself" } else { &log.upstream };
    line("upstream", upstream.to_owned());
    line("took", took(log));
    line("outcome", outcome(log));
    text
}

fn who(log: &RequestLog) -> String {
    let subject = if log.subject.is_empty() { "nobody that the gateway recognised" } else { &log.subject };
    let mut text = subject.to_owned();
    if !log.via.is_empty() {
        let _ = write!(text, ", via {}", log.via.replace('_', " "));
    }
    if !log.credential_id.is_empty() {
        let _ = write!(text, " {}", log.credential_id);
    }
    for (title, names) in [("roles", &log.roles), ("groups", &log.groups)] {
        if !names.is_empty() {
            let _ = write!(text, ", {title} {}", names.join(" "));
        }
    }
    if !log.client_address.is_empty() {
        let _ = write!(text, ", from {}", log.client_address);
    }
    text
}

fn asked(log: &RequestLog) -> String {
    let method = if log.method.is_empty() { "something that is not a request" } else { &log.method };
    let mut text = method.to_owned();
    if !log.target.is_empty() {
        let _ = write!(text, " {}", log.target);
    }
    if !log.server.is_empty() {
        let _ = write!(text, " of server {}", log.server);
    }
    if !log.organization.is_empty() {
        let _ = write!(text, " in {}", log.organization);
    }
    let client = [&log.client_transport, &log.client_era, &log.client_protocol_version];
    let client: Vec<_> = client.into_iter().filter(|it| !it.is_empty()).map(String::as_str).collect();
    if !client.is_empty() {
        let _ = write!(text, " ({})", client.join(" "));
    }
    text
}

fn decided(log: &RequestLog) -> String {
    let mut text = log.decision.clone();
    if log.mode == "limit" {
        let _ = write!(text, " by limit {} ({})", log.rule, log.rule_id);
    } else if !log.rule.is_empty() {
        let _ = write!(text, " by rule {} ({}, {})", log.rule, log.mode, log.rule_id);
    } else if log.decision == "deny" && log.reason.starts_with("authorize") {
        text.push_str(": no rule allows it");
    }
    if !log.reason.is_empty() {
        let _ = write!(text, "; reason {}", log.reason);
    }
    text
}

fn under(log: &RequestLog) -> String {
    let mut text = format!("configuration version {} (epoch {})", log.config_version, log.config_epoch);
    if !log.org_digest.is_empty() {
        let _ = write!(text, ", organisation digest {}", log.org_digest);
    }
    text
}

fn took(log: &RequestLog) -> String {
    let mut text = format!("{} until decided", milliseconds(log.decide_us));
    let stages: Vec<_> = STAGES.iter().zip(&log.stage_us).map(|(stage, us)| format!("{stage} {}", milliseconds(*us))).collect();
    if !stages.is_empty() {
        let _ = write!(text, " ({})", stages.join(", "));
    }
    if log.upstream_us > 0 {
        let _ = write!(text, "; {} upstream", milliseconds(log.upstream_us));
    }
    if log.total_us > 0 {
        let _ = write!(text, "; {} in all", milliseconds(log.total_us));
    }
    text
}

fn outcome(log: &RequestLog) -> String {
    let mut text = log.outcome.clone();
    match log.outcome.as_str() {
        "pending" => text.push_str(": it has not ended yet"),
        "interrupted" => text.push_str(": the node stopped before it ended"),
        _ => {}
    }
    if log.status > 0 {
        let _ = write!(text, ", HTTP {}", log.status);
    }
    if log.error_code != 0 {
        let _ = write!(text, ", JSON-RPC error {}", log.error_code);
    }
    let _ = write!(text, ", {} bytes in, {} bytes out", log.request_bytes, log.response_bytes);
    if log.events > 0 {
        let _ = write!(text, ", {} events", log.events);
    }
    text
}

fn milliseconds(microseconds: u32) -> String {
    format!("{:.3} ms", f64::from(microseconds) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_call_names_who_rule_version_node_upstream_and_outcome() {
        let log = RequestLog {
            request_id: "r-1".into(),
            subject: "key:abc".into(),
            via: "api_key".into(),
            credential_id: "abc".into(),
            roles: vec!["engineer".into()],
            method: "tools/call".into(),
            target: "add".into(),
            server: "demo".into(),
            organization: "organizations/acme".into(),
            client_transport: "streamable-http".into(),
            client_era: "modern".into(),
            decision: "allow".into(),
            rule: "engineers".into(),
            rule_id: "rule-uid".into(),
            mode: "enforce".into(),
            config_version: 12,
            config_epoch: 1,
            node: "nodes/n-1".into(),
            upstream: "http://127.0.0.1:9/mcp".into(),
            decide_us: 250,
            stage_us: vec![1, 2, 3, 4, 5, 6],
            upstream_us: 1_500,
            total_us: 2_000,
            outcome: "ok".into(),
            status: 200,
            ..RequestLog::default()
        };
        let text = story(&log);
        for expected in [
            "who       key:abc, via api key abc, roles engineer",
            "asked     tools/call add of server demo in organizations/acme (streamable-http modern)",
            "decided   allow by rule engineers (enforce, rule-uid)",
            "under     configuration version 12 (epoch 1)",
            "node      nodes/n-1",
            "upstream  http://127.0.0.1:9/mcp",
            "took      0.250 ms until decided (target 0.001 ms",
            "1.500 ms upstream; 2.000 ms in all",
            "outcome   ok, HTTP 200",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_refusal_without_a_rule_says_so() {
        let log = RequestLog {
            decision: "deny".into(),
            reason: "authorize.not_granted".into(),
            outcome: "denied".into(),
            ..RequestLog::default()
        };
        let text = story(&log);
        assert!(text.contains("decided   deny: no rule allows it; reason authorize.not_granted"), "{text}");
        assert!(text.contains("who       nobody that the gateway recognised"), "{text}");
        assert!(text.contains("upstream  nowhere"), "{text}");
    }
}
