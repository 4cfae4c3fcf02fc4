//! A rate limit as it is stored, to and from its form for nodes. Pure; what a limit has to satisfy is in the contract's `check_org`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Match, Meta, Subjects, config};

/// How much may be used in which time.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Counts are kept under it.
    pub id: Uuid,
    pub org_id: Uuid,
    pub name: String,
    pub spec: Spec,
    pub meta: Meta,
}

/// What a limit says. The form of `rate_limits.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    pub display_name: String,
    /// `config::LimitPer`.
    pub per: Vec<i32>,
    pub subjects: Subjects,
    pub servers: Vec<String>,
    #[serde(rename = "match")]
    pub matches: Match,
    pub windows: Vec<Window>,
    /// 0: no cap.
    pub max_concurrent: u32,
    pub costs: Vec<Cost>,
    /// `config::LimitAway`.
    pub when_away: i32,
}

/// At most so much in any period of this length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub limit: u64,
    pub seconds: u32,
}

/// What a call of some tools counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub tools: String,
    pub cost: u32,
}

impl RateLimit {
    /// The limit as nodes see it.
    pub fn compiled(&self) -> config::RateLimit {
        let Spec { per, subjects, servers, matches, windows, max_concurrent, costs, when_away, .. } = self.spec.clone();
        config::RateLimit {
            id: self.id.to_string(),
            name: self.name.clone(),
            per,
            subjects: Some(subjects.into()),
            servers,
            r#match: Some(matches.into()),
            windows: windows.into_iter().map(Into::into).collect(),
            max_concurrent,
            costs: costs.into_iter().map(Into::into).collect(),
            when_away,
        }
    }
}

impl From<Window> for config::LimitWindow {
    fn from(Window { limit, seconds }: Window) -> Self {
        Self { limit, seconds }
    }
}

impl From<config::LimitWindow> for Window {
    fn from(config::LimitWindow { limit, seconds }: config::LimitWindow) -> Self {
        Self { limit, seconds }
    }
}

impl From<Cost> for config::LimitCost {
    fn from(Cost { tools, cost }: Cost) -> Self {
        Self { tools, cost }
    }
}

impl From<config::LimitCost> for Cost {
    fn from(config::LimitCost { tools, cost }: config::LimitCost) -> Self {
        Self { tools, cost }
    }
}
