//! A policy as the admin API writes it, to and from the row; what is expected of each field alone, all violations at once.
//!
//! What a node would refuse of the rule, in its organisation, is judged by the change and not repeated here.

use mcp_gateway::proto::{
    admin::v1 as admin,
    config::v1::{Effect, Mode},
};
use prost::Message;
use serde_json::json;
use uuid::Uuid;

use super::super::{aip, error::Error};
use crate::domain::{Match, Meta, Policy, Subjects, bundle, rules::Rules};

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
    let mut rules = Rules::default();
    for field in fields {
        match *field {
            "display_name" => {
                rules.display_name("policy.display_name", &given.display_name);
                policy.display_name.clone_from(&given.display_name);
            }
            "effect" => {
                let known = matches!(given.effect(), Effect::Allow | Effect::Deny);
                rules.expect(known, "policy.effect", "expected EFFECT_ALLOW or EFFECT_DENY");
                policy.effect = given.effect;
            }
            "mode" => policy.mode = mode(given.mode, &mut rules),
            "subjects" => {
                let subjects = given.subjects.clone().unwrap_or_default();
                rules.subjects("policy.subjects", &subjects);
                policy.subjects = subjects.into();
            }
            "servers" => {
                rules.texts("policy.servers", &given.servers);
                policy.servers.clone_from(&given.servers);
            }
            "match" => {
                let matches = given.r#match.clone().unwrap_or_default();
                rules.patterns("policy.match", &matches);
                policy.matches = matches.into();
            }
            "when" => {
                let expected = "expected nothing: conditions are not served by this version";
                rules.expect(given.when.is_empty(), "policy.when", expected);
            }
            other => return Err(Error::invalid("update_mask", format!("{other:?} cannot be changed"))),
        }
    }
    let size = bundle::policy(policy).encoded_len();
    let expected = format!("expected at most {LARGEST} bytes, found {size}: make it several policies");
    rules.expect(size <= LARGEST, "policy", expected);
    rules.check().map_err(Error::Invalid)
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

fn mode(given: i32, rules: &mut Rules) -> i32 {
    rules.known::<Mode>("policy.mode", given);
    if given == i32::from(Mode::Unspecified) { Mode::Enforce.into() } else { given }
}
