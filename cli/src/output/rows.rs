//! What a list of each resource shows as a table: its columns and how a field becomes a cell.
//! Never decides what is fetched. Called by `output` only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use mcp_gateway::proto::admin::v1::{
    ApiKey, AuditLog, Checkpoint, ConfigVersion, CustodyKey, CustodyKeyState, ErrorGroup, FoundOut, JoinToken, Membership, Node,
    Organization, Policy, RateLimit, RecordGap, RequestLog, Rollout, Server, User,
};
use mcp_gateway::proto::config::v1::{Match, Subjects};
use prost_types::Timestamp;

use super::relative;

/// A resource with columns.
pub trait Tabular {
    /// Column titles.
    const HEADER: &'static [&'static str];
    /// One cell per column.
    fn cells(&self) -> Vec<String>;
}

/// RFC 3339 in UTC to the second; empty without one.
pub fn time(timestamp: Option<&Timestamp>) -> String {
    timestamp
        .and_then(|it| DateTime::<Utc>::from_timestamp(it.seconds, u32::try_from(it.nanos).unwrap_or(0)))
        .map(|it| it.to_rfc3339_opts(SecondsFormat::Secs, true))
        .unwrap_or_default()
}

/// `TRANSPORT_HTTP_SSE` without its prefix: `http-sse`.
fn label(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix) {
        Some("UNSPECIFIED") | None => String::new(),
        Some(rest) => rest.to_lowercase().replace('_', "-"),
    }
}

fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "" }.to_owned()
}

fn version(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn list(items: &[String]) -> String {
    items.join(",")
}

impl Tabular for Organization {
    const HEADER: &'static [&'static str] = &["ORGANIZATION", "DISPLAY NAME", "POOL", "AUDIT FULL", "CREATED", "VERSION"];
    fn cells(&self) -> Vec<String> {
        vec![
            last(&self.name),
            self.display_name.clone(),
            self.pool.clone(),
            label(self.audit_full().as_str_name(), "AUDIT_FULL_ACTION_"),
            time(self.create_time.as_ref()),
            version(self.config_version),
        ]
    }
}

impl Tabular for Rollout {
    const HEADER: &'static [&'static str] = &["ROLLOUT", "STATE", "STEP", "CANARIES", "STARTED", "BY", "WHY IT HALTED"];
    fn cells(&self) -> Vec<String> {
        vec![
            last(&self.name),
            label(self.state().as_str_name(), "ROLLOUT_STATE_"),
            format!("{}/{}", self.step, self.steps.len()),
            self.canaries.len().to_string(),
            time(self.create_time.as_ref()),
            self.actor.clone(),
            self.halt_detail.clone(),
        ]
    }
}

impl Tabular for User {
    const HEADER: &'static [&'static str] = &["USER", "EMAIL", "DISPLAY NAME", "PLATFORM ADMIN", "DISABLED", "CREATED"];
    fn cells(&self) -> Vec<String> {
        vec![
            last(&self.name),
            self.email.clone(),
            self.display_name.clone(),
            yes(self.platform_admin),
            yes(self.disabled),
            time(self.create_time.as_ref()),
        ]
    }
}

impl Tabular for Membership {
    const HEADER: &'static [&'static str] = &["USER", "EMAIL", "ROLE", "POLICY ROLES", "GROUPS", "VERSION"];
    fn cells(&self) -> Vec<String> {
        vec![
            last(&self.user),
            self.email.clone(),
            label(self.role().as_str_name(), "ROLE_"),
            list(&self.policy_roles),
            list(&self.groups),
            version(self.config_version),
        ]
    }
}

impl Tabular for ApiKey {
    const HEADER: &'static [&'static str] = &["KEY", "DISPLAY NAME", "PRINCIPAL", "ROLES", "GROUPS", "EXPIRES", "REVOKED"];
    fn cells(&self) -> Vec<String> {
        let id = last(&self.name);
        let principal = if self.user.is_empty() { format!("key:{id}") } else { self.user.clone() };
        vec![
            id,
            self.display_name.clone(),
            principal,
            list(&self.policy_roles),
            list(&self.groups),
            time(self.expire_time.as_ref()),
            time(self.revoke_time.as_ref()),
        ]
    }
}

impl Tabular for Server {
    const HEADER: &'static [&'static str] = &["SERVER", "TRANSPORT", "ERA", "REACHED BY", "ANONYMOUS", "DISABLED", "VERSION"];
    fn cells(&self) -> Vec<String> {
        let urls: Vec<_> = self.endpoints.iter().map(|it| it.url.clone()).collect();
        let transport = label(self.transport().as_str_name(), "TRANSPORT_");
        let era = label(self.era().as_str_name(), "ERA_");
        let found = |name: fn(&FoundOut) -> String| found(self.found_out.iter().map(name));
        let transports = || found(|it| label(it.transport().as_str_name(), "TRANSPORT_")).unwrap_or_else(|| "auto".to_owned());
        let eras = || found(|it| label(it.era().as_str_name(), "ERA_")).unwrap_or_default();
        vec![
            last(&self.name),
            if transport.is_empty() { transports() } else { transport },
            if era.is_empty() { eras() } else { era },
            self.stdio.as_ref().map_or_else(|| list(&urls), |stdio| command(&stdio.command)),
            yes(self.allow_anonymous),
            yes(self.disabled),
            version(self.config_version),
        ]
    }
}

