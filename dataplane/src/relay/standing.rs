//! Whether the caller of a stream may still have it: judged again whenever the configuration or the revocations change.
//!
//! Registered before it is judged, so that a change between the request's decision and the stream's start is seen.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mcp_gateway::proto::node::v1::Via;
use mcp_gateway::snapshot::{Ask, Org, Server};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use crate::live::Live;
use crate::pipeline::authenticate::Principal;

/// The caller of a stream, and what it is judged by now.
pub struct Standing {
    live: Arc<Live>,
    changes: WatchStream<u64>,
    principal: Arc<Principal>,
    org: Arc<Org>,
    server: Arc<Server>,
}

/// Why a stream has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the caller's credential was revoked")]
    Revoked,
    #[error("the key that signed the caller's token was withdrawn")]
    KeyGone,
    #[error("the server is not there any more")]
    ServerGone,
    #[error("no rule allows the caller anything on the server any more")]
    NothingGranted,
}

impl Standing {
    /// Registers the caller, then judges it again: what changed since its request was decided counts.
    pub fn register(live: Arc<Live>, principal: Arc<Principal>, org: Arc<Org>, server: Arc<Server>) -> Result<Self, Lost> {
        let changes = WatchStream::from_changes(live.changed());
        let mut standing = Self { live, changes, principal, org, server };
        standing.judge()?;
        Ok(standing)
    }

    /// Organisation, server and principal as they are now.
    pub fn parties(&self) -> (Arc<Org>, Arc<Server>, Arc<Principal>) {
        (self.org.clone(), self.server.clone(), self.principal.clone())
    }

    /// The caller has proved who it is again; what it may do has perhaps changed since.
    pub fn assume(&mut self, principal: Arc<Principal>) {
        if !Arc::ptr_eq(&principal, &self.principal)
            && principal.subject == self.principal.subject
            && principal.via == self.principal.via
        {
            self.principal = principal;
        }
    }

    pub fn org(&self) -> &Org {
        &self.org
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Judges again if something changed; wakes the task when something does.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), Lost> {
        let mut changed = false;
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(cx) {
            changed = true;
        }
        if changed { self.judge() } else { Ok(()) }
    }

    fn judge(&mut self) -> Result<(), Lost> {
        if self.principal.revoked(&self.live.revocations()) {
            return Err(Lost::Revoked);
        }
        let config = self.live.snapshot().ok_or(Lost::ServerGone)?;
        let (org, server) = config.server(&self.server.id).ok_or(Lost::ServerGone)?;
        match self.principal.via {
            Via::ApiKey => {
                // A key's roles are the configuration's; a token's are its own until it expires.
                let key = config.api_key(&self.principal.credential_id).ok_or(Lost::Revoked)?;
                let now = Principal::of_key(key);
                if now != *self.principal {
                    self.principal = Arc::new(now);
                }
            }
            Via::Jwt => {
                let proof = self.principal.proof.as_ref().ok_or(Lost::KeyGone)?;
                proof.issuer(Some(org), &config).ok_or(Lost::KeyGone)?;
            }
            Via::Anonymous if !server.allow_anonymous => return Err(Lost::NothingGranted),
            Via::Anonymous | Via::Certificate | Via::Unspecified => {}
        }
        if !org.judge(server, &self.principal.subject(), Ask::Something).allowed {
            return Err(Lost::NothingGranted);
        }
        (self.org, self.server) = (org.clone(), server.clone());
        Ok(())
    }
}
