//! How rows become nouns. One place, so that a column and its meaning meet once.

use mcp_gateway::proto::admin::v1::Role;
use sqlx::{FromRow, Row as _, postgres::PgRow, types::Json};

use crate::domain::{ApiKey, Capture, Credential, Membership, Meta, Organization, Policy, RateLimit, Server, User};

type Read<T> = Result<T, sqlx::Error>;

fn meta(row: &PgRow) -> Read<Meta> {
    Ok(Meta {
        revision: row.try_get("revision")?,
        config_version: row.try_get("config_version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn small(row: &PgRow, column: &str) -> Read<i32> {
    Ok(i32::from(row.try_get::<i16, _>(column)?))
}

/// An enum's number as its column has it. What does not fit is a number that no version knows: the check of the change refuses it.
pub(super) fn small_of(number: i32) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

impl FromRow<'_, PgRow> for Organization {
    fn from_row(row: &PgRow) -> Read<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            slug: row.try_get("slug")?,
            display_name: row.try_get("display_name")?,
            allowed_origins: row.try_get("allowed_origins")?,
            audit_full: small(row, "audit_full")?,
            pool: row.try_get("pool")?,
            request_log_retention_days: row.try_get("request_log_retention_days")?,
            audit_sync: small(row, "audit_sync")?,
            capture: Capture {
                arguments: row.try_get("capture_arguments")?,
                results: row.try_get("capture_results")?,
                max_bytes: row.try_get("capture_max_bytes")?,
                redact: row.try_get("capture_redact")?,
                retention_days: row.try_get("capture_retention_days")?,
            },
            audit_log_retention_days: row.try_get("audit_log_retention_days")?,
            meta: meta(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for User {
    fn from_row(row: &PgRow) -> Read<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            email: row.try_get("email")?,
            display_name: row.try_get("display_name")?,
            disabled: row.try_get("disabled")?,
            platform_admin: row.try_get("platform_admin")?,
            meta: meta(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for Membership {
    fn from_row(row: &PgRow) -> Read<Self> {
        Ok(Self {
            org_id: row.try_get("org_id")?,
            user_id: row.try_get("user_id")?,
            email: row.try_get("email")?,
            role: Role::try_from(small(row, "role")?).unwrap_or(Role::Unspecified), // a role of a later version: none
            policy_roles: row.try_get("policy_roles")?,
            groups: row.try_get("groups")?,
            meta: meta(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for ApiKey {
    fn from_row(row: &PgRow) -> Read<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            uid: row.try_get("uid")?,
            org_id: row.try_get("org_id")?,
            user_id: row.try_get("user_id")?,
            display_name: row.try_get("display_name")?,
            secret_sha256: row.try_get("secret_sha256")?,
            policy_roles: row.try_get("policy_roles")?,
            groups: row.try_get("groups")?,
            expires_at: row.try_get("expires_at")?,
            revoked_at: row.try_get("revoked_at")?,
            meta: meta(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for Server {
    fn from_row(row: &PgRow) -> Read<Self> {
        let header: Option<String> = row.try_get("credential_header")?;
        let wrapped: Option<Vec<u8>> = row.try_get("credential_wrapped")?;
        let set_at = row.try_get("credential_set_at")?;
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            slug: row.try_get("slug")?,
            display_name: row.try_get("display_name")?,
            transport: small(row, "transport")?,
            era: small(row, "era")?,
            endpoints: row.try_get::<Json<_>, _>("endpoints")?.0,
            allow_anonymous: row.try_get("allow_anonymous")?,
            disabled: row.try_get("disabled")?,
            credential: header.zip(wrapped).map(|(header, wrapped)| Credential { header, wrapped, set_at }),
            call_timeout_ms: row.try_get("call_timeout_ms")?,
            max_body_bytes: row.try_get("max_body_bytes")?,
            stdio: row.try_get::<Option<Json<_>>, _>("stdio")?.map(|stdio| stdio.0),
            client_transports: row.try_get::<Json<_>, _>("client_transports")?.0,
            legacy_sessions: small(row, "legacy_sessions")?,
            meta: meta(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for Policy {
    fn from_row(row: &PgRow) -> Read<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            name: row.try_get("name")?,
            display_name: row.try_get("display_name")?,
            effect: small(row, "effect")?,
            mode: small(row, "mode")?,
            subjects: row.try_get::<Json<_>, _>("subjects")?.0,
            servers: row.try_get("servers")?,
            matches: row.try_get::<Json<_>, _>("match")?.0,
            when: row.try_get("when")?,
            meta: meta(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for RateLimit {
    fn from_row(row: &PgRow) -> Read<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            name: row.try_get("name")?,
            spec: row.try_get::<Json<_>, _>("spec")?.0,
            meta: meta(row)?,
        })
    }
}
