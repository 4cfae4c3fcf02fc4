//! Servers behind HTTP, one POST per message, its answer a message or a stream of them: Streamable HTTP of the legacy era with a session
//! where the server opens one and a stream beside the calls where it has one, Streamable HTTP of the modern era, plain JSON-RPC.

use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use ::http::{Method, Request, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use http_body_util::Full;
use mcp_gateway::proto::config::v1::Transport;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::{Asked, Fault, Upstreams};
use super::answer::{Reading, Refusal, Said, read, refusal};
use super::events::{Events, is_events};
use super::{Ends, FromServer, Kind, ToServer, Way};
use crate::transport::header::{LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};
use crate::transport::{Era, Version};

/// POSTs that are answered at the same time, at most; more wait their turn.
const AT_ONCE: usize = 64;
/// How long saying goodbye to a session may take.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);

/// Requests to one server, in one session if it has sessions.
pub(super) struct Connector {
    way: Way,
    upstreams: Upstreams,
    manner: Manner,
    session: Option<HeaderValue>,
    version: Option<Version>,
    /// Where a request is given up by hanging up: what does so.
    under_way: HashMap<u64, CancellationToken>,
}

/// How the server wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Streamable HTTP of the legacy era.
    Legacy,
    /// Streamable HTTP of the modern era: requests that say everything themselves; streams that broke cannot be taken up again.
    Modern,
    /// JSON-RPC without notifications and streams.
    Plain,
}

impl Manner {
    /// Whether giving up a request is said by hanging up on it.
    fn hangs_up(self) -> bool {
        self != Self::Legacy
    }

    fn era(self) -> Era {
        match self {
            Self::Legacy | Self::Plain => Era::Legacy,
            Self::Modern => Era::Modern,
        }
    }
}

/// What one exchange came to.
enum Came {
    /// Everything it brought was handed on.
    Whole,
    /// The answer to `initialize`: what later requests have to say.
    Opened { session: Option<HeaderValue>, version: Option<Version> },
    /// The server does not know the session.
    Lost,
    /// The stream beside the calls is over; try again after this long, from there.
    StreamEnded { again: Option<Duration>, last: Option<HeaderValue> },
    /// The session nobody is interested in any more.
    Abandoned,
}

type Exchange = BoxFuture<'static, Came>;

impl Connector {
    pub fn new(way: Way, upstreams: Upstreams, era: Era) -> Self {
        let manner = match (era, way.transport) {
            (Era::Modern, _) => Manner::Modern,
            (Era::Legacy, Transport::JsonRpc) => Manner::Plain,
            (Era::Legacy, _) => Manner::Legacy,
        };
        let version = (manner == Manner::Modern).then_some(Version::V2026_07_28);
        Self { way, upstreams, manner, session: None, version, under_way: HashMap::new() }
    }

    /// Carries messages until the session is over.
    pub async fn run(mut self, mut ends: Ends) {
        let mut exchanges: FuturesUnordered<Exchange> = FuturesUnordered::new();
        let why = loop {
            tokio::select! {
                () = ends.closed.cancelled() => break None,
                message = ends.to.recv(), if exchanges.len() < AT_ONCE => {
                    let Some(message) = message else { break None };
                    // What was negotiated has to be known before anything else is sent.
                    if matches!(message.kind, Kind::Initialize(_)) {
                        match self.post(message, &ends.from).await {
                            Came::Opened { session, version } => (self.session, self.version) = (session, version),
                            Came::Lost => break Some("it knows no session"),
                            Came::Whole | Came::StreamEnded { .. } | Came::Abandoned => {}
                        }
                        continue;
                    }
                    if let (true, Kind::Cancelled(request)) = (self.manner.hangs_up(), message.kind) {
                        self.hang_up(request);
                        continue;
                    }
                    let listen = message.kind == Kind::Initialized && self.manner == Manner::Legacy;
                    let ordered = message.kind == Kind::Initialized;
                    let number = message.kind.request();
                    let exchange = self.post(message, &ends.from);
                    let exchange = match number.filter(|_| self.manner.hangs_up()) {
                        Some(number) => self.interruptible(number, exchange),
                        None => exchange,
                    };
                    if ordered {
                        // Some servers refuse requests until they have heard it.
                        if matches!(exchange.await, Came::Lost) {
                            break Some("it does not know the session any more");
                        }
                    } else {
                        exchanges.push(exchange);
                    }
                    if listen {
                        exchanges.push(self.listen(ends.from.clone(), None, None));
                    }
                }
                Some(came) = exchanges.next(), if !exchanges.is_empty() => match came {
                    Came::Lost => break Some("it does not know the session any more"),
                    Came::Abandoned => break None,
                    Came::StreamEnded { again: Some(after), last } => {
                        exchanges.push(self.listen(ends.from.clone(), Some(after), last));
                    }
                    Came::Whole | Came::Opened { .. } | Came::StreamEnded { again: None, .. } => {}
                }
            }
        };
        drop(exchanges);
        if let Some(why) = why {
            ends.down(why).await;
        }
        self.say_goodbye().await;
    }

    /// A server that hears no notifications is told that nobody waits by nobody waiting.
    fn hang_up(&mut self, request: u64) {
        if let Some(token) = self.under_way.remove(&request) {
            token.cancel();
        }
    }

    fn interruptible(&mut self, number: u64, exchange: Exchange) -> Exchange {
        self.under_way.retain(|_, token| !token.is_cancelled());
        let token = CancellationToken::new();
        self.under_way.insert(number, token.clone());
        Box::pin(async move {
            let came = token.run_until_cancelled(exchange).await;
            // Whatever came of it, there is nothing left to hang up on.
            token.cancel();
            came.unwrap_or(Came::Whole)
        })
    }