/// What nodes found out, each of it once: they may disagree.
fn found(labels: impl Iterator<Item = String>) -> Option<String> {
    let labels: BTreeSet<_> = labels.filter(|label| !label.is_empty()).collect();
    let labels: Vec<_> = labels.into_iter().collect();
    (!labels.is_empty()).then(|| format!("{} (found)", labels.join("|")))
}

/// The arguments as a shell would need them, to be read and copied.
fn command(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:=@%+,".contains(c);
    let quoted = |text: &String| match text.as_str() {
        "" => "''".to_owned(),
        text if text.chars().all(plain) => text.to_owned(),
        text => format!("'{}'", text.replace('\'', "'\\''")),
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

impl Tabular for Policy {
    const HEADER: &'static [&'static str] = &["POLICY", "EFFECT", "MODE", "SUBJECTS", "SERVERS", "MATCH", "VERSION"];
    fn cells(&self) -> Vec<String> {
        vec![
            last(&self.name),
            label(self.effect().as_str_name(), "EFFECT_"),
            label(self.mode().as_str_name(), "MODE_"),
            subjects(self.subjects.as_ref()),
            list(&self.servers),
            patterns(self.r#match.as_ref()),
            version(self.config_version),
        ]
    }
}

impl Tabular for RateLimit {
    const HEADER: &'static [&'static str] =
        &["LIMIT", "PER", "ADMITS", "SUBJECTS", "SERVERS", "MATCH", "COSTS", "WHEN AWAY", "VERSION"];
    fn cells(&self) -> Vec<String> {
        let per: Vec<_> = self.per().map(|per| label(per.as_str_name(), "LIMIT_PER_")).collect();
        let costs: Vec<_> = self.costs.iter().map(|it| format!("{}={}", it.tools, it.cost)).collect();
        vec![
            last(&self.name),
            list(&per),
            admits(self),
            subjects(self.subjects.as_ref()),
            list(&self.servers),
            patterns(self.r#match.as_ref()),
            list(&costs),
            label(self.when_away().as_str_name(), "LIMIT_AWAY_"),
            version(self.config_version),
        ]
    }
}

/// `100/1m 1000/1h`, and how many at once.
fn admits(limit: &RateLimit) -> String {
    let windows = limit.windows.iter().map(|it| format!("{}/{}", it.limit, relative::exact(it.seconds.into())));
    let cap = (limit.max_concurrent > 0).then(|| format!("{} at once", limit.max_concurrent));
    windows.chain(cap).collect::<Vec<_>>().join(" ")
}

fn subjects(subjects: Option<&Subjects>) -> String {
    let Some(it) = subjects else {
        return String::new();
    };
    let named = [("role", &it.roles), ("group", &it.groups), ("user", &it.users), ("key", &it.api_keys)];
    let mut parts = kinds(&named);
    if it.anonymous {
        parts.push("anonymous".into());
    }
    parts.join(" ")
}

fn patterns(matching: Option<&Match>) -> String {
    let Some(it) = matching else {
        return String::new();
    };
    let named = [("tool", &it.tools), ("prompt", &it.prompts), ("resource", &it.resources), ("method", &it.methods)];
    kinds(&named).join(" ")
}

fn kinds(named: &[(&str, &Vec<String>)]) -> Vec<String> {
    named.iter().filter(|(_, items)| !items.is_empty()).map(|(kind, items)| format!("{kind}:{}", items.join(","))).collect()
}

impl Tabular for Node {
    const HEADER: &'static [&'static str] = &[
        "NODE",
        "NAME",
        "POOL",
        "LABELS",
        "STATE",
        "APPLIED",
        "BEHIND",
        "STALE",
        "SPOOL",
        "STREAMS",
        "BUILD",
        "CERTIFICATE",
        "SEEN",
        "PROBLEMS",
    ];
    fn cells(&self) -> Vec<String> {
        let now = SystemTime::now();
        vec![
            last(&self.name),
            self.display_name.clone(),
            self.pool.clone(),
            labels(&self.labels),
            label(self.state().as_str_name(), "NODE_STATE_"),
            applied(self),
            relative::ago(self.behind_since_time.as_ref(), now),
            relative::lasting(self.stale_duration.as_ref()),
            spool(self),
            self.open_streams.to_string(),
            self.build.clone(),
            relative::until(self.certificate_expire_time.as_ref(), now),
            relative::ago(self.last_seen_time.as_ref(), now),
            problems(&self.problems),
        ]
    }
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What it runs, and what it should run where that is something else.
fn applied(node: &Node) -> String {
    let behind = (node.applied_epoch, node.applied_version) < (node.target_epoch, node.target_version);
    if behind { format!("{} of {}", node.applied_version, node.target_version) } else { version(node.applied_version) }
}

/// How many frames wait, and for how long the oldest has.
fn spool(node: &Node) -> String {
    let oldest = relative::lasting(node.spool_oldest_duration.as_ref());
    if oldest.is_empty() { node.spool_frames.to_string() } else { format!("{} ({oldest})", node.spool_frames) }
}

/// The first; `get` and JSON show all of them.
fn problems(problems: &[String]) -> String {
    match problems {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

impl Tabular for JoinToken {
    const HEADER: &'static [&'static str] = &["TOKEN", "POOL", "LABELS", "EXPIRES", "USED", "NODE"];
    fn cells(&self) -> Vec<String> {
        vec![
            last(&self.name),
            self.pool.clone(),
            labels(&self.labels),
            time(self.expire_time.as_ref()),
            time(self.use_time.as_ref()),
            last(&self.node),
        ]
    }
}

impl Tabular for CustodyKey {
    const HEADER: &'static [&'static str] = &["KEY", "PURPOSE", "STATE", "CREATED", "RETIRED"];
    fn cells(&self) -> Vec<String> {
        let state = match self.state() {
            CustodyKeyState::Unspecified => "",
            CustodyKeyState::Next => "next",
            CustodyKeyState::Current => "current",
            CustodyKeyState::Retiring => "retiring",
        };
        vec![
            last(&self.name),
            self.purpose.clone(),
            state.to_owned(),
            time(self.create_time.as_ref()),
            time(self.retire_time.as_ref()),
        ]
    }
}

impl Tabular for ConfigVersion {
    const HEADER: &'static [&'static str] = &["VERSION", "COMMITTED", "ACTOR", "REASON", "CHANGES"];
    fn cells(&self) -> Vec<String> {
        let changes = self.changes.iter().map(|it| format!("{} {}", it.operation, it.resource));
        vec![
            self.version.to_string(),
            time(self.commit_time.as_ref()),
            self.actor.clone(),
            self.reason.clone(),
            changes.collect::<Vec<_>>().join(", "),
        ]
    }
}

impl Tabular for AuditLog {
    const HEADER: &'static [&'static str] = &["TIME", "ACTOR", "ACTION", "RESOURCE", "OUTCOME", "VERSION", "FROM"];
    fn cells(&self) -> Vec<String> {
        vec![
            time(self.time.as_ref()),
            self.actor.clone(),
            self.action.clone(),
            self.resource.clone(),
            self.outcome.clone(),
            version(self.config_version),
            self.client_address.clone(),
        ]
    }
}

