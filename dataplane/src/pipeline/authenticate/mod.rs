//! Stage three: who sent this. Owns credentials from header to principal; never decides what a principal may do.
//!
//! A bad credential is never anonymous, every bad one gets the same answer, and an unknown server asks for a credential
//! exactly as a known one does.

mod credential;
mod principal;
pub mod ticket;
mod token;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use mcp_gateway::snapshot::{Org, Server, Snapshot};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::decode::Decoded;
use super::denial::AuthenticateDenial;
use super::failures::Proved;
use super::target::Place;
use crate::live::Revocations;
use crate::metrics::Metrics;
use crate::relay::Standing;
use crate::transport::Refusal;
use crate::transport::Version;
use crate::transport::scan::Message;

use credential::Ambiguous;
pub use credential::{Credential, X_API_KEY};
pub use principal::{ANONYMOUS, Principal};
use ticket::Tickets;
pub use token::{LEEWAY_SECONDS, TokenError, Tokens};

/// A call whose sender is known, on a server of the sender's organisation. Only [`verify`] makes one.
pub struct Authenticated {
    call: Decoded,
    org: Arc<Org>,
    server: Arc<Server>,
    principal: Arc<Principal>,
}

/// Recognises callers. Shared by all requests.
pub struct Verifier {
    tokens: Tokens,
    keys: Proved,
    tickets: Tickets,
    metrics: Arc<Metrics>,
}

impl Verifier {
    pub fn new(tokens: Tokens, metrics: Arc<Metrics>) -> Self {
        Self { tokens, keys: Proved::default(), tickets: Tickets::default(), metrics }
    }

    /// Verified tokens that are remembered now.
    pub fn remembered(&self) -> u64 {
        self.tokens.remembered()
    }

    /// What lets sockets in whose clients cannot send headers.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// Whether a request offers nothing to be looked at, or what has held before. It may not hold any more: [`Verifier::recognise`] sees.
    pub fn has_proved(&self, headers: &HeaderMap) -> bool {
        match credential::read(headers) {
            Ok(Credential::None) => true,
            Ok(Credential::ApiKey { secret, .. }) => self.keys.knows(&Sha256::digest(secret).into()),
            Ok(Credential::Token(token)) => self.tokens.knows(token),
            Ok(Credential::Unusable) | Err(Ambiguous) => false,
        }
    }

    /// The sender of a request with these headers; `None` if it carries no credential at all.
    /// `org` is the organisation whose own issuers count, where a server was found.
    pub fn recognise(
        &self,
        headers: &HeaderMap,
        org: Option<&Org>,
        config: &Snapshot,
        revocations: &Revocations,
    ) -> Result<Option<Arc<Principal>>, AuthenticateDenial> {
        let now = seconds_since_epoch();
        let principal = match credential::read(headers).map_err(|_ambiguous| AuthenticateDenial::Ambiguous)? {
            Credential::None => return Ok(None),
            Credential::Unusable => return Err(AuthenticateDenial::Unusable),
            Credential::ApiKey { key_id, secret } => {
                let offered = Sha256::digest(secret).into();
                let principal = api_key(key_id, &offered, config, now)?;
                self.keys.note(&offered);
                Arc::new(principal)
            }
            Credential::Token(token) => {
                let recognised = self.tokens.verify(token, org, config, now).map_err(AuthenticateDenial::Token)?;
                self.metrics.token(recognised.remembered);
                recognised.principal
            }
        };
        if principal.revoked(revocations) {
            return Err(AuthenticateDenial::Revoked);
        }
        Ok(Some(principal))
    }
}

/// Recognises the sender of `call` and checks that the server is of its organisation.
pub fn verify(
    call: Decoded,
    verifier: &Verifier,
    config: &Snapshot,
    revocations: &Revocations,
) -> Result<Authenticated, AuthenticateDenial> {
    let (org, server) = match call.place() {
        Place::Unknown => {
            // Asked first, told later: only who is somebody may learn that there is nothing.
            return Err(match verifier.recognise(call.headers(), None, config, revocations)? {
                None => AuthenticateDenial::Missing,
                Some(_) => AuthenticateDenial::UnknownServer,
            });
        }
        Place::Server { org, server } => (org.clone(), server.clone()),
    };
    let principal = match recognise(&call, verifier, (&org, &server), (config, revocations))? {
        Some(principal) if principal.org_id == org.id => principal,
        Some(_) => return Err(AuthenticateDenial::UnknownServer),
        None if server.allow_anonymous => Arc::new(Principal::anonymous(org.id.clone())),
        None => return Err(AuthenticateDenial::Missing),
    };
    Ok(Authenticated { call, org, server, principal })
}

