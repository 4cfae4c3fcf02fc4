//! What is hashed of a row of `request_logs`: what was decided, how it ended, since when it counts as interrupted; each on its own, as
//! they arrive on their own. Pure. Made of frames when they are sealed, and of the row when it is verified.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::canon::{Canon, Hash};
use crate::{
    ingest::record::{End, Key, Row, number},
    store::{evidence::rows::Stored, ingest::LaneId},
};

/// Which part of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    Decided,
    Ended,
    Interrupted,
}

impl Half {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Ended => "ended",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The columns that the decided frame fills, in the order of the table.
#[derive(Debug, Clone, Default)]
pub struct Decided<'a> {
    pub node_id: Uuid,
    pub boot_id: Uuid,
    pub lane: i32,
    pub seq: i64,
    pub class: i16,
    pub org_id: Option<Uuid>,
    pub server_id: Option<Uuid>,
    /// Texts, from `server` to `shadow_rule_id`.
    pub texts: [&'a str; 17],
    pub lists: [&'a [String]; 2],
    pub via: i16,
    pub decision: i16,
    pub config_epoch: i64,
    pub config_version: i64,
    pub request_bytes: i64,
    pub octets: [&'a [u8]; 2],
    pub shadow_decision: i16,
}

impl<'a> Decided<'a> {
    /// As [`crate::store::ingest`] stores it.
    pub fn of_frame(lane: LaneId, row: &'a Row) -> Self {
        let of = &row.decided;
        Self {
            node_id: lane.node_id,
            boot_id: lane.boot_id,
            lane: lane.lane,
            seq: row.seq,
            class: small(of.class),
            org_id: row.org_id,
            server_id: row.server_id,
            texts: [
                &of.server,
                &of.subject,
                &of.credential_id,
                &of.client_address,
                &of.method,
                &of.name,
                &of.client_protocol_version,
                &of.client_transport,
                &of.client_era,
                &of.server_transport,
                &of.server_era,
                &of.rule_id,
                &of.rule,
                &of.mode,
                &of.reason,
                &of.session,
                &of.shadow_rule_id,
            ],
            lists: [&of.roles, &of.groups],
            via: small(of.via),
            decision: small(of.decision),
            config_epoch: number(of.config_epoch),
            config_version: number(of.config_version),
            request_bytes: number(of.request_bytes),
            octets: [&of.org_digest, &of.arguments_digest],
            shadow_decision: small(of.shadow_decision),
        }
    }

    pub fn of_row(row: &'a Stored) -> Self {
        Self {
            node_id: row.node_id,
            boot_id: row.boot_id,
            lane: row.lane,
            seq: row.seq,
            class: row.class,
            org_id: row.org_id,
            server_id: row.server_id,
            texts: [
                &row.server,
                &row.subject,
                &row.credential_id,
                &row.client_address,
                &row.method,
                &row.target,
                &row.client_protocol_version,
                &row.client_transport,
                &row.client_era,
                &row.server_transport,
                &row.server_era,
                &row.rule_id,
                &row.rule,
                &row.mode,
                &row.reason,
                &row.session,
                &row.shadow_rule_id,
            ],
            lists: [&row.roles, &row.groups],
            via: row.via,
            decision: row.decision,
            config_epoch: row.config_epoch,
            config_version: row.config_version,
            request_bytes: row.request_bytes,
            octets: [&row.org_digest, &row.arguments_digest],
            shadow_decision: row.shadow_decision,
        }
    }

    /// Of a row that its end has begun: nothing but where the end came from.
    pub fn blank(lane: LaneId) -> Self {
        Self { node_id: lane.node_id, boot_id: lane.boot_id, lane: lane.lane, ..Self::default() }
    }

    pub fn hash(&self, key: Key) -> Hash {
        let mut canon = begin("mcpgw decided 1", key);
        canon.id(self.node_id).id(self.boot_id).number(self.lane).number(self.seq).number(self.class);
        canon.optional_id(self.org_id).optional_id(self.server_id);
        for text in self.texts {
            canon.text(text);
        }
        for list in self.lists {
            canon.each(list, |canon, text| _ = canon.text(text));
        }
        canon.number(self.via).number(self.decision).number(self.config_epoch).number(self.config_version);
        canon.number(self.request_bytes).number(self.shadow_decision);
        for octets in self.octets {
            canon.octets(octets);
        }
        canon.hash()
    }
}

/// The columns that the ended frame fills.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ended<'a> {
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: Option<i16>,
    pub status: i32,
    pub error_code: i32,
    pub response_bytes: i64,
    pub upstream: &'a str,
    pub decide_us: i64,
    pub upstream_us: i64,
    pub total_us: i64,
    pub stage_us: Cow<'a, [i64]>,
    pub events: i64,
}

impl<'a> Ended<'a> {
    /// As [`crate::store::ingest`] stores it.
    pub fn of_frame(end: &'a End) -> Self {
        let of = &end.ended;
        Self {
            ended_at: Some(end.ended_at),
            outcome: Some(small(of.outcome)),
            status: i32::try_from(of.status).unwrap_or_default(),
            error_code: of.error_code,
            response_bytes: number(of.response_bytes),
            upstream: &of.upstream,
            decide_us: of.decide_us.into(),
            upstream_us: of.upstream_us.into(),
            total_us: of.total_us.into(),
            stage_us: of.stage_us.iter().map(|us| i64::from(*us)).collect(),
            events: of.events.into(),
        }
    }

    pub fn of_row(row: &'a Stored) -> Self {
        Self {
            ended_at: row.ended_at,
            outcome: row.outcome,
            status: row.status,
            error_code: row.error_code,
            response_bytes: row.response_bytes,
            upstream: &row.upstream,
            decide_us: row.decide_us,
            upstream_us: row.upstream_us,
            total_us: row.total_us,
            stage_us: Cow::Borrowed(&row.stage_us),
            events: row.events,
        }
    }

    /// The node is the row's: only the node that began a row may end it.
    pub fn hash(&self, key: Key, node: Uuid) -> Hash {
        let mut canon = begin("mcpgw ended 1", key);
        canon.id(node).number(self.ended_at.map_or(-1, |at| at.timestamp_micros())).number(self.outcome.unwrap_or(-1));
        canon.number(self.status).number(self.error_code).number(self.response_bytes).text(self.upstream);
        canon.number(self.decide_us).number(self.upstream_us).number(self.total_us).number(self.events);
        canon.each(&self.stage_us, |canon, us| _ = canon.number(*us));
        canon.hash()
    }
}

/// That a call counts as interrupted, and since when.
pub fn interrupted(key: Key, at: Option<DateTime<Utc>>) -> Hash {
    begin("mcpgw interrupted 1", key).number(at.map_or(-1, |at| at.timestamp_micros())).hash()
}

fn begin(kind: &str, (decided_at, request_id): Key) -> Canon {
    let mut canon = Canon::new(kind);
    canon.moment(decided_at).id(request_id);
    canon
}

/// As the columns of type `smallint` get it.
fn small(value: i32) -> i16 {
    i16::try_from(value).unwrap_or_default()
}
