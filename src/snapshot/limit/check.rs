//! What a limit has to satisfy. Pure; every defect is reported.

use std::collections::BTreeSet;

use crate::proto::config::v1::{LimitAway, LimitPer, Match, RateLimit};
use crate::snapshot::Problem;
use crate::snapshot::validate::{is_slug, is_uuid, known, unfit};

const MOST_WINDOWS: usize = 4;
const MOST_COSTS: usize = 64;
const LARGEST_LIMIT: u64 = 1_000_000_000;
/// 30 days.
const LONGEST_SECONDS: u32 = 2_592_000;

/// Checks one limit of an organisation with these servers.
pub(in crate::snapshot) fn check(limit: &RateLimit, servers: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    let resource = format!("limit {}", limit.name);
    if !is_uuid(&limit.id) {
        problems.push(Problem::InvalidId { resource: resource.clone(), field: "id", value: limit.id.clone() });
    }
    if !is_slug(&limit.name) {
        problems.push(Problem::InvalidSlug { resource: resource.clone(), field: "name", value: limit.name.clone() });
    }
    known::<LimitAway>(&resource, "when_away", limit.when_away, problems);
    for (index, server) in limit.servers.iter().enumerate() {
        if server != "*" && !servers.contains(server.as_str()) {
            problems.push(Problem::LimitedServer { limit: limit.name.clone(), index, server: server.clone() });
        }
    }
    let mut expect = |holds: bool, field: String, expected: &'static str| {
        if !holds {
            problems.push(Problem::InvalidLimit { limit: limit.name.clone(), field, expected });
        }
    };
    for (index, per) in limit.per.iter().enumerate() {
        let known = LimitPer::try_from(*per).is_ok_and(|per| per != LimitPer::Unspecified);
        expect(
            known && !limit.per[..index].contains(per),
            format!("per[{index}]"),
            "expected user, server or endpoint, each once",
        );
    }
    let matching = limit.r#match.clone().unwrap_or_default();
    let endpoint = limit.per().any(|per| per == LimitPer::Endpoint);
    expect(!endpoint || matching != Match::default(), "match".into(), "expected the endpoints that are counted one by one");
    check_windows(limit, &mut expect);
    check_patterns(limit, &matching, &mut expect);
}

fn check_windows(limit: &RateLimit, expect: &mut impl FnMut(bool, String, &'static str)) {
    let some = !limit.windows.is_empty() || limit.max_concurrent > 0;
    expect(some, "windows".into(), "expected at least one window, or a cap on calls in flight");
    expect(limit.windows.len() <= MOST_WINDOWS, "windows".into(), "expected at most 4");
    for (index, window) in limit.windows.iter().enumerate() {
        let fits = (1..=LARGEST_LIMIT).contains(&window.limit);
        expect(fits, format!("windows[{index}].limit"), "expected 1 to 1000000000");
        let fits = (1..=LONGEST_SECONDS).contains(&window.seconds);
        expect(fits, format!("windows[{index}].seconds"), "expected 1 to 2592000 (30 days)");
        let once = limit.windows[..index].iter().all(|other| other.seconds != window.seconds);
        expect(once, format!("windows[{index}].seconds"), "expected each length once");
    }
}

fn check_patterns(limit: &RateLimit, matching: &Match, expect: &mut impl FnMut(bool, String, &'static str)) {
    let fields = [
        ("match.tools", &matching.tools),
        ("match.prompts", &matching.prompts),
        ("match.resources", &matching.resources),
        ("match.methods", &matching.methods),
    ];
    for (field, patterns) in fields {
        for (index, pattern) in patterns.iter().enumerate() {
            if let Some(reason) = unfit(field, pattern) {
                expect(false, format!("{field}[{index}]"), reason);
            }
        }
    }
    expect(limit.costs.len() <= MOST_COSTS, "costs".into(), "expected at most 64");
    let smallest = limit.windows.iter().map(|window| window.limit).min().unwrap_or(LARGEST_LIMIT);
    for (index, cost) in limit.costs.iter().enumerate() {
        if let Some(reason) = unfit("costs", &cost.tools) {
            expect(false, format!("costs[{index}].tools"), reason);
        }
        let fits = cost.cost >= 1 && u64::from(cost.cost) <= smallest;
        expect(fits, format!("costs[{index}].cost"), "expected 1 to the smallest window's limit: more would never be admitted");
    }
}
