//! A limit as the admin API writes it, to and from the row; what is expected of each field alone, all violations at once.
//!
//! What a node would refuse of the limit, in its organisation, is judged by the change and not repeated here.

use mcp_gateway::proto::{
    admin::v1 as admin,
    config::v1::{LimitAway, LimitPer},
};
use prost::Message;
use serde_json::json;
use uuid::Uuid;

use super::super::{aip, error::Error};
use crate::domain::{Meta, RateLimit, limit::Spec, rules::Rules};

/// What a change may name.
pub const ALL: [&str; 9] =
    ["display_name", "per", "subjects", "servers", "match", "windows", "max_concurrent", "costs", "when_away"];

/// A limit has to fit a bundle beside others.
const LARGEST: usize = 64 * 1024;

/// A limit of which nothing is said yet.
pub fn new(org_id: Uuid, name: &str) -> RateLimit {
    let spec = Spec { when_away: LimitAway::Share.into(), ..Spec::default() };
    RateLimit { id: Uuid::now_v7(), org_id, name: name.into(), spec, meta: Meta::default() }
}

/// `organizations/{org}/rateLimits/{limit}`.
pub fn name(org: &str, limit: &str) -> String {
    format!("organizations/{org}/rateLimits/{limit}")
}

/// The limit as callers see it.
pub fn message(org: &str, limit: &RateLimit) -> admin::RateLimit {
    let (uid, spec) = (limit.id.to_string(), limit.spec.clone());
    admin::RateLimit {
        name: name(org, &limit.name),
        display_name: spec.display_name,
        per: spec.per,
        subjects: Some(spec.subjects.into()),
        servers: spec.servers,
        r#match: Some(spec.matches.into()),
        windows: spec.windows.into_iter().map(Into::into).collect(),
        max_concurrent: spec.max_concurrent,
        costs: spec.costs.into_iter().map(Into::into).collect(),
        when_away: spec.when_away,
        etag: aip::etag(&uid, &limit.meta),
        create_time: Some(aip::timestamp(limit.meta.created_at)),
        update_time: Some(aip::timestamp(limit.meta.updated_at)),
        config_version: limit.meta.config_version.unsigned_abs(),
        uid,
    }
}

/// Takes the named fields over from a request.
pub fn apply(limit: &mut RateLimit, given: &admin::RateLimit, fields: &[&str]) -> Result<(), Error> {
    let (mut rules, spec) = (Rules::default(), &mut limit.spec);
    for field in fields {
        match *field {
            "display_name" => {
                rules.display_name("rate_limit.display_name", &given.display_name);
                spec.display_name.clone_from(&given.display_name);
            }
            "per" => spec.per.clone_from(&given.per),
            "subjects" => {
                let subjects = given.subjects.clone().unwrap_or_default();
                rules.subjects("rate_limit.subjects", &subjects);
                spec.subjects = subjects.into();
            }
            "servers" => {
                rules.texts("rate_limit.servers", &given.servers);
                spec.servers.clone_from(&given.servers);
            }
            "match" => {
                let matches = given.r#match.clone().unwrap_or_default();
                rules.patterns("rate_limit.match", &matches);
                spec.matches = matches.into();
            }
            "windows" => spec.windows = given.windows.iter().copied().map(Into::into).collect(),
            "max_concurrent" => spec.max_concurrent = given.max_concurrent,
            "costs" => {
                for (index, cost) in given.costs.iter().enumerate() {
                    rules.plain(&format!("rate_limit.costs[{index}].tools"), &cost.tools);
                }
                spec.costs = given.costs.iter().cloned().map(Into::into).collect();
            }
            "when_away" => spec.when_away = away(given.when_away),
            other => return Err(Error::invalid("update_mask", format!("{other:?} cannot be changed"))),
        }
    }
    let size = limit.compiled().encoded_len();
    let expected = format!("expected at most {LARGEST} bytes, found {size}: make it several limits");
    rules.expect(size <= LARGEST, "rate_limit", expected);
    rules.check().map_err(Error::Invalid)
}

/// The limit as records show it.
pub fn rule(limit: &RateLimit) -> serde_json::Value {
    let Spec { per, subjects, servers, matches, windows, max_concurrent, costs, when_away, .. } = &limit.spec;
    let per: Vec<_> = per.iter().map(|per| LimitPer::try_from(*per).unwrap_or_default().as_str_name()).collect();
    json!({
        "per": per,
        "subjects": subjects,
        "servers": servers,
        "match": matches,
        "windows": windows,
        "maxConcurrent": max_concurrent,
        "costs": costs,
        "whenAway": LimitAway::try_from(*when_away).unwrap_or_default().as_str_name(),
    })
}

fn away(given: i32) -> i32 {
    if given == i32::from(LimitAway::Unspecified) { LimitAway::Share.into() } else { given }
}