    /// Ends the server's session, so that it need not wait for it.
    async fn say_goodbye(&self) {
        if self.session.is_none() {
            return;
        }
        let mut request = self.request(Method::DELETE, Bytes::new());
        request.headers_mut().remove(CONTENT_TYPE);
        // A server that cannot be told will find out.
        let _ = self.upstreams.carry(request, GOODBYE).await;
    }

    fn request(&self, method: Method, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.way.url.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mcpgw/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = if self.manner == Manner::Plain { "application/json" } else { "application/json, text/event-stream" };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some((name, value)) = &self.way.credential {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, session.clone());
        }
        if let Some(version) = self.version.filter(|version| *version >= Version::V2025_06_18) {
            headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(version.as_str()));
        }
        request
    }

    /// Asks for a stream.
    fn stream_request(&self) -> Request<Full<Bytes>> {
        let mut request = self.request(Method::GET, Bytes::new());
        request.headers_mut().remove(CONTENT_TYPE);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        request
    }

    /// Posts a message and hands on what comes back.
    fn post(&self, message: ToServer, to: &mpsc::Sender<FromServer>) -> Exchange {
        let mut request = self.request(Method::POST, message.message);
        if let Some(mirrored) = message.mirrored {
            request.headers_mut().extend(*mirrored);
        }
        let (upstreams, to) = (self.upstreams.clone(), to.clone());
        let (limit, deadline) = (self.way.message_bytes, self.way.server.call_timeout);
        let (had_session, slug) = (self.session.is_some(), self.way.server.slug.clone());
        let (url, era) = (self.way.url.clone(), self.manner.era());
        let template = (self.manner != Manner::Modern).then(|| self.stream_request());
        Box::pin(async move {
            let about = message.kind.request();
            let unanswered = async |begun, why: String| {
                if let Some(request) = about {
                    // The session may be gone.
                    let _ = to.send(FromServer::Unanswered { request, begun, why }).await;
                }
                Came::Whole
            };
            let response = match upstreams.carry(request, deadline).await {
                Ok(response) => response,
                Err(Fault::Connect { .. }) => return unanswered(false, "it cannot be reached".into()).await,
                Err(Fault::Broke { .. } | Fault::Slow { .. }) => return unanswered(true, "it broke off".into()).await,
            };
            let status = response.status();
            if !status.is_success() {
                let body = refusal(response, limit).await;
                let asked = Asked { url: &url, era, opens: matches!(message.kind, Kind::Initialize(_)) };
                // Another link would speak to it as it wants to be spoken to.
                let another = upstreams.doubts(asked, status, &body);
                let came = match read(status, body, had_session) {
                    Refusal::Lost => return Came::Lost,
                    Refusal::Said(message) if about.is_some() => {
                        let sent = to.send(FromServer::Message { message, about }).await;
                        if sent.is_ok() { Came::Whole } else { Came::Abandoned }
                    }
                    Refusal::Said(_) | Refusal::Mute => {
                        tracing::debug!(server = %slug, %status, "a server refused a message");
                        unanswered(false, format!("it answered with status {status}")).await
                    }
                };
                return if another { Came::Lost } else { came };
            }
            let Some(request) = about else { return Came::Whole };
            // A copy: the value itself is a piece of the buffer that the answer was read into.
            let session = response.headers().get(SESSION_ID).and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok());
            let reading = Reading { upstreams: &upstreams, template, limit, request, to: &to };
            let said = reading.answer(response).await;
            match (message.kind, said) {
                (_, Said::Abandoned) => Came::Abandoned,
                (Kind::Initialize(_), Said::Answered(version)) => Came::Opened { session, version },
                (_, Said::Answered(_)) => Came::Whole,
                (_, Said::Nothing(why)) => unanswered(true, why.into()).await,
            }
        })
    }

    /// The stream beside the calls, from where it broke.
    fn listen(&self, to: mpsc::Sender<FromServer>, after: Option<Duration>, last: Option<HeaderValue>) -> Exchange {
        let mut request = self.stream_request();
        if let Some(last) = &last {
            request.headers_mut().insert(LAST_EVENT_ID, last.clone());
        }
        let (upstreams, limit) = (self.upstreams.clone(), self.way.message_bytes);
        let has_session = self.session.is_some();
        Box::pin(async move {
            if let Some(after) = after {
                tokio::time::sleep(after).await;
            }
            let response = match upstreams.carry(request, super::super::LONGEST_WAIT).await {
                Ok(response) if has_session && response.status() == StatusCode::NOT_FOUND => return Came::Lost,
                Ok(response) if response.status().is_success() && is_events(response.headers()) => response,
                // A server that has no such stream says 405; others say what they like, 404 among it where there is no session to be lost.
                Ok(_) => return Came::StreamEnded { again: None, last: None },
                Err(_) => return Came::StreamEnded { again: Some(super::LONGEST_RETRY), last },
            };
            let (mut again, mut last) = (super::RETRY, last);
            let mut events = Events::of(response.into_body(), limit);
            while let Some(event) = events.next().await {
                if let Some(retry) = event.retry() {
                    again = retry.min(super::LONGEST_RETRY);
                }
                if let Some(id) = event.id().and_then(|id| HeaderValue::from_str(&id).ok()) {
                    last = Some(id);
                }
                let Some(message) = event.data().filter(|data| !data.is_empty()) else { continue };
                if to.send(FromServer::Message { message, about: None }).await.is_err() {
                    return Came::Abandoned;
                }
            }
            Came::StreamEnded { again: Some(again), last }
        })
    }
}