/// By its ticket where it has one, and by nothing else then.
fn recognise(
    call: &Decoded,
    verifier: &Verifier,
    (org, server): (&Org, &Server),
    (config, revocations): (&Snapshot, &Revocations),
) -> Result<Option<Arc<Principal>>, AuthenticateDenial> {
    let Some(ticket) = call.ticket() else { return verifier.recognise(call.headers(), Some(org), config, revocations) };
    if !matches!(credential::read(call.headers()), Ok(Credential::None)) {
        return Err(AuthenticateDenial::Ambiguous);
    }
    let principal = verifier.tickets.redeem(ticket, &server.id, Instant::now()).ok_or(AuthenticateDenial::Ticket)?;
    if principal.revoked(revocations) {
        return Err(AuthenticateDenial::Revoked);
    }
    Ok(Some(principal))
}

impl Authenticated {
    pub fn call(&self) -> &Decoded {
        &self.call
    }

    pub fn org(&self) -> &Arc<Org> {
        &self.org
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// The request itself.
    pub fn into_call(self) -> Decoded {
        self.call
    }

    /// A request whose sender was recognised by other means, if the server is of the sender's organisation.
    pub fn recognised(call: Decoded, principal: Arc<Principal>) -> Option<Self> {
        let Place::Server { org, server } = call.place() else { return None };
        let (org, server) = (org.clone(), server.clone());
        (principal.org_id == org.id && server.org_id == org.id).then_some(Self { call, org, server, principal })
    }

    /// Without the request's headers, which are a piece of the buffer that they were read into, for whoever keeps it for long.
    #[must_use]
    pub fn without_headers(self) -> Self {
        Self { call: self.call.without_headers(), ..self }
    }

    /// A message over the connection that this request opened, by the same sender as it is judged now.
    pub fn on_connection(&self, standing: &Standing, message: Message, version: Option<Version>) -> Self {
        let (org, server, principal) = standing.parties();
        let place = Place::Server { org: org.clone(), server: server.clone() };
        Self { call: self.call.on_connection(place, message, version), org, server, principal }
    }

    /// A request of the modern era over such a connection, if it is one that keeps that era's rules.
    pub fn by_itself(&self, standing: &Standing, message: Message) -> Result<Self, Refusal> {
        let (org, server, principal) = standing.parties();
        let place = Place::Server { org: org.clone(), server: server.clone() };
        Ok(Self { call: self.call.by_itself(place, message)?, org, server, principal })
    }

    /// A message of the gateway's own on behalf of the sender of this request.
    pub fn on_behalf(&self, message: Message) -> Self {
        let (org, server, principal) = (self.org.clone(), self.server.clone(), self.principal.clone());
        let place = Place::Server { org: org.clone(), server: server.clone() };
        Self { call: self.call.on_connection(place, message, None), org, server, principal }
    }

    /// The messages of a batch, each as a call of its own by the same sender; a single call stays as it is.
    pub fn split(self) -> Vec<Self> {
        let Self { call, org, server, principal } = self;
        let each = call.split().into_iter();
        each.map(|call| Self { call, org: org.clone(), server: server.clone(), principal: principal.clone() }).collect()
    }
}

fn api_key(key_id: &str, offered: &[u8; 32], config: &Snapshot, now: i64) -> Result<Principal, AuthenticateDenial> {
    let key = config.api_key(key_id);
    // Compared for unknown ids too, so that the time taken does not tell them apart.
    let held = key.map_or([0; 32], |key| key.secret_sha256);
    let matches: bool = held.ct_eq(offered).into();
    let Some(key) = key.filter(|_| matches) else { return Err(AuthenticateDenial::WrongKey) };
    if key.expires_at.is_some_and(|moment| now >= moment) {
        return Err(AuthenticateDenial::ExpiredKey);
    }
    Ok(Principal::of_key(key))
}

/// The wall clock, in seconds.
pub fn seconds_since_epoch() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
