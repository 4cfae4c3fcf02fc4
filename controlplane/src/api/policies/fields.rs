//! A policy as the admin API writes it, to and from the row; what is expected of each field alone, all violations at once.
//!
//! What a node would refuse of the rule, in its organisation, is judged by the change and not repeated here.

use mcp_gateway::proto::{
    admin::v1 as admin,
    config::v1::{self as config, Effect, Mode},
};
use prost::Message;
use serde_json::json;
use uuid::Uuid;

use super::super::{aip, error::Error, text};
use crate::domain::{Match, Meta, Policy, Subjects, Violation, bundle};

/// What a change may name.
pub const ALL: [&str; 7] = ["display_name", "effect", "mode", "subjects", "servers", "match", "when"];

/// A rule has to fit a bundle beside others.
const LARGEST: usize = 64 * 1024;

/// A policy of which nothing is said yet.
pub fn new(org_id: Uuid, name: &str) -> Policy {
    Policy {
        id: Uuid::now_v7(),
        org_id,
        name: name.into(),
        display_name: String::new(),
        effect: Effect::Unspecified.into(),
        mode: Mode::Enforce.into(),
        subjects: Subjects::default(),
        servers: Vec::new(),
        matches: Match::default(),
        when: String::new(),
        meta: Meta::default(),
    }
}

/// `organizations/{org}/policies/{policy}`.
pub fn name(org: &str, policy: &str) -> String {
    format!("organizations/{org}/policies/{policy}")
}

/// The policy as callers see it.
pub fn message(org: &str, policy: &Policy) -> admin::Policy {
    let uid = policy.id.to_string();
    admin::Policy {
        name: name(org, &policy.name),
        display_name: policy.display_name.clone(),
        effect: policy.effect,
        mode: policy.mode,
        subjects: Some(policy.subjects.clone().into()),
        servers: policy.servers.clone(),
        r#match: Some(policy.matches.clone().into()),
        when: policy.when.clone(),
        etag: aip::etag(&uid, &policy.meta),
        create_time: Some(aip::timestamp(policy.meta.created_at)),
        update_time: Some(aip::timestamp(policy.meta.updated_at)),
        config_version: policy.meta.config_version.unsigned_abs(),
        uid,
    }
}

/// Takes the named fields over from a request.
pub fn apply(policy: &mut Policy, given: &admin::Policy, fields: &[&str]) -> Result<(), Error> {
    let mut violations = Vec::new();
    let found = &mut violations;
    for field in fields {
        match *field {
            "display_name" => policy.display_name = text::display_name("policy.display_name", &given.display_name, found),
            "effect" => policy.effect = effect(given.effect, found),
            "mode" => policy.mode = mode(given.mode, found),
            "subjects" => policy.subjects = subjects(given.subjects.clone().unwrap_or_default(), found),
            "servers" => policy.servers = text::names("policy.servers", &given.servers, found),
            "match" => policy.matches = matches(given.r#match.clone().unwrap_or_default(), found),
            "when" => policy.when = when(&given.when, found),
            other => found.push(Violation::new("update_mask", format!("{other:?} cannot be changed"))),
        }
    }
    let size = bundle::policy(policy).encoded_len();
    if size > LARGEST {
        found.push(Violation::new("policy", format!("expected at most {LARGEST} bytes, found {size}: make it several policies")));
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

/// The rule as records show it.
pub fn rule(policy: &Policy) -> serde_json::Value {
    json!({
        "effect": Effect::try_from(policy.effect).unwrap_or_default().as_str_name(),
        "mode": Mode::try_from(policy.mode).unwrap_or_default().as_str_name(),
        "subjects": policy.subjects,
        "servers": policy.servers,
        "match": policy.matches,
    })
}

fn effect(given: i32, found: &mut Vec<Violation>) -> i32 {
    if !matches!(Effect::try_from(given), Ok(Effect::Allow | Effect::Deny)) {
        found.push(Violation::new("policy.effect", "expected EFFECT_ALLOW or EFFECT_DENY"));
    }
    given
}

fn mode(given: i32, found: &mut Vec<Violation>) -> i32 {
    match text::known::<Mode>("policy.mode", given, found) {
        0 => Mode::Enforce.into(),
        known => known,
    }
}

fn subjects(given: config::Subjects, found: &mut Vec<Violation>) -> Subjects {
    let named = [
        ("policy.subjects.roles", &given.roles),
        ("policy.subjects.groups", &given.groups),
        ("policy.subjects.users", &given.users),
        ("policy.subjects.api_keys", &given.api_keys),
    ];
    for (field, names) in named {
        text::names(field, names, found);
    }
    given.into()
}

/// Whether a pattern is one is judged where nodes judge it; here only whether it is text.
fn matches(given: config::Match, found: &mut Vec<Violation>) -> Match {
    let patterns = [
        ("policy.match.tools", &given.tools),
        ("policy.match.prompts", &given.prompts),
        ("policy.match.resources", &given.resources),
        ("policy.match.methods", &given.methods),
    ];
    for (field, patterns) in patterns {
        for (index, _) in patterns.iter().enumerate().filter(|(_, pattern)| pattern.chars().any(char::is_control)) {
            found.push(Violation::new(format!("{field}[{index}]"), "expected no control characters"));
        }
    }
    given.into()
}

fn when(given: &str, found: &mut Vec<Violation>) -> String {
    if !given.is_empty() {
        found.push(Violation::new("policy.when", "expected nothing: conditions are not served by this version"));
    }
    String::new()
}
