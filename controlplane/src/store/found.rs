//! Rows of `found_servers`: what nodes found out about servers, as each last reported it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{Error, rows::small_of};
use crate::domain::found::Found;

/// What one node found out about one server.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    pub server_id: Uuid,
    pub node_id: Uuid,
    /// `config::Transport`.
    pub transport: i16,
    /// `config::Era`.
    pub era: i16,
    pub found_at: DateTime<Utc>,
}

/// Takes the place of what the node reported before; what did not change is not written again. It is believed about servers of its pool only.
pub(super) async fn note(connection: &mut PgConnection, node: Uuid, found: &BTreeMap<Uuid, Found>) -> Result<(), Error> {
    let servers: Vec<Uuid> = found.keys().copied().collect();
    let gone = sqlx::query("DELETE FROM found_servers WHERE node_id = $1 AND server_id <> ALL ($2)");
    gone.bind(node).bind(&servers).execute(&mut *connection).await?;
    if servers.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO found_servers AS f (node_id, server_id, transport, era, found_at) \
         SELECT n.id, s.id, r.transport, r.era, r.found_at \
         FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::timestamptz[]) AS r (server_id, transport, era, found_at) \
         JOIN mcp_servers s ON s.id = r.server_id JOIN organizations o ON o.id = s.org_id \
         JOIN nodes n ON n.id = $1 AND n.pool = o.pool ON CONFLICT (node_id, server_id) DO UPDATE \
         SET transport = excluded.transport, era = excluded.era, found_at = excluded.found_at \
         WHERE (f.transport, f.era, f.found_at) IS DISTINCT FROM (excluded.transport, excluded.era, excluded.found_at)",
    )
    .bind(node)
    .bind(&servers)
    .bind(found.values().map(|found| small_of(found.transport.into())).collect::<Vec<_>>())
    .bind(found.values().map(|found| small_of(found.era.into())).collect::<Vec<_>>())
    .bind(found.values().map(|found| found.at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// What nodes of the servers' pools that reported within the last 45 s found out about them, sorted by server and node.
pub async fn of(connection: &mut PgConnection, servers: &[Uuid]) -> Result<Vec<Row>, Error> {
    let query = sqlx::query_as(
        "SELECT f.server_id, f.node_id, f.transport, f.era, f.found_at FROM found_servers f \
         JOIN mcp_servers s ON s.id = f.server_id JOIN organizations o ON o.id = s.org_id \
         JOIN nodes n ON n.id = f.node_id AND n.pool = o.pool AND n.revoked_at IS NULL \
         JOIN node_status t ON t.node_id = f.node_id AND t.reported_at > now() - interval '45 seconds' \
         WHERE f.server_id = ANY ($1) ORDER BY f.server_id, f.node_id",
    );
    Ok(query.bind(servers).fetch_all(connection).await?)
}
