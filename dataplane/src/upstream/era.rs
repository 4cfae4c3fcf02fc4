//! Finds out which eras a server speaks, where its registration does not say: `server/discover` first, and what is no answer of the modern
//! era means the one before (2026-07-28 versioning, compatibility). Remembered per URL until the server cannot be reached there any more, or
//! refuses what only the other era knows (see [`super::doubt`]).

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{HeaderName, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use mcp_gateway::proto::config::v1::{Era as Pinned, Transport};
use mcp_gateway::snapshot::Server;
use tokio::time::timeout;

use super::Upstreams;
use super::detect::OPENING;
use crate::transport::header::{METHOD, PROTOCOL_VERSION, SESSION_ID};
use crate::transport::server_message::{self, ServerMessage};
use crate::transport::{Era, Version};

/// Asks what a server offers, in the modern era.
pub(crate) const DISCOVER: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"discover","method":"server/discover","params":{"_meta":{"#,
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"mcpgw","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}}}}"#
);
/// What only servers of the modern era say: the headers or the version are not to their liking.
pub(super) const MODERN_ERRORS: std::ops::RangeInclusive<i32> = -32022..=-32020;
/// What is read of an answer.
const MOST: usize = 1 << 20;
/// How long a server may think about what it is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// The eras that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eras {
    Legacy,
    Modern,
    Both,
}

impl Eras {
    /// What a registration says.
    pub fn pinned(era: Pinned) -> Option<Self> {
        match era {
            Pinned::Unspecified => None,
            Pinned::Legacy => Some(Self::Legacy),
            Pinned::Modern => Some(Self::Modern),
            Pinned::Both => Some(Self::Both),
        }
    }

    /// What a registration would say.
    pub fn registered(self) -> Pinned {
        match self {
            Self::Legacy => Pinned::Legacy,
            Self::Modern => Pinned::Modern,
            Self::Both => Pinned::Both,
        }
    }

    /// The era in which to speak to the server for a client of `client`: the client's own, if the server knows it.
    pub fn to(self, client: Era) -> Era {
        match self {
            Self::Legacy => Era::Legacy,
            Self::Modern => Era::Modern,
            Self::Both => client,
        }
    }
}

impl Upstreams {
    /// How a server behind HTTP wants to be spoken to, found out as far as it is not known.
    pub async fn found_out(
        &self,
        server: &Server,
        url: &Uri,
        credential: Option<&(HeaderName, HeaderValue)>,
    ) -> (Transport, Option<Eras>) {
        let transport = self.transport_at(server, url, credential).await;
        let eras = match transport {
            Transport::StreamableHttp | Transport::JsonRpc => self.eras_at(server, url, credential).await,
            // Over a connection that lasts, a server is asked once there is one; the event stream is of one era only.
            Transport::Websocket | Transport::Stdio | Transport::Unspecified => Eras::pinned(server.era),
            Transport::HttpSse => Some(Eras::Legacy),
        };
        (transport, eras)
    }

    /// The eras of a server, if they are known without asking.
    pub fn known_eras(&self, server: &Server) -> Option<Eras> {
        let found = || server.endpoints.iter().find_map(|endpoint| self.0.eras.get(&endpoint.url));
        Eras::pinned(server.era).or_else(found)
    }

    /// The eras of a server behind HTTP, at a place of its own; found out where they are not known, if it can be reached.
    pub async fn eras_at(&self, server: &Server, url: &Uri, credential: Option<&(HeaderName, HeaderValue)>) -> Option<Eras> {
        let known = Eras::pinned(server.era).or_else(|| self.0.eras.get(url));
        if known.is_some() {
            return known;
        }
        let patience = PATIENCE.min(server.call_timeout);
        let found = timeout(patience, self.probe_eras(server, url, credential)).await.ok().flatten()?;
        tracing::info!(server = %server.slug, eras = ?found, "found out which eras a server speaks");
        self.0.eras.set(url, found);
        Some(found)
    }

    async fn probe_eras(&self, server: &Server, url: &Uri, credential: Option<&(HeaderName, HeaderValue)>) -> Option<Eras> {
        let post = |body: &'static str| {
            let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = url.clone();
            let headers = request.headers_mut();
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some((name, value)) = credential {
                headers.insert(name.clone(), value.clone());
            }
            request
        };
        let mut discover = post(DISCOVER);
        discover.headers_mut().insert(METHOD, HeaderValue::from_static("server/discover"));
        discover.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static("2026-07-28"));
        let answer = self.carry(discover, server.call_timeout).await.ok()?;
        let status = answer.status();
        // Who is not let in, or meets a server that is ill, has learnt nothing.
        let unknown = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
        if status.is_server_error() || unknown.contains(&status) {
            return None;
        }
        let body = Limited::new(answer.into_body(), MOST).collect().await.ok()?.to_bytes();
        if !is_modern(&payload(&body)) {
            return Some(Eras::Legacy);
        }
        let answer = self.carry(post(OPENING), server.call_timeout).await.ok()?;
        let (status, session) = (answer.status(), answer.headers().get(SESSION_ID).cloned());
        let body = Limited::new(answer.into_body(), MOST).collect().await.ok()?.to_bytes();
        if let Some(session) = session {
            self.leave(url, credential, session, server).await;
        }
        Some(if status.is_success() && is_handshake(&payload(&body)) { Eras::Both } else { Eras::Modern })
    }

    /// Ends a session that was opened to look.
    async fn leave(&self, url: &Uri, credential: Option<&(HeaderName, HeaderValue)>, session: HeaderValue, server: &Server) {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = url.clone();
        let mut headers = HeaderMap::new();
        headers.insert(SESSION_ID, session);
        if let Some((name, value)) = credential {
            headers.insert(name.clone(), value.clone());
        }
        *request.headers_mut() = headers;
        // A server that cannot be told will find out.
        let _ = self.carry(request, server.call_timeout).await;
    }
}

