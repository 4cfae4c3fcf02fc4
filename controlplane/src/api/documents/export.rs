//! An organisation as the document that says of it what is. What only answers carry is left out, and so is what was revoked.

use std::collections::BTreeMap;

use mcp_gateway::proto::{
    admin::v1::{DocumentKey, DocumentMember, OrganizationDocument, Policy, RateLimit, Server},
    config::v1::Subjects,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::{aip, error::Error, policies, rate_limits, servers};
use super::current::Current;
use crate::domain::{self, ApiKey, Organization};

/// The document of an organisation. Users are named by their email addresses, which mean the same in another installation.
pub async fn document(connection: &mut PgConnection, organization: Organization) -> Result<OrganizationDocument, Error> {
    let org = organization.clone();
    let current = Current::of(connection, organization).await?;
    let emails: BTreeMap<Uuid, &str> = current.members.values().map(|member| (member.user_id, member.email.as_str())).collect();
    let member = |member: &domain::Membership| {
        let place =
            DocumentMember { role: member.role.into(), policy_roles: member.policy_roles.clone(), groups: member.groups.clone() };
        (member.email.clone(), place)
    };
    Ok(OrganizationDocument {
        display_name: org.display_name,
        pool: org.pool,
        allowed_origins: org.allowed_origins,
        audit_full: org.audit_full,
        audit_sync: org.audit_sync,
        capture: org.capture.into(),
        request_log_retention_days: org.request_log_retention_days,
        audit_log_retention_days: org.audit_log_retention_days,
        servers: current.servers.values().map(|it| (it.slug.clone(), server(&org.slug, it))).collect(),
        policies: current.policies.values().map(|it| (it.name.clone(), policy(&org.slug, it, &emails))).collect(),
        limits: current.limits.values().map(|it| (it.name.clone(), limit(&org.slug, it, &emails))).collect(),
        members: current.members.values().map(member).collect(),
        api_keys: current
            .keys
            .values()
            .filter(|key| key.revoked_at.is_none())
            .map(|it| (it.id.clone(), key(it, &emails)))
            .collect(),
        organization: org.slug,
    })
}

fn server(org: &str, row: &domain::Server) -> Server {
    Server {
        name: String::new(),
        endpoint_path: String::new(),
        uid: String::new(),
        etag: String::new(),
        create_time: None,
        update_time: None,
        config_version: 0,
        ..servers::fields::message(org, row)
    }
}

fn policy(org: &str, row: &domain::Policy, emails: &BTreeMap<Uuid, &str>) -> Policy {
    let mut message = policies::fields::message(org, row);
    by_email(message.subjects.as_mut(), emails);
    Policy {
        name: String::new(),
        uid: String::new(),
        etag: String::new(),
        create_time: None,
        update_time: None,
        config_version: 0,
        ..message
    }
}

fn limit(org: &str, row: &domain::RateLimit, emails: &BTreeMap<Uuid, &str>) -> RateLimit {
    let mut message = rate_limits::fields::message(org, row);
    by_email(message.subjects.as_mut(), emails);
    RateLimit {
        name: String::new(),
        uid: String::new(),
        etag: String::new(),
        create_time: None,
        update_time: None,
        config_version: 0,
        ..message
    }
}

fn by_email(subjects: Option<&mut Subjects>, emails: &BTreeMap<Uuid, &str>) {
    for user in subjects.into_iter().flat_map(|subjects| &mut subjects.users) {
        let email = Uuid::try_parse(user).ok().and_then(|id| emails.get(&id));
        if let Some(email) = email {
            (*email).clone_into(user);
        }
    }
}

fn key(row: &ApiKey, emails: &BTreeMap<Uuid, &str>) -> DocumentKey {
    let user = row.user_id.and_then(|id| emails.get(&id)).map(|email| (*email).to_owned());
    DocumentKey {
        display_name: row.display_name.clone(),
        user: user.unwrap_or_default(),
        policy_roles: row.policy_roles.clone(),
        groups: row.groups.clone(),
        expire_time: row.expires_at.map(aip::timestamp),
        secret_sha256: hex::encode(&row.secret_sha256),
    }
}
