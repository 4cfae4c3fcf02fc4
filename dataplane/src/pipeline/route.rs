//! Stage six: where the call goes. Owns the choice of endpoint, the opening of session tokens and the server's credential. Which way
//! leads across to the server is [`crate::bridge`]'s to say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use mcp_gateway::proto::node::v1::Via;
use mcp_gateway::snapshot::{Server, Snapshot};
use rand::RngExt;

use super::authenticate::{Authenticated, Principal, seconds_since_epoch};
use super::denial::RouteDenial;
use super::limit::{Admitted, Seat};
use crate::live::Drained;
use crate::session::{self, Holder, OpenError, Session, Token};
use crate::transport::{Era, Operation};

/// A call that can be sent. Only [`resolve`] makes one, and nothing else can be sent.
pub struct Routed {
    call: Authenticated,
    seat: Seat,
    endpoint: u16,
    url: Uri,
    session: Option<Session>,
    upstream_session: Option<HeaderValue>,
    credential: Option<(HeaderName, HeaderValue)>,
}

/// Finds the way for `call`, past what is drained.
pub fn resolve(call: Admitted, config: &Snapshot, drained: &Drained) -> Result<Routed, RouteDenial> {
    let (call, seat) = call.into_parts();
    let call = call.into_call();
    let session = open_session(&call, config)?;
    let chosen = choose(call.server(), drained).ok_or(RouteDenial::Drained)?;
    let endpoint = session.as_ref().map_or(chosen, |session| session.endpoint);
    // A server that lost endpoints since has lost their sessions too, and so has one whose endpoints are drained: elsewhere is room.
    let found = call.server().endpoints.get(usize::from(endpoint)).filter(|found| !drained.has(&call.server().id, &found.url));
    let url = found.ok_or(RouteDenial::NoSession)?.url.clone();
    let upstream_session = session
        .as_ref()
        .and_then(|session| session.upstream_id.as_deref())
        .map(HeaderValue::from_str)
        .transpose()
        .map_err(|_invalid| RouteDenial::NoSession)?;
    let credential = credential(call.server(), config)?;
    Ok(Routed { call, seat, endpoint, url, session, upstream_session, credential })
}

/// The sealed session that the request names, if it names one; it has to be the sender's on this server.
pub fn open_session(call: &Authenticated, config: &Snapshot) -> Result<Option<Session>, RouteDenial> {
    match open_token(call, config)? {
        None => Ok(None),
        Some(Token::Sealed(session)) => Ok(Some(session)),
        // The server's transport was another one when it was opened; or it is no session at all.
        Some(Token::Owned(_) | Token::Parked(_)) => Err(RouteDenial::NoSession),
    }
}

/// The session that the request names, if it names one, of either kind.
pub fn open_token(call: &Authenticated, config: &Snapshot) -> Result<Option<Token>, RouteDenial> {
    let Some(token) = call.call().session() else { return Ok(None) };
    match open_text(call, config, token) {
        Ok(token) => Ok(Some(token)),
        Err(error) => {
            tracing::debug!(reason = error.reason(), "a session was refused");
            Err(RouteDenial::NoSession)
        }
    }
}

/// What the caller holds as a token.
pub fn open_text(call: &Authenticated, config: &Snapshot, token: &str) -> Result<Token, OpenError> {
    let now = u64::try_from(seconds_since_epoch()).unwrap_or(0);
    session::open(|id| config.session_keys().get(id), token, &holder(call.principal(), call.server()), now)
}

/// Whom a session belongs to.
pub fn holder<'a>(principal: &'a Principal, server: &'a Server) -> Holder<'a> {
    let credential_kind = match principal.via {
        Via::Unspecified => "unspecified",
        Via::Anonymous => "anonymous",
        Via::Jwt => "jwt",
        Via::ApiKey => "api_key",
        Via::Certificate => "certificate",
    };
    Holder { subject: &principal.subject, credential_kind, org_id: &principal.org_id, server_id: &server.id }
}

