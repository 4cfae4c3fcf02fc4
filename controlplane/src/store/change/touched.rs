//! What a change touched: which resource, how, and what it was before and is after. What `config_change` and the audit log say.
//!
//! Filled by the nouns of `api`; read by [`super::Change`] only.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::diff::Step,
    store::{Error, rollouts},
};

/// The kind of a touched resource, as records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Organization,
    User,
    Membership,
    ApiKey,
    Server,
    Policy,
    RateLimit,
    Session,
    Node,
    JoinToken,
    CustodyKey,
    Rollout,
    /// What a pool's nodes get.
    Pool,
    /// Of versions.
    Epoch,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::User => "user",
            Self::Membership => "membership",
            Self::ApiKey => "api_key",
            Self::Server => "server",
            Self::Policy => "policy",
            Self::RateLimit => "rate_limit",
            Self::Session => "session",
            Self::Node => "node",
            Self::JoinToken => "join_token",
            Self::CustodyKey => "custody_key",
            Self::Rollout => "rollout",
            Self::Pool => "pool",
            Self::Epoch => "epoch",
        }
    }

    /// Whether it is part of its organisation's bundles, or decides which of them are published.
    pub(super) fn is_bundled(self) -> bool {
        match self {
            Self::Organization | Self::Server | Self::Policy | Self::RateLimit | Self::Rollout => true,
            Self::User | Self::Membership | Self::ApiKey | Self::Session => false,
            Self::Node | Self::JoinToken | Self::CustodyKey | Self::Pool | Self::Epoch => false,
        }
    }
}

/// What was done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// What happened to a resource that was there, or not, and is there now, or not.
    pub fn between<T>(before: Option<&T>, after: Option<&T>) -> Self {
        match (before, after) {
            (None, _) => Self::Create,
            (Some(_), Some(_)) => Self::Update,
            (Some(_), None) => Self::Delete,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// The row that remembers the version of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    Organization(Uuid),
    User(Uuid),
    Membership(Uuid, Uuid),
    ApiKey(String),
    Server(Uuid),
    Policy(Uuid),
    RateLimit(Uuid),
    Rollout(Uuid),
    /// Deleted, or of a kind that does not remember.
    None,
}

/// One resource that a change touched.
#[derive(Debug, Clone)]
pub struct Touched {
    pub kind: Kind,
    pub operation: Operation,
    /// The resource's name.
    pub resource: String,
    /// Id and slug of its organisation.
    pub org: Option<(Uuid, String)>,
    pub row: Row,
    /// Whether nodes must learn of it: then the change makes a version.
    pub reaches_nodes: bool,
    /// The resource's document ([`crate::domain::document`]) as it was. None: it is new, or of a kind of which none is kept.
    pub before: Option<Value>,
    /// As it is now. None: it is gone, or of a kind of which none is kept.
    pub after: Option<Value>,
    /// The sealed credential of a deleted server, for the case that it comes back. Never in a document.
    pub credential: Option<Vec<u8>>,
}

impl Touched {
    /// Something outside organisations that nodes never learn of, and of which no document is kept.
    pub fn aside(kind: Kind, operation: Operation, resource: String) -> Self {
        let (before, after, credential) = (None, None, None);
        Self { kind, operation, resource, org: None, row: Row::None, reaches_nodes: false, before, after, credential }
    }

    /// For comparing.
    pub fn step(&self) -> Step {
        Step {
            org_slug: self.org.as_ref().map(|org| org.1.clone()).unwrap_or_default(),
            kind: self.kind.as_str().into(),
            resource: self.resource.clone(),
            operation: self.operation.as_str().into(),
            before: self.before.clone(),
            after: self.after.clone(),
        }
    }
}

/// Writes the version of a row's last change into it.
pub(super) async fn remember_version(tx: &mut PgConnection, row: &Row, version: i64) -> Result<(), Error> {
    let query = match row {
        Row::Organization(id) => {
            sqlx::query("UPDATE organizations SET config_version = $1 WHERE id = $2").bind(version).bind(*id)
        }
        Row::User(id) => sqlx::query("UPDATE users SET config_version = $1 WHERE id = $2").bind(version).bind(*id),
        Row::Membership(org, user) => {
            sqlx::query("UPDATE memberships SET config_version = $1 WHERE org_id = $2 AND user_id = $3")
                .bind(version)
                .bind(*org)
                .bind(*user)
        }
        Row::ApiKey(id) => sqlx::query("UPDATE api_keys SET config_version = $1 WHERE id = $2").bind(version).bind(id.clone()),
        Row::Server(id) => sqlx::query("UPDATE mcp_servers SET config_version = $1 WHERE id = $2").bind(version).bind(*id),
        Row::Policy(id) => sqlx::query("UPDATE policies SET config_version = $1 WHERE id = $2").bind(version).bind(*id),
        Row::RateLimit(id) => sqlx::query("UPDATE rate_limits SET config_version = $1 WHERE id = $2").bind(version).bind(*id),
        Row::Rollout(id) => return rollouts::remember_version(tx, *id).await,
        Row::None => return Ok(()),
    };
    query.execute(tx).await?;
    Ok(())
}
