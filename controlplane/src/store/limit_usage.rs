//! Rows of `limit_usage`: how full counts are, as each node last reported.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, types::Json};
use uuid::Uuid;

use super::Error;
use crate::domain::{
    Organization,
    usage::{Count, Told},
};

/// What the nodes of an organisation's pool told of it.
#[derive(Debug, Default)]
pub struct Reports {
    pub told: Vec<Told>,
    /// Nodes that reported lately.
    pub reporting: u32,
    /// Nodes that are there and did not.
    pub silent: u32,
}

#[derive(FromRow)]
struct Row {
    node_id: Uuid,
    reported_at: Option<DateTime<Utc>>,
    counts: Option<Json<Vec<Count>>>,
}

/// Takes the place of what the node reported before. It is believed about organisations of its pool only.
pub(super) async fn note(connection: &mut PgConnection, node: Uuid, usage: &BTreeMap<Uuid, Vec<Count>>) -> Result<(), Error> {
    let orgs: Vec<Uuid> = usage.keys().copied().collect();
    let gone = sqlx::query("DELETE FROM limit_usage WHERE node_id = $1 AND org_id <> ALL ($2)");
    gone.bind(node).bind(&orgs).execute(&mut *connection).await?;
    if orgs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO limit_usage (node_id, org_id, counts) \
         SELECT n.id, o.id, r.counts FROM unnest($2::uuid[], $3::jsonb[]) AS r (org_id, counts) \
         JOIN organizations o ON o.id = r.org_id JOIN nodes n ON n.id = $1 AND n.pool = o.pool \
         ON CONFLICT (node_id, org_id) DO UPDATE SET counts = excluded.counts",
    )
    .bind(node)
    .bind(&orgs)
    .bind(usage.values().map(Json).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// What nodes of the organisation's pool that were heard of within the last 45 s reported.
pub async fn of(connection: &mut PgConnection, org: &Organization) -> Result<Reports, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT s.node_id, u.counts, CASE WHEN s.reported_at > now() - interval '45 seconds' THEN s.reported_at END AS reported_at \
         FROM node_status s JOIN nodes n ON n.id = s.node_id AND n.revoked_at IS NULL \
         LEFT JOIN limit_usage u ON u.node_id = s.node_id AND u.org_id = $2 \
         WHERE n.pool = $1 AND greatest(s.last_seen_at, s.reported_at) > now() - interval '45 seconds'",
    )
    .bind(&org.pool)
    .bind(org.id)
    .fetch_all(connection)
    .await?;
    let mut reports = Reports::default();
    for Row { node_id: node, reported_at, counts } in rows {
        let Some(at) = reported_at else {
            reports.silent += 1;
            continue;
        };
        reports.reporting += 1;
        reports.told.extend(counts.map(|Json(counts)| Told { node, at, counts }));
    }
    Ok(reports)
}

/// The names of an organisation's limits.
pub async fn names(connection: &mut PgConnection, org: Uuid) -> Result<BTreeMap<Uuid, String>, Error> {
    let rows = sqlx::query_as("SELECT id, name FROM rate_limits WHERE org_id = $1").bind(org).fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}
