//! What is hashed of an administrative record: all of it, its number, and the hash of the record before. Pure.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::canon::{Canon, Hash};

/// An administrative record as stored.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    pub number: i64,
    pub id: Uuid,
    pub occurred_at: DateTime<Utc>,
    pub org_id: Option<Uuid>,
    pub org_slug: &'a str,
    pub actor: &'a str,
    pub action: &'a str,
    pub resource: &'a str,
    pub outcome: &'a str,
    pub config_version: i64,
    /// As Postgres writes it: its own normal form.
    pub detail: &'a str,
    pub client_address: &'a str,
    pub arrival: i64,
    pub previous_hash: &'a [u8],
}

impl Record<'_> {
    pub fn hash(&self) -> Hash {
        let mut canon = Canon::new("mcpgw administrative record 1");
        canon.number(self.number).id(self.id).moment(self.occurred_at).optional_id(self.org_id);
        for text in [self.org_slug, self.actor, self.action, self.resource, self.outcome, self.detail, self.client_address] {
            canon.text(text);
        }
        canon.number(self.config_version).number(self.arrival).octets(self.previous_hash).hash()
    }
}
