//! A whole organisation as nodes will know it. Read by the change transaction and by `publish`.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use crate::domain::{Organization, bundle::OrgRows};

/// Everything of one organisation that goes into its bundles; none: it does not exist.
pub async fn rows(connection: &mut PgConnection, id: Uuid) -> Result<Option<OrgRows>, Error> {
    let found = sqlx::query_as("SELECT * FROM organizations WHERE id = $1").bind(id).fetch_optional(&mut *connection).await?;
    match found {
        Some(organization) => rows_of(connection, organization).await.map(Some),
        None => Ok(None),
    }
}

/// Everything of every organisation of a pool, in the order of their ids.
pub async fn rows_of_pool(connection: &mut PgConnection, pool: &str) -> Result<Vec<OrgRows>, Error> {
    let organizations: Vec<Organization> =
        sqlx::query_as("SELECT * FROM organizations WHERE pool = $1 ORDER BY id").bind(pool).fetch_all(&mut *connection).await?;
    let mut found = Vec::with_capacity(organizations.len());
    for organization in organizations {
        found.push(rows_of(connection, organization).await?);
    }
    Ok(found)
}

async fn rows_of(connection: &mut PgConnection, organization: Organization) -> Result<OrgRows, Error> {
    let servers = sqlx::query_as("SELECT * FROM mcp_servers WHERE org_id = $1 ORDER BY id")
        .bind(organization.id)
        .fetch_all(&mut *connection)
        .await?;
    let policies = sqlx::query_as("SELECT * FROM policies WHERE org_id = $1 ORDER BY id")
        .bind(organization.id)
        .fetch_all(connection)
        .await?;
    Ok(OrgRows { organization, servers, policies })
}
