//! Whole organisations as nodes will know them. Read by the change transaction and by `publish`.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, holds::Rows};
use crate::domain::{Organization, Policy, RateLimit, Server, bundle::OrgRows};

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
        sqlx::query_as("SELECT * FROM policies WHERE org_id = ANY($1) ORDER BY id").bind(ids).fetch_all(&mut *connection).await?;
    let limits: Vec<RateLimit> =
        sqlx::query_as("SELECT * FROM rate_limits WHERE org_id = ANY($1) ORDER BY id").bind(ids).fetch_all(connection).await?;
    let mut servers = by_org(servers, |server| server.org_id);
    let mut policies = by_org(policies, |policy| policy.org_id);
    let mut limits = by_org(limits, |limit| limit.org_id);
    let whole = |organization: Organization| OrgRows {
        servers: servers.remove(&organization.id).unwrap_or_default(),
        policies: policies.remove(&organization.id).unwrap_or_default(),
        limits: limits.remove(&organization.id).unwrap_or_default(),
        organization,
    };
    Ok(organizations.into_iter().map(whole).collect())
}

/// As [`rows_of`], for whoever publishes: an organisation with a row that this version does not understand has no servers, policies and
/// limits, and is in the map with the numbers of rows that there are, so that it holds up nobody else.
pub async fn readable_of(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(Vec<OrgRows>, BTreeMap<Uuid, Rows>), Error> {
    match rows_of(connection, ids).await {
        Ok(rows) => return Ok((rows, BTreeMap::new())),
        Err(error) if !error.is_unreadable() => return Err(error),
        Err(_) => {} // told below, by organisation
    }
    let (mut readable, mut unreadable) = (Vec::new(), BTreeMap::new());
    for id in ids {
        match rows(connection, *id).await {
            Ok(rows) => readable.extend(rows),
            Err(cause) if cause.is_unreadable() => {
                let organization = sqlx::query_as("SELECT * FROM organizations WHERE id = $1").bind(id);
                let organization: Organization = organization.fetch_one(&mut *connection).await?;
                let slug = &organization.slug;
                tracing::error!(%cause, "organisation {slug} has a row that cannot be read; nodes keep its last good configuration");
                readable.push(OrgRows::bare(organization));
                unreadable.insert(*id, count(connection, *id).await?);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((readable, unreadable))
}

async fn count(connection: &mut PgConnection, id: Uuid) -> Result<Rows, Error> {
    let all = "SELECT (SELECT count(*) FROM mcp_servers WHERE org_id = $1), (SELECT count(*) FROM policies WHERE org_id = $1), \
        (SELECT count(*) FROM rate_limits WHERE org_id = $1)";
    let (servers, policies, limits): (i64, i64, i64) = sqlx::query_as(all).bind(id).fetch_one(connection).await?;
    let number = |rows: i64| u32::try_from(rows).unwrap_or(u32::MAX);
    Ok(Rows { servers: number(servers), policies: number(policies), limits: number(limits) })
}

fn by_org<T>(rows: Vec<T>, org: impl Fn(&T) -> Uuid) -> BTreeMap<Uuid, Vec<T>> {
    let mut grouped: BTreeMap<Uuid, Vec<T>> = BTreeMap::new();
    for row in rows {
        grouped.entry(org(&row)).or_default().push(row);
    }
    grouped
}