/// Where a server is, for a session that lives here.
pub struct Place {
    /// Of no meaning for servers that are processes.
    pub url: Uri,
    pub credential: Option<(HeaderName, HeaderValue)>,
    /// The credential of servers that are processes.
    pub variable: Option<(String, String)>,
}

/// One of the server's endpoints, and what proves the gateway to it.
pub fn place(server: &Server, config: &Snapshot, drained: &Drained) -> Result<Place, RouteDenial> {
    if server.stdio.is_some() {
        let found = server.credential_id.as_ref().map(|id| config.upstream_credential(id).ok_or(RouteDenial::NoCredential));
        let variable = found.transpose()?.map(|found| (found.header.clone(), found.value.clone()));
        return Ok(Place { url: Uri::default(), credential: None, variable });
    }
    let credential = credential(server, config)?;
    let chosen = choose(server, drained).ok_or(RouteDenial::Drained)?;
    let url = server.endpoints.get(usize::from(chosen)).ok_or(RouteDenial::Drained)?.url.clone();
    Ok(Place { url, credential, variable: None })
}

/// By weight, of what is not drained; none: everything is. Balancing by load and health joins here.
fn choose(server: &Server, drained: &Drained) -> Option<u16> {
    let in_use = || server.endpoints.iter().enumerate().filter(|(_, endpoint)| !drained.has(&server.id, &endpoint.url));
    let total: u64 = in_use().map(|(_, endpoint)| u64::from(endpoint.weight)).sum(); // every weight is at least 1
    if total == 0 {
        return None;
    }
    let mut point = if server.endpoints.len() == 1 { 0 } else { rand::rng().random_range(0..total) };
    for (place, endpoint) in in_use() {
        match point.checked_sub(u64::from(endpoint.weight)) {
            Some(rest) => point = rest,
            None => return u16::try_from(place).ok(),
        }
    }
    None
}

fn credential(server: &Server, config: &Snapshot) -> Result<Option<(HeaderName, HeaderValue)>, RouteDenial> {
    let Some(id) = &server.credential_id else { return Ok(None) };
    let credential = config.upstream_credential(id).ok_or(RouteDenial::NoCredential)?;
    let name = HeaderName::from_bytes(credential.header.as_bytes()).map_err(|_invalid| RouteDenial::NoCredential)?;
    let mut value = HeaderValue::from_str(&credential.value).map_err(|_invalid| RouteDenial::NoCredential)?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

impl Routed {
    pub fn call(&self) -> &Authenticated {
        &self.call
    }

    pub fn server(&self) -> &Arc<Server> {
        self.call.server()
    }

    pub fn operation(&self) -> Operation<'_> {
        self.call.call().operation()
    }

    /// Bytes of the request body; empty for `GET` and `DELETE`.
    pub fn body(&self) -> Bytes {
        self.call.call().body()
    }

    pub fn http_method(&self) -> &Method {
        self.call.call().http_method()
    }

    /// The client's headers.
    pub fn headers(&self) -> &HeaderMap {
        self.call.call().headers()
    }

    pub fn era(&self) -> Era {
        self.call.call().era()
    }

    /// Where it goes.
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// Which of the server's endpoints that is.
    pub fn endpoint(&self) -> u16 {
        self.endpoint
    }

    /// The opened session, in the legacy era after `initialize`.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The session id that the server gave.
    pub fn upstream_session(&self) -> Option<&HeaderValue> {
        self.upstream_session.as_ref()
    }

    /// The header that proves the gateway to the server.
    pub fn credential(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.credential.as_ref()
    }

    /// Until the answer begins.
    pub fn timeout(&self) -> Duration {
        self.call.server().call_timeout
    }

    /// The call and the room it takes.
    pub fn into_parts(self) -> (Authenticated, Seat) {
        (self.call, self.seat)
    }
}
