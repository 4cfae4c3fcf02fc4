//! Rows of the logs as the admin API writes them, and its words for what the rows hold as numbers. Pure.

use mcp_gateway::proto::{
    admin::v1 as admin,
    node::v1::{AuditClass, Decision, Outcome, Via},
};
use prost_types::{ListValue, Struct, Value, value::Kind};

use super::super::{aip, error::Error};
use crate::store::logs::{AuditLog, OutcomeFilter, RequestLog, errors::ErrorGroup};

/// The outcomes that ended frames report, by name.
const OUTCOMES: [(&str, Outcome); 7] = [
    ("ok", Outcome::Ok),
    ("denied", Outcome::Denied),
    ("error", Outcome::Error),
    ("upstream_failed", Outcome::UpstreamFailed),
    ("cancelled", Outcome::Cancelled),
    ("unknown", Outcome::Unknown),
    ("gateway_failed", Outcome::GatewayFailed),
];
/// No end is known, and one may still come.
const PENDING: &str = "pending";
/// No end is known, and none will come.
const INTERRUPTED: &str = "interrupted";

/// What a list's `outcome` asks for.
pub fn outcome_filter(text: &str) -> Result<Option<OutcomeFilter>, Error> {
    let ended =
        || OUTCOMES.iter().find(|(name, _)| *name == text).and_then(|(_, outcome)| i16::try_from(i32::from(*outcome)).ok());
    match text {
        "" => Ok(None),
        PENDING => Ok(Some(OutcomeFilter::Pending)),
        INTERRUPTED => Ok(Some(OutcomeFilter::Interrupted)),
        _ => ended().map(|outcome| Some(OutcomeFilter::Ended(outcome))).ok_or_else(|| {
            let names = OUTCOMES.map(|(name, _)| name).join(", ");
            Error::invalid("outcome", format!("expected one of {PENDING}, {INTERRUPTED}, {names}, or nothing"))
        }),
    }
}

/// What a list's `decision` asks for.
pub fn decision_filter(text: &str) -> Result<Option<i16>, Error> {
    match text {
        "" => Ok(None),
        "allow" => Ok(Some(1)),
        "deny" => Ok(Some(2)),
        _ => Err(Error::invalid("decision", "expected allow, deny, or nothing")),
    }
}

/// An administrative record.
pub fn audit_log(row: AuditLog) -> admin::AuditLog {
    admin::AuditLog {
        id: row.id.to_string(),
        time: Some(aip::timestamp(row.occurred_at)),
        organization: if row.org_slug.is_empty() { String::new() } else { format!("organizations/{}", row.org_slug) },
        actor: row.actor,
        action: row.action,
        resource: row.resource,
        outcome: row.outcome,
        config_version: row.config_version.unsigned_abs(),
        detail: match row.detail {
            serde_json::Value::Object(fields) => Some(structure(fields)),
            _ => None,
        },
        client_address: row.client_address,
    }
}

/// A request, both frames folded.
pub fn request_log(row: RequestLog) -> admin::RequestLog {
    let request_id = row.request_id.to_string();
    let organization = row.org_slug.as_ref().map(|slug| format!("organizations/{slug}"));
    let name = format!("requestLogs/{request_id}");
    admin::RequestLog {
        name: organization.as_ref().map_or_else(|| name.clone(), |organization| format!("{organization}/{name}")),
        request_id,
        decide_time: Some(aip::timestamp(row.decided_at)),
        class: class(row.class).into(),
        organization: organization.unwrap_or_default(),
        server_uid: row.server_id.map(|id| id.to_string()).unwrap_or_default(),
        via: via(row.via).into(),
        decision: decision(row.decision).into(),
        outcome: outcome(row.outcome, row.alive).into(),
        config_epoch: row.config_epoch.unsigned_abs(),
        config_version: row.config_version.unsigned_abs(),
        org_digest: hex::encode(row.org_digest),
        request_bytes: row.request_bytes.unsigned_abs(),
        response_bytes: row.response_bytes.unsigned_abs(),
        decide_us: micros(row.decide_us),
        upstream_us: micros(row.upstream_us),
        total_us: micros(row.total_us),
        stage_us: row.stage_us.into_iter().map(micros).collect(),
        arguments_digest: hex::encode(row.arguments_digest),
        node: format!("nodes/{}", row.node_id),
        boot_id: row.boot_id.to_string(),
        lane: row.lane.unsigned_abs(),
        seq: row.seq.unsigned_abs(),
        events: micros(row.events),
        server: row.server,
        subject: row.subject,
        roles: row.roles,
        groups: row.groups,
        credential_id: row.credential_id,
        client_address: row.client_address,
        method: row.method,
        target: row.target,
        client_protocol_version: row.client_protocol_version,
        client_era: row.client_era,
        client_transport: row.client_transport,
        server_era: row.server_era,
        server_transport: row.server_transport,
        rule_id: row.rule_id,
        rule: row.rule,
        mode: row.mode,
        reason: row.reason,
        status: row.status,
        error_code: row.error_code,
        upstream: row.upstream,
        session: row.session,
    }
}

