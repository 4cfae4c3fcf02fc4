//! A rollout as the admin API writes it: what a request may ask for, what callers see.

use std::{collections::BTreeSet, time::Duration};

use chrono::DateTime;
use mcp_gateway::{
    proto::admin::v1::{ConfigDiff, Rollout as Wire, RolloutCalls, RolloutState, RolloutStep, rollout_step},
    snapshot::Version,
};
use prost::Message;
use uuid::Uuid;

use super::super::{aip, error::Error};
use crate::domain::{
    Meta, labels,
    rollout::{
        Rollout, Share, State,
        decide::{Decision, Facts, Tally, decide},
    },
    rules::Rules,
};

const MOST_STEPS: usize = 20;
const MOST_NODES: u32 = 100_000;
const LONGEST_BAKE: Duration = Duration::from_secs(7 * 24 * 3600);
const BAKE: Duration = Duration::from_secs(300);
const STEPS: [Share; 4] = [Share::Nodes(1), Share::Percent(10), Share::Percent(50), Share::Percent(100)];
const MIN_CALLS: u32 = 20;
const MOST_MIN_CALLS: u32 = 10_000;

/// What a request asks for, not yet of any organisation.
pub fn asked(given: &Wire) -> Result<Rollout, Error> {
    let mut rules = Rules::default();
    labels::judge(&mut rules, "rollout.node_labels", &given.node_labels);
    rules.expect(
        given.steps.len() <= MOST_STEPS,
        "rollout.steps",
        format!("expected at most {MOST_STEPS}, found {}", given.steps.len()),
    );
    let steps: Vec<Share> =
        given.steps.iter().take(MOST_STEPS).enumerate().filter_map(|(index, step)| share(index, step, &mut rules)).collect();
    let bake = given.bake_duration.map_or(Some(BAKE), |bake| Duration::try_from(bake).ok());
    let bake = bake.filter(|bake| *bake <= LONGEST_BAKE && bake.subsec_nanos() == 0);
    rules.expect(bake.is_some(), "rollout.bake_duration", "expected whole seconds, at most 7 days");
    let expected = format!("expected at most {MOST_MIN_CALLS}, or 0 for {MIN_CALLS}");
    rules.expect(given.min_calls <= MOST_MIN_CALLS, "rollout.min_calls", expected);
    rules.check().map_err(Error::Invalid)?;
    Ok(Rollout {
        id: Uuid::nil(),
        org_id: Uuid::nil(),
        org_slug: String::new(),
        pool: String::new(),
        state: State::Running,
        diff: Vec::new(),
        labels: given.node_labels.clone(),
        steps: if steps.is_empty() { STEPS.to_vec() } else { steps },
        step: 0,
        bake: bake.unwrap_or(BAKE),
        min_calls: if given.min_calls == 0 { MIN_CALLS } else { given.min_calls },
        canaries: BTreeSet::new(),
        version: Version::default(),
        step_started_at: DateTime::UNIX_EPOCH,
        baking_since: None,
        halt: None,
        actor: String::new(),
        reason: String::new(),
        meta: Meta::default(),
    })
}

fn share(index: usize, given: &RolloutStep, rules: &mut Rules) -> Option<Share> {
    let share = match given.share {
        Some(rollout_step::Share::Nodes(nodes)) if (1..=MOST_NODES).contains(&nodes) => Some(Share::Nodes(nodes)),
        Some(rollout_step::Share::Percent(percent)) if (1..=100).contains(&percent) => Some(Share::Percent(percent)),
        Some(rollout_step::Share::Nodes(_) | rollout_step::Share::Percent(_)) | None => None,
    };
    rules.expect(share.is_some(), &format!("rollout.steps[{index}]"), "expected a number of nodes from 1, or 1 to 100 percent");
    share
}

/// The rollout as callers see it.
pub fn wire(row: &Rollout) -> Wire {
    let uid = row.id.to_string();
    let (halt_reason, halt_detail) =
        row.halt.clone().map(|halt| (halt.reason.as_str().to_owned(), halt.detail)).unwrap_or_default();
    Wire {
        name: row.name(),
        state: state(row.state).into(),
        node_labels: row.labels.clone(),
        steps: row.steps.iter().map(step).collect(),
        bake_duration: Some(prost_types::Duration { seconds: i64::try_from(row.bake.as_secs()).unwrap_or(i64::MAX), nanos: 0 }),
        min_calls: row.min_calls,
        step: u32::try_from(row.step + 1).unwrap_or(u32::MAX),
        canaries: row.canaries.iter().map(|id| format!("nodes/{id}")).collect(),
        diff: ConfigDiff::decode(row.diff.as_slice()).ok(), // written by another version: not worth a failure
        step_version: row.version.version,
        step_start_time: Some(aip::timestamp(row.step_started_at)),
        bake_start_time: row.baking_since.map(aip::timestamp),
        halt_reason,
        halt_detail,
        actor: row.actor.clone(),
        reason: row.reason.clone(),
        pool: row.pool.clone(),
        config_version: row.meta.config_version.cast_unsigned(),
        etag: aip::etag(&uid, &row.meta),
        uid,
        create_time: Some(aip::timestamp(row.meta.created_at)),
        update_time: Some(aip::timestamp(row.meta.updated_at)),
        ..Wire::default()
    }
}

/// The same of one that is running, with what is seen of it.
pub fn watched(row: &Rollout, facts: &Facts) -> Wire {
    let calls = |tally: Tally| Some(RolloutCalls { calls: tally.calls, bad: tally.bad });
    let waiting_for = match decide(row, facts) {
        Decision::Wait(why) => why.to_owned(),
        Decision::Bake => "the step begins to bake".to_owned(),
        Decision::Advance => "the next step begins".to_owned(),
        Decision::Promote => "the candidate becomes the configuration".to_owned(),
        Decision::Halt(halt) => format!("it halts: {}", halt.detail),
    };
    Wire { waiting_for, canary_calls: calls(facts.canary_calls), control_calls: calls(facts.control_calls), ..wire(row) }
}

fn state(state: State) -> RolloutState {
    match state {
        State::Running => RolloutState::Running,
        State::Halted => RolloutState::Halted,
        State::Promoted => RolloutState::Promoted,
        State::Aborted => RolloutState::Aborted,
    }
}

fn step(share: &Share) -> RolloutStep {
    let share = match *share {
        Share::Nodes(nodes) => rollout_step::Share::Nodes(nodes),
        Share::Percent(percent) => rollout_step::Share::Percent(percent),
    };
    RolloutStep { share: Some(share) }
}
