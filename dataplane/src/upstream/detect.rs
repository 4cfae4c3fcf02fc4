//! Finds out how a server wants to be spoken to, where its registration does not say: Streamable HTTP first, then the event stream of
//! 2024-11-05 (2025-03-26 transports, backwards compatibility). What was found is remembered per URL until the server cannot be
//! reached there any more.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hashbrown::HashMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{HeaderName, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use mcp_gateway::proto::config::v1::{Era, Transport};
use mcp_gateway::snapshot::Server;

use super::Upstreams;
use super::era::Eras;
use crate::transport::header::SESSION_ID;

pub(in crate::upstream) const OPENING: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"#,
    r#""clientInfo":{"name":"mcpgw","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}}}"#
);

/// What was found, and when, by URL. Read on the path of every call: never locked for that.
#[derive(Clone)]
pub(super) struct Found<T>(Arc<ArcSwap<HashMap<Uri, (T, SystemTime)>>>);

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Copy> Found<T> {
    pub fn get(&self, url: &Uri) -> Option<T> {
        self.when(url).map(|(what, _)| what)
    }

    /// What was found, and when.
    pub fn when(&self, url: &Uri) -> Option<(T, SystemTime)> {
        self.0.load().get(url).copied()
    }

    pub fn set(&self, url: &Uri, what: T) {
        let now = SystemTime::now();
        self.0.rcu(|found| {
            let mut found = HashMap::clone(found);
            found.insert(url.clone(), (what, now));
            found
        });
    }

    /// The server could not be reached there, or did not understand: it may be another one.
    pub fn forget(&self, url: &Uri) {
        if self.0.load().contains_key(url) {
            self.0.rcu(|found| {
                let mut found = HashMap::clone(found);
                found.remove(url);
                found
            });
        }
    }
}

impl Upstreams {
    /// The transport of a server, if it is known without asking.
    pub fn known_transport(&self, server: &Server) -> Option<Transport> {
        match server.transport {
            Transport::Unspecified => server.endpoints.iter().find_map(|endpoint| self.0.found.get(&endpoint.url)),
            known => Some(known),
        }
    }

    /// The transport of a server, at a place of its own; found out where it is not known.
    pub async fn transport_at(&self, server: &Server, url: &Uri, credential: Option<&(HeaderName, HeaderValue)>) -> Transport {
        if server.transport != Transport::Unspecified {
            return server.transport;
        }
        if let Some(known) = self.0.found.get(url) {
            return known;
        }
        // The modern era has one transport over HTTP.
        let modern = match server.era {
            Era::Modern => true,
            Era::Unspecified => self.eras_at(server, url, credential).await.is_some_and(|eras| eras != Eras::Legacy),
            Era::Legacy | Era::Both => false,
        };
        let found = if modern { Some(Transport::StreamableHttp) } else { self.probe(server, url, credential).await };
        if let Some(transport) = found {
            tracing::info!(server = %server.slug, ?transport, "found out how a server is spoken to");
            self.0.found.set(url, transport);
        }
        // The call itself says what is wrong with a server that cannot be asked.
        found.unwrap_or(Transport::StreamableHttp)
    }

    async fn probe(&self, server: &Server, url: &Uri, credential: Option<&(HeaderName, HeaderValue)>) -> Option<Transport> {
        let request = |method: Method, body: Bytes, accept| {
            let mut request = Request::new(Full::new(body));
            *request.method_mut() = method;
            *request.uri_mut() = url.clone();
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            if let Some((name, value)) = credential {
                headers.insert(name.clone(), value.clone());
            }
            *request.headers_mut() = headers;
            request
        };
        let mut post = request(Method::POST, Bytes::from_static(OPENING.as_bytes()), "application/json, text/event-stream");
        post.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.carry(post, server.call_timeout).await.ok()?;
        if answer.status().is_success() {
            if let Some(session) = answer.headers().get(SESSION_ID) {
                let mut end = request(Method::DELETE, Bytes::new(), "*/*");
                end.headers_mut().insert(SESSION_ID, session.clone());
                // A server that cannot be told will find out.
                let _ = self.carry(end, server.call_timeout).await;
            }
            return Some(Transport::StreamableHttp);
        }
        let older = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&answer.status());
        drop(answer);
        if !older {
            return None;
        }
        let stream = self.carry(request(Method::GET, Bytes::new(), "text/event-stream"), server.call_timeout).await.ok()?;
        let kind = stream.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        (stream.status().is_success() && kind.starts_with("text/event-stream")).then_some(Transport::HttpSse)
    }
}
