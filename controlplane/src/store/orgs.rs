//! Whole organisations as nodes will know them. Read by the change transaction and by `publish`.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use crate::domain::{Organization, Policy, Server, bundle::OrgRows};

/// Everything of one organisation that goes into its bundles; none: it does not exist.
pub async fn rows(connection: &mut PgConnection, id: Uuid) -> Result<Option<OrgRows>, Error> {
    Ok(rows_of(connection, &[id]).await?.pop())
}

/// The same of several organisations, by id; those that do not exist are left out. As many queries as for one.
pub async fn rows_of(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<OrgRows>, Error> {
    let organizations: Vec<Organization> = sqlx::query_as("SELECT * FROM organizations WHERE id = ANY($1) ORDER BY id")
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
    let servers: Vec<Server> = sqlx::query_as("SELECT * FROM mcp_servers WHERE org_id = ANY($1) ORDER BY id")
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
    let policies: Vec<Policy> =
        sqlx::query_as("SELECT * FROM policies WHERE org_id = ANY($1) ORDER BY id").bind(ids).fetch_all(connection).await?;
    let mut servers = by_org(servers, |server| server.org_id);
    let mut policies = by_org(policies, |policy| policy.org_id);
    let whole = |organization: Organization| OrgRows {
        servers: servers.remove(&organization.id).unwrap_or_default(),
        policies: policies.remove(&organization.id).unwrap_or_default(),
        organization,
    };
    Ok(organizations.into_iter().map(whole).collect())
}

fn by_org<T>(rows: Vec<T>, org: impl Fn(&T) -> Uuid) -> BTreeMap<Uuid, Vec<T>> {
    let mut grouped: BTreeMap<Uuid, Vec<T>> = BTreeMap::new();
    for row in rows {
        grouped.entry(org(&row)).or_default().push(row);
    }
    grouped
}
