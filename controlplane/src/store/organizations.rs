//! Rows of `organizations`.

use sqlx::PgConnection;

use super::Error;
use crate::domain::Organization;

/// The organisation of that slug.
pub async fn by_slug(connection: &mut PgConnection, slug: &str) -> Result<Option<Organization>, Error> {
    Ok(sqlx::query_as("SELECT * FROM organizations WHERE slug = $1").bind(slug).fetch_optional(connection).await?)
}

/// The organisation of that slug, held until the end of the transaction: changes within one organisation wait for each other, so
/// that what one of them checked is still true when it commits.
pub async fn hold(connection: &mut PgConnection, slug: &str) -> Result<Option<Organization>, Error> {
    let held = "SELECT * FROM organizations WHERE slug = $1 FOR NO KEY UPDATE";
    Ok(sqlx::query_as(held).bind(slug).fetch_optional(connection).await?)
}