/// Whether an answer to `server/discover` is one of the modern era.
pub(crate) fn is_modern(answer: &[u8]) -> bool {
    let is_modern = |message: &ServerMessage<'_>| match message {
        ServerMessage::Result { facts, .. } => facts.result_type.is_some() || is_discovery(answer),
        ServerMessage::Error { code, .. } => MODERN_ERRORS.contains(code),
        ServerMessage::Request { .. } | ServerMessage::Notification { .. } => false,
    };
    server_message::read(answer).is_ok_and(|messages| messages.iter().any(is_modern))
}

/// Servers have been seen to answer anything with a result.
fn is_discovery(answer: &[u8]) -> bool {
    memchr::memmem::find(answer, b"\"supportedVersions\"").is_some()
}

/// Whether an answer to `initialize` is a handshake. Servers of the modern era alone have been seen to answer with a result as well: with
/// a version that has no handshake, or with none.
pub(crate) fn is_handshake(answer: &[u8]) -> bool {
    let is_handshake = |message: &ServerMessage<'_>| match message {
        ServerMessage::Result { facts, .. } => {
            // Versions are dates.
            facts.protocol_version.as_deref().is_some_and(|version| version < Version::V2026_07_28.as_str())
        }
        ServerMessage::Request { .. } | ServerMessage::Notification { .. } | ServerMessage::Error { .. } => false,
    };
    server_message::read(answer).is_ok_and(|messages| messages.iter().any(is_handshake))
}

/// The last message of an answer, whether it is a stream or not.
fn payload(body: &Bytes) -> Bytes {
    if body.trim_ascii_start().first() == Some(&b'{') {
        return body.clone();
    }
    let mut framer = crate::sse::Framer::new(MOST);
    framer.push(body.clone());
    let mut last = Bytes::new();
    while let Ok(Some(event)) = framer.next_event() {
        if let Some(data) = event.data().filter(|data| !data.is_empty()) {
            last = data;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_that_has_a_handshake_is_one() {
        let answered = |result: &str| is_handshake(format!(r#"{{"jsonrpc":"2.0","id":0,"result":{result}}}"#).as_bytes());
        assert!(answered(r#"{"protocolVersion":"2024-11-05","capabilities":{}}"#));
        assert!(answered(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#));
        assert!(!answered(r#"{"resultType":"complete","protocolVersion":"2026-07-28","capabilities":{}}"#));
        assert!(!answered(r#"{"resultType":"complete"}"#), "a server that answers anything");
        assert!(!is_handshake(br#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"no"}}"#));
    }
}
