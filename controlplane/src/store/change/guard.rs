//! A change that removes most of an organisation is refused unless it is forced: it is a mistake more often than a wish.
//!
//! Counts what a change touched against what is left. Called by [`super::Change::seal`] only.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Kind, Touched};
use crate::{domain::diff, store::Error};

/// Refuses to remove more than half of the servers and policies of an organisation, and more than one of them.
pub async fn keeps_most(tx: &mut PgConnection, touched: &[Touched]) -> Result<(), Error> {
    let mut orgs: BTreeMap<Uuid, (&str, Vec<diff::Step>)> = BTreeMap::new();
    for touched in touched.iter().filter(|touched| matches!(touched.kind, Kind::Server | Kind::Policy)) {
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
                "this removes {removed} of the {before} servers and policies of organizations/{slug}: if that is meant, say so \
                 (--force; over the API the metadata mcpgw-force: true)"
            )));
        }
    }
    Ok(())
}

async fn count_left(tx: &mut PgConnection, org: Uuid) -> Result<i64, Error> {
    let count = "SELECT (SELECT count(*) FROM mcp_servers WHERE org_id = $1) + (SELECT count(*) FROM policies WHERE org_id = $1)";
    Ok(sqlx::query_scalar(count).bind(org).fetch_one(tx).await?)
}