impl Tabular for RequestLog {
    const HEADER: &'static [&'static str] =
        &["TIME", "REQUEST", "SUBJECT", "SERVER", "METHOD", "TARGET", "DECISION", "RULE", "VERSION", "OUTCOME", "MS"];
    fn cells(&self) -> Vec<String> {
        vec![
            time(self.decide_time.as_ref()),
            self.request_id.clone(),
            self.subject.clone(),
            self.server.clone(),
            self.method.clone(),
            self.target.clone(),
            self.decision.clone(),
            if self.rule.is_empty() { self.reason.clone() } else { self.rule.clone() },
            version(self.config_version),
            self.outcome.clone(),
            format!("{:.1}", f64::from(self.total_us) / 1000.0),
        ]
    }
}

impl Tabular for Checkpoint {
    const HEADER: &'static [&'static str] = &["NUMBER", "TIME", "SEALS", "RECORDS", "KEY", "HASH"];
    fn cells(&self) -> Vec<String> {
        let key = if self.key_id.is_empty() { "not signed" } else { &self.key_id };
        vec![
            self.number.to_string(),
            time(self.take_time.as_ref()),
            self.seals.to_string(),
            self.audit_number.to_string(),
            key.to_owned(),
            self.hash.clone(),
        ]
    }
}

impl Tabular for RecordGap {
    const HEADER: &'static [&'static str] = &["FROM", "UNTIL", "ORGANIZATION", "ACCESS", "AUDIT", "NODE"];
    fn cells(&self) -> Vec<String> {
        vec![
            time(self.from_time.as_ref()),
            time(self.until_time.as_ref()),
            last(&self.organization),
            self.access.to_string(),
            self.audit.to_string(),
            last(&self.node),
        ]
    }
}

impl Tabular for ErrorGroup {
    const HEADER: &'static [&'static str] = &[
        "LAST SEEN",
        "CALLS",
        "SERVER",
        "METHOD",
        "TARGET",
        "OUTCOME",
        "CODE",
        "REASON",
        "UPSTREAM",
        "SHAPE",
        "FIRST SEEN",
        "SAMPLE",
    ];
    fn cells(&self) -> Vec<String> {
        vec![
            time(self.last_seen_time.as_ref()),
            self.calls.to_string(),
            self.server.clone(),
            self.method.clone(),
            self.target.clone(),
            self.outcome.clone(),
            if self.error_code == 0 { String::new() } else { self.error_code.to_string() },
            self.reason.clone(),
            self.upstream.clone(),
            self.shape.clone(),
            time(self.first_seen_time.as_ref()),
            self.sample_request_id.clone(),
        ]
    }
}
