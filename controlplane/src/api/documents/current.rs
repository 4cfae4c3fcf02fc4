//! What there is now of what a document is about. Read once, under the lock of the organisation.

use std::collections::{BTreeMap, BTreeSet};

use mcp_gateway::proto::admin::v1::OrganizationDocument;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{ApiKey, Membership, Organization, Policy, RateLimit, Server},
    store::{self, Error},
};

/// Everything that a plan compares a document with.
#[derive(Debug, Default)]
pub struct Current {
    /// None: it is to be created.
    pub organization: Option<Organization>,
    /// By slug.
    pub servers: BTreeMap<String, Server>,
    /// By name.
    pub policies: BTreeMap<String, Policy>,
    /// By name.
    pub limits: BTreeMap<String, RateLimit>,
    /// By email address in lower case.
    pub members: BTreeMap<String, Membership>,
    /// By id; revoked ones, too.
    pub keys: BTreeMap<String, ApiKey>,
    /// Users beside the members whom the document names, by email address in lower case. Only looked up for platform administrators: to
    /// others, who has an account is nobody's business.
    pub users: BTreeMap<String, Uuid>,
    /// Key ids of the document that other organisations have.
    pub taken: BTreeSet<String>,
}

impl Current {
    /// What there is of an organisation.
    pub async fn of(connection: &mut PgConnection, organization: Organization) -> Result<Self, Error> {
        let id = organization.id;
        let mut current = Self::default();
        if let Some(rows) = store::orgs::rows(connection, id).await? {
            current.servers = rows.servers.into_iter().map(|server| (server.slug.clone(), server)).collect();
            current.policies = rows.policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect();
            current.limits = rows.limits.into_iter().map(|limit| (limit.name.clone(), limit)).collect();
        }
        let members = store::memberships::list(connection, id, None, i64::MAX).await?;
        current.members = members.into_iter().map(|member| (member.email.to_lowercase(), member)).collect();
        let keys = store::api_keys::page(connection, id, "", i64::MAX).await?;
        current.keys = keys.into_iter().map(|key| (key.id.clone(), key)).collect();
        Ok(Self { organization: Some(organization), ..current })
    }

    /// Adds what lies outside of the organisation.
    pub async fn look_around(
        &mut self,
        connection: &mut PgConnection,
        document: &OrganizationDocument,
        platform: bool,
    ) -> Result<(), Error> {
        for email in document.members.keys().map(|email| email.to_lowercase()) {
            if platform
                && !self.members.contains_key(&email)
                && let Some(found) = store::users::by_email(connection, &email).await?
            {
                self.users.insert(email, found.user.id);
            }
        }
        for id in document.api_keys.keys() {
            if !self.keys.contains_key(id) && store::api_keys::exists(connection, id).await? {
                self.taken.insert(id.clone());
            }
        }
        Ok(())
    }
}
