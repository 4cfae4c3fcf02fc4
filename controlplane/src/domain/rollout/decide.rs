//! What comes next for a running rollout, from its row and what was seen of its nodes and calls. THE rules; [`crate::rollouts`] carries out.
//!
//! In this order: halt on what canaries refuse, halt on what their callers see, wait until they run the candidate, bake, go on.

#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use mcp_gateway::snapshot::Version;
use uuid::Uuid;

use super::{Halt, Reason, Rollout};

/// A connected canary that does not come to run the candidate within this time will not.
const PATIENCE: TimeDelta = TimeDelta::minutes(10);
/// Canaries may end this many times as many calls badly as other nodes do,
const TIMES: f64 = 2.0;
/// or this much more of them, whichever is more.
const MORE: f64 = 0.05;

/// What a canary does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    pub id: Uuid,
    pub connected: bool,
    pub applied: Version,
    /// The newest version that it refused since it applied one; zero: none.
    pub refused: Version,
    /// What it left out of the version it runs, or why it refused another.
    pub problems: Vec<String>,
}

/// Calls that ended, and those among them that ended badly: denied, failed, or answered with an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub calls: u64,
    pub bad: u64,
}

/// What was seen, at one moment by the database's clock. Calls are those of the organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub now: DateTime<Utc>,
    pub canaries: Vec<Canary>,
    /// Under the candidate.
    pub canary_calls: Tally,
    /// At the pool's other nodes since the step began.
    pub control_calls: Tally,
    /// At any node of the pool shortly before the rollout: where the others say too little.
    pub earlier_calls: Tally,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet; for people, what is waited for.
    Wait(&'static str),
    /// Every connected canary runs the candidate: the bake time begins.
    Bake,
    /// The next step begins.
    Advance,
    /// Every step has baked: the candidate becomes the configuration.
    Promote,
    /// Every node goes back to what it ran.
    Halt(Halt),
}

/// Decides for a running rollout.
pub fn decide(rollout: &Rollout, facts: &Facts) -> Decision {
    if let Some(halt) = refusal(rollout, facts).or_else(|| worse(rollout, facts)) {
        return Decision::Halt(halt);
    }
    let connected = || facts.canaries.iter().filter(|canary| canary.connected);
    if connected().next().is_none() {
        return Decision::Wait("no canary is connected");
    }
    if let Some(late) = connected().find(|canary| canary.applied < rollout.version) {
        if facts.now - rollout.step_started_at < PATIENCE {
            return Decision::Wait("a canary does not run the candidate yet");
        }
        let detail = format!("nodes/{} runs version {} and does not come to run {}", late.id, late.applied, rollout.version);
        return Decision::Halt(Halt { reason: Reason::Stalled, detail });
    }
    let bake = TimeDelta::from_std(rollout.bake).unwrap_or(TimeDelta::MAX);
    let baked = rollout.baking_since.map_or(TimeDelta::zero(), |since| facts.now - since);
    match (baked >= bake, rollout.baking_since, rollout.step + 1 < rollout.steps.len()) {
        (true, _, true) => Decision::Advance,
        (true, _, false) => Decision::Promote,
        (false, None, _) => Decision::Bake,
        (false, Some(_), _) => Decision::Wait("the step is baking"),
    }
}

/// What a canary says of the candidate. Problems of other organisations, or of versions before the step, are not the candidate's.
fn refusal(rollout: &Rollout, facts: &Facts) -> Option<Halt> {
    let org = rollout.org_id.to_string();
    facts.canaries.iter().find_map(|canary| {
        if canary.refused >= rollout.version && canary.refused > canary.applied {
            // What else is wrong may be another organisation's: the node's own problems tell platform administrators.
            let own = canary.problems.iter().find(|problem| problem.contains(&org));
            let why = own.map_or("its own problems say why (mcpgw node get)", String::as_str);
            let detail = format!("nodes/{} refused version {}: {why}", canary.id, canary.refused);
            return Some(Halt { reason: Reason::Refused, detail });
        }
        let why = canary.problems.iter().find(|problem| canary.applied >= rollout.version && problem.contains(&org))?;
        let detail = format!("nodes/{} runs version {} without it: {why}", canary.id, canary.applied);
        Some(Halt { reason: Reason::Quarantined, detail })
    })
}

/// Whether calls at canaries end badly more often than elsewhere.
fn worse(rollout: &Rollout, facts: &Facts) -> Option<Halt> {
    let least = u64::from(rollout.min_calls.max(1));
    if facts.canary_calls.calls < least {
        return None;
    }
    let (control, both) = (facts.control_calls, facts.control_calls.and(facts.earlier_calls));
    let usual = match (control.calls >= least, both.calls >= least, control.calls == 0) {
        (true, _, _) => control,
        (false, true, _) => both,
        (false, false, false) => return None, // soon there will be more
        // Nobody to compare with: what fails is more likely wrong than usual, and a halt is easily resumed.
        (false, false, true) => facts.earlier_calls,
    };
    let (found, usual_ratio) = (facts.canary_calls.ratio(), usual.ratio());
    let most = (usual_ratio * TIMES).max(usual_ratio + MORE);
    (found > most).then(|| Halt {
        reason: Reason::Worse,
        detail: format!(
            "{} of {} calls at canaries ended badly, {} of {} elsewhere",
            facts.canary_calls.bad, facts.canary_calls.calls, usual.bad, usual.calls
        ),
    })
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, bad: self.bad + other.bad }
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts that are far below 2^52")]
    fn ratio(self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.bad as f64 / self.calls as f64 }
    }
}
