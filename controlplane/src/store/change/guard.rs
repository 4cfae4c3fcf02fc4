//! What a change must not do, however valid: remove most of an organisation unless it is forced, which is a mistake more often than a wish;
//! change what an open rollout is about.
//!
//! Looks at what a change touched. Called by [`super::Change`] only.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Kind, Touched};
use crate::{
    domain::diff,
    store::{Error, rollouts},
};

/// Refuses to remove more than half of the servers, policies and limits of an organisation, and more than one of them.
pub async fn keeps_most(tx: &mut PgConnection, touched: &[Touched]) -> Result<(), Error> {
    let mut orgs: BTreeMap<Uuid, (&str, Vec<diff::Step>)> = BTreeMap::new();
    for touched in touched.iter().filter(|touched| matches!(touched.kind, Kind::Server | Kind::Policy | Kind::RateLimit)) {
        let Some((id, slug)) = &touched.org else { continue };
        orgs.entry(*id).or_insert((slug, Vec::new())).1.push(touched.step());
    }
    for (id, (slug, steps)) in orgs {
        let folded = diff::fold(steps);
        let count = |operation: &str| folded.iter().filter(|step| step.operation == operation).count();
        let (made, removed) = (count("create"), count("delete"));
        if removed <= 1 {
            continue;
        }
        let left = usize::try_from(count_left(tx, id).await?).unwrap_or_default();
        let before = (left + removed).saturating_sub(made);
        if removed * 2 > before {
            return Err(Error::Precondition(format!(
                "this removes {removed} of the {before} servers, policies and limits of organizations/{slug}: if that is meant, say so \
                 (--force; over the API the metadata mcpgw-force: true)"
            )));
        }
    }
    Ok(())
}

/// Refuses to change what an open rollout is about. Identities are not: what is revoked is revoked everywhere, at once.
pub async fn waits_for_no_rollout(tx: &mut PgConnection, touched: &[Touched]) -> Result<(), Error> {
    let about = |touched: &&Touched| matches!(touched.kind, Kind::Organization | Kind::Server | Kind::Policy | Kind::RateLimit);
    let ids: BTreeSet<Uuid> = touched.iter().filter(about).filter_map(|t| Some(t.org.as_ref()?.0)).collect();
    for id in ids {
        if let Some(open) = rollouts::open_of(tx, id).await? {
            let why = format!(
                "{open} is not over: until then servers, policies, limits and settings stay as they are; wait for it, or abort it \
                 (mcpgw config rollout abort)"
            );
            return Err(Error::Precondition(why));
        }
    }
    Ok(())
}

async fn count_left(tx: &mut PgConnection, org: Uuid) -> Result<i64, Error> {
    let count = "SELECT (SELECT count(*) FROM mcp_servers WHERE org_id = $1) + (SELECT count(*) FROM policies WHERE org_id = $1) \
        + (SELECT count(*) FROM rate_limits WHERE org_id = $1)";
    Ok(sqlx::query_scalar(count).bind(org).fetch_one(tx).await?)
}
