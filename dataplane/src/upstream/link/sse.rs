//! HTTP+SSE servers (MCP 2024-11-05): one event stream brings everything, its first event names where messages are posted. An endpoint of
//! another origin is refused: it would lead credentials elsewhere.

use ::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use ::http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::super::{Fault, Upstreams};
use super::events::{Events, is_events};
use super::{Ends, FromServer, Kind, LinkError, ToServer, Way};

/// An open event stream and where to post to.
pub(super) struct Connector {
    way: Way,
    upstreams: Upstreams,
    stream: Events,
    post_to: Uri,
}

impl Connector {
    /// Opens the stream and waits for its `endpoint` event.
    pub async fn open(way: Way, upstreams: Upstreams) -> Result<Self, LinkError> {
        let deadline = Instant::now() + way.server.call_timeout;
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = way.url.clone();
        *request.headers_mut() = headers(&way);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let response = upstreams.carry(request, way.server.call_timeout).await?;
        if !response.status().is_success() {
            return Err(LinkError::Events("its status is not 200"));
        }
        if !is_events(response.headers()) {
            return Err(LinkError::Events("its content type is not text/event-stream"));
        }
        let mut stream = Events::of(response.into_body(), way.message_bytes);
        let first = timeout_at(deadline, stream.next()).await;
        let first =
            first.map_err(|_elapsed| LinkError::Events("it says nothing"))?.ok_or(LinkError::Events("it ended at once"))?;
        if first.event_type() != "endpoint" {
            return Err(LinkError::Events("its first event is not `endpoint`"));
        }
        let data = first.data().unwrap_or_default();
        let post_to = std::str::from_utf8(&data).ok().and_then(|text| resolve(&way.url, text.trim()));
        let post_to = post_to.ok_or(LinkError::Events("its endpoint is not of the server's own origin"))?;
        Ok(Self { way, upstreams, stream, post_to })
    }

    /// Carries messages until the stream ends. Messages are posted one after the other: their order is the client's.
    pub async fn run(self, mut ends: Ends) {
        let Self { way, upstreams, mut stream, post_to } = self;
        let (say, closed) = (ends.from.clone(), ends.closed.clone());
        let listening = async {
            while let Some(event) = stream.next().await {
                let Some(message) = event.data().filter(|data| !data.is_empty()) else { continue };
                if say.send(FromServer::Message { message, about: None }).await.is_err() {
                    return;
                }
            }
        };
        let posting = async {
            while let Some(message) = ends.to.recv().await {
                let (kind, sent) = (message.kind, post(&way, &upstreams, &post_to, message).await);
                let Err((begun, why)) = sent else { continue };
                tracing::debug!(server = %way.server.slug, why, "a message could not be posted");
                if let Kind::Request(request) | Kind::Initialize(request) = kind {
                    // The session may be gone.
                    let _ = ends.from.send(FromServer::Unanswered { request, begun, why }).await;
                }
            }
        };
        tokio::select! {
            () = listening => {}
            () = posting => {}
            () = closed.cancelled() => {}
        }
        // Nobody listens any more: then nobody has to know.
        let _ = say.send(FromServer::Down { why: "it closed the event stream".into() }).await;
    }
}

/// Posts one message; otherwise whether the server may have seen it, and why not.
async fn post(way: &Way, upstreams: &Upstreams, to: &Uri, message: ToServer) -> Result<(), (bool, String)> {
    let mut request = Request::new(Full::new(message.message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = to.clone();
    *request.headers_mut() = headers(way);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match upstreams.carry(request, way.server.call_timeout).await {
        Ok(response) if response.status().is_success() => {
            // Read to its end, so that the connection can be used again.
            let _ = timeout(way.connect_timeout, response.into_body().collect()).await;
            Ok(())
        }
        Ok(response) => Err((false, format!("it answered with status {}", response.status()))),
        Err(Fault::Connect { .. }) => Err((false, "it cannot be reached".into())),
        Err(Fault::Broke { .. } | Fault::Slow { .. }) => Err((true, "it broke off".into())),
    }
}

fn headers(way: &Way) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mcpgw/", env!("CARGO_PKG_VERSION"))));
    if let Some((name, value)) = &way.credential {
        headers.insert(name.clone(), value.clone());
    }
    headers
}

/// The URI of an `endpoint` event, relative or not, if it is of the same origin as the stream.
fn resolve(base: &Uri, text: &str) -> Option<Uri> {
    let base = Url::parse(&base.to_string()).ok()?;
    let found = base.join(text).ok().filter(|_| !text.is_empty())?;
    let same = found.origin() == base.origin() && found.username().is_empty() && found.password().is_none();
    same.then(|| found.as_str().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn endpoints_are_of_the_servers_own_origin() {
        let base = "http://mcp.test:81/a/sse?x=1".parse().unwrap();
        let cases = [
            ("/messages?sessionId=1", Some("http://mcp.test:81/messages?sessionId=1")),
            ("messages/?s=1", Some("http://mcp.test:81/a/messages/?s=1")),
            ("?s=1", Some("http://mcp.test:81/a/sse?s=1")),
            ("http://mcp.test:81/m", Some("http://mcp.test:81/m")),
            ("http://MCP.test:81/m", Some("http://mcp.test:81/m")),
            ("http://evil.test/m", None),
            ("http://mcp.test:82/m", None),
            ("https://mcp.test:81/m", None),
            ("//evil.test/m", None),
            ("/\\evil.test", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(&base, text).map(|uri| uri.to_string()).as_deref(), expected, "{text}");
        }
    }
}
