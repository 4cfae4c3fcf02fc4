//! Who a request comes from, as far as it has been proved.

use std::sync::Arc;

use mcp_gateway::proto::node::v1::Via;
use mcp_gateway::snapshot::{ApiKey, Subject};

use super::token::Proof;
use crate::live::Revocations;

/// The subject of callers without a credential.
pub const ANONYMOUS: &str = "anonymous";

/// A recognised caller. Shared by the token cache, the request and its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The organisation the principal belongs to, a UUID.
    pub org_id: Arc<str>,
    /// A user id, `key:<key id>`, or [`ANONYMOUS`].
    pub subject: String,
    /// Role names.
    pub roles: Vec<String>,
    /// Group names.
    pub groups: Vec<String>,
    /// How it was proved.
    pub via: Via,
    /// API key id or the token's `jti`; empty without one.
    pub credential_id: String,
    /// The login session (`sid`) of a token.
    pub login_session: Option<String>,
    /// The key that a token was signed with.
    pub proof: Option<Arc<Proof>>,
    /// When a token was issued (`iat`), in seconds since the Unix epoch.
    pub issued_at: Option<i64>,
    /// When the proof stops holding, in seconds since the Unix epoch.
    pub expires_at: Option<i64>,
}

impl Principal {
    /// A caller without a credential on a server of `org_id`.
    pub fn anonymous(org_id: Arc<str>) -> Self {
        Self {
            org_id,
            subject: ANONYMOUS.into(),
            roles: Vec::new(),
            groups: Vec::new(),
            via: Via::Anonymous,
            credential_id: String::new(),
            login_session: None,
            proof: None,
            issued_at: None,
            expires_at: None,
        }
    }

    /// Whoever holds the key.
    pub fn of_key(key: &ApiKey) -> Self {
        Self {
            org_id: key.org_id.as_str().into(),
            subject: key.subject.clone(),
            roles: key.roles.clone(),
            groups: key.groups.clone(),
            via: Via::ApiKey,
            credential_id: key.key_id.clone(),
            login_session: None,
            proof: None,
            issued_at: None,
            expires_at: key.expires_at,
        }
    }

    /// What decisions are made about.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            subject: &self.subject,
            api_key: (self.via == Via::ApiKey).then_some(self.credential_id.as_str()),
            roles: &self.roles,
            groups: &self.groups,
            anonymous: self.via == Via::Anonymous,
        }
    }

    /// Whether the proof was taken back before it expired.
    pub fn revoked(&self, revocations: &Revocations) -> bool {
        match self.via {
            Via::Unspecified | Via::Anonymous | Via::Certificate => false,
            Via::ApiKey => revocations.key_revoked(&self.credential_id),
            Via::Jwt => {
                self.login_session.as_deref().is_some_and(|sid| revocations.session_revoked(sid))
                    // A token that does not say when it was issued cannot prove that it is newer.
                    || revocations.subject_void(&self.subject, self.issued_at.unwrap_or(0))
            }
        }
    }
}