/// Errors that belong together.
pub fn error_group(row: ErrorGroup) -> admin::ErrorGroup {
    admin::ErrorGroup {
        id: row.id.to_string(),
        organization: row.org_slug.map(|slug| format!("organizations/{slug}")).unwrap_or_default(),
        server_uid: if row.server_id.is_nil() { String::new() } else { row.server_id.to_string() },
        server: row.server,
        method: row.method,
        target: row.target,
        outcome: outcome(Some(row.outcome), false).into(),
        error_code: row.code,
        reason: row.reason,
        upstream: row.upstream,
        shape: if row.shape == 0 { String::new() } else { format!("{:016x}", row.shape) },
        calls: row.calls.unsigned_abs(),
        first_seen_time: Some(aip::timestamp(row.first_seen_at)),
        last_seen_time: Some(aip::timestamp(row.last_seen_at)),
        sample_request_id: row.sample_id.to_string(),
    }
}

/// The filters of a list, as a follower has them.
pub fn filters(list: admin::ListRequestLogsRequest) -> admin::FollowRequestLogsRequest {
    admin::FollowRequestLogsRequest {
        subject: list.subject,
        server: list.server,
        target: list.target,
        outcome: list.outcome,
        decision: list.decision,
        method: list.method,
        rule: list.rule,
        reason: list.reason,
        node: list.node,
        request_id: list.request_id,
        ..admin::FollowRequestLogsRequest::default()
    }
}

fn class(number: i16) -> &'static str {
    match AuditClass::try_from(i32::from(number)) {
        Ok(AuditClass::Audit) => "audit",
        Ok(AuditClass::Access) => "access",
        Ok(AuditClass::Unspecified) | Err(_) => "",
    }
}

fn via(number: i16) -> &'static str {
    match Via::try_from(i32::from(number)) {
        Ok(Via::Anonymous) => "anonymous",
        Ok(Via::Jwt) => "jwt",
        Ok(Via::ApiKey) => "api_key",
        Ok(Via::Certificate) => "certificate",
        Ok(Via::Unspecified) | Err(_) => "",
    }
}

/// By its name; empty: none.
pub fn decision(number: i16) -> &'static str {
    match Decision::try_from(i32::from(number)) {
        Ok(Decision::Allow) => "allow",
        Ok(Decision::Deny) => "deny",
        Ok(Decision::Unspecified) | Err(_) => "", // its frame has not arrived
    }
}

/// Without an end: whether one may still come decides the word.
pub fn outcome(number: Option<i16>, alive: bool) -> &'static str {
    match number {
        None if alive => PENDING,
        None => INTERRUPTED,
        Some(number) => {
            let named = OUTCOMES.iter().find(|(_, outcome)| i32::from(*outcome) == i32::from(number));
            named.map_or("unknown", |(name, _)| name)
        }
    }
}

fn micros(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn structure(fields: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, field)| (name, value(field))).collect() }
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(truth) => Kind::BoolValue(truth),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(value).collect() }),
        serde_json::Value::Object(fields) => Kind::StructValue(structure(fields)),
    };
    Value { kind: Some(kind) }
}
