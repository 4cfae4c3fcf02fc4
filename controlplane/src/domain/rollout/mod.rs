//! Rollouts: a change of one organisation that some nodes of its pool, the canaries, run before all do. Pure: no database, no clock.
//!
//! [`canaries`] chooses the nodes of a step, [`decide`] says what comes next. `store::rollouts` keeps the rows, [`crate::rollouts`] carries out.

pub mod canaries;
pub mod decide;

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use mcp_gateway::snapshot::Version;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Labels, Meta};

/// How far a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Canaries run the candidate.
    Running,
    /// Every node runs what it ran before; the rollout can be resumed.
    Halted,
    /// The candidate is the organisation's configuration, everywhere.
    Promoted,
    /// Forgotten.
    Aborted,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Running, Self::Halted, Self::Promoted, Self::Aborted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Halted => "halted",
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
        }
    }

    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether the organisation waits for it.
    pub fn is_open(self) -> bool {
        match self {
            Self::Running | Self::Halted => true,
            Self::Promoted | Self::Aborted => false,
        }
    }
}

/// How many of the nodes that a rollout may choose from take part in a step. The form of `rollouts.steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    Nodes(u32),
    Percent(u32),
}

/// Why a rollout halted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A canary refused the version.
    Refused,
    /// A canary runs the version without the organisation's part.
    Quarantined,
    /// Calls at canaries end badly more often than elsewhere.
    Worse,
    /// A connected canary does not come to run the version.
    Stalled,
    /// The candidate cannot become the configuration.
    Unpromotable,
}

impl Reason {
    const ALL: [Self; 5] = [Self::Refused, Self::Quarantined, Self::Worse, Self::Stalled, Self::Unpromotable];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Quarantined => "quarantined",
            Self::Worse => "worse",
            Self::Stalled => "stalled",
            Self::Unpromotable => "unpromotable",
        }
    }

    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// Why a rollout halted, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub reason: Reason,
    /// For people: which node, which numbers.
    pub detail: String,
}

/// A rollout, without its candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub id: Uuid,
    pub org_id: Uuid,
    pub org_slug: String,
    pub pool: String,
    pub state: State,
    /// An encoded `ConfigDiff`.
    pub diff: Vec<u8>,
    /// What canaries are chosen by.
    pub labels: Labels,
    pub steps: Vec<Share>,
    /// Index into `steps`.
    pub step: usize,
    pub bake: Duration,
    /// Fewer calls at canaries say nothing.
    pub min_calls: u32,
    /// The nodes of this step, those of the steps before among them.
    pub canaries: BTreeSet<Uuid>,
    /// Began the step. Whatever a canary runs at or after it holds the candidate.
    pub version: Version,
    pub step_started_at: DateTime<Utc>,
    /// Since when every connected canary has run the candidate.
    pub baking_since: Option<DateTime<Utc>>,
    /// Of a halt that nobody asked for.
    pub halt: Option<Halt>,
    pub actor: String,
    pub reason: String,
    pub meta: Meta,
}

impl Rollout {
    /// `organizations/{org}/rollouts/{id}`.
    pub fn name(&self) -> String {
        name(&self.org_slug, self.id)
    }
}

/// `organizations/{org}/rollouts/{id}`.
pub fn name(org: &str, id: Uuid) -> String {
    format!("organizations/{org}/rollouts/{id}")
}
