//! What the guard against vanished rows reads: what was published last of each pool, and what the change log accounts for.
//!
//! Called by `publish`; the counts are written with the scope they are of ([`super::publish`]).

use std::collections::{BTreeMap, BTreeSet};

use mcp_gateway::snapshot::Version;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Error, Store};

/// How much of an organisation is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    #[serde(rename = "s", default)]
    pub servers: u32,
    #[serde(rename = "p", default)]
    pub policies: u32,
    #[serde(rename = "l", default)]
    pub limits: u32,
}

impl Rows {
    /// Whether there is no less of anything.
    pub fn covers(&self, other: &Self) -> bool {
        self.servers >= other.servers && self.policies >= other.policies && self.limits >= other.limits
    }
}

/// By organisation. The form of `config_scope.counts`.
pub type Counts = BTreeMap<Uuid, Rows>;

/// Organisations, servers, policies and limits in the tables.
pub type Totals = (i64, i64, i64, i64);

/// What the change log says of a span of versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounted {
    /// Created less deleted servers, policies and limits.
    pub net: BTreeMap<Uuid, (i64, i64, i64)>,
    /// Organisations.
    pub deleted: BTreeSet<Uuid>,
    /// An operator let the pool's losses through.
    pub accepted: bool,
}

impl Store {
    /// What of a pool was published last, by any replica, and the version of that.
    pub async fn scope_counts(&self, pool: &str) -> Result<Option<(Version, Counts)>, Error> {
        let row: Option<(i64, i64, Option<Json<Counts>>)> =
            sqlx::query_as("SELECT epoch, version, counts FROM config_scope WHERE pool = $1")
                .bind(pool)
                .fetch_optional(self.pool())
                .await?;
        let known = |(epoch, version, counts): (i64, i64, Option<Json<Counts>>)| {
            Some((Version { epoch: epoch.unsigned_abs(), version: version.unsigned_abs() }, counts?.0))
        };
        Ok(row.and_then(known))
    }

    /// What was recorded after version `from` up to version `to`.
    pub async fn accounted(&self, pool: &str, from: Version, to: Version) -> Result<Accounted, Error> {
        let rows: Vec<(Option<Uuid>, String, String, i64)> = sqlx::query_as(
            "SELECT org_id, kind, operation, count(*) FROM config_change WHERE (epoch, version) > ($1, $2) AND (epoch, version) <= ($3, $4) \
             AND (kind IN ('server', 'policy', 'rate_limit', 'organization') AND operation <> 'update' OR kind = 'pool' AND resource = $5) \
             GROUP BY org_id, kind, operation",
        )
        .bind(from.epoch.cast_signed())
        .bind(from.version.cast_signed())
        .bind(to.epoch.cast_signed())
        .bind(to.version.cast_signed())
        .bind(format!("pools/{pool}"))
        .fetch_all(self.pool())
        .await?;
        let mut accounted = Accounted::default();
        for (org, kind, operation, count) in rows {
            let count = if operation == "delete" { -count } else { count };
            match (kind.as_str(), org) {
                ("pool", _) => accounted.accepted = true,
                ("server", Some(org)) => accounted.net.entry(org).or_default().0 += count,
                ("policy", Some(org)) => accounted.net.entry(org).or_default().1 += count,
                ("rate_limit", Some(org)) => accounted.net.entry(org).or_default().2 += count,
                ("organization", Some(org)) if operation == "delete" => _ = accounted.deleted.insert(org),
                _ => {}
            }
        }
        Ok(accounted)
    }

    /// How much there is in the tables, whatever the versions say.
    pub async fn totals(&self) -> Result<Totals, Error> {
        let count = "SELECT (SELECT count(*) FROM organizations), (SELECT count(*) FROM mcp_servers), \
            (SELECT count(*) FROM policies), (SELECT count(*) FROM rate_limits)";
        Ok(sqlx::query_as(count).fetch_one(self.pool()).await?)
    }
}
