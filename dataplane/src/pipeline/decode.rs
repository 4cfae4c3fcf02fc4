//! Stage two: what is asked. Reads the body under the server's size and a deadline, then leaves the judging of syntax,
//! era and headers to the codec.

mod body;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use super::denial::DecodeDenial;
use super::target::{Place, Targeted};
use super::trail::{Asked, Trail};
use crate::config::{Limits, Timeouts};
use crate::target::Endpoint;
use crate::transport::scan::{self, Message, Scanned};
use crate::transport::streamable_http::{self as codec, Head, Post};
use crate::transport::{self, ClientTransport, Era, Operation, Refusal, Version, Way};

use body::{Pace, collect};

/// A request that is well-formed in its era. Only [`read`] makes one.
#[derive(Clone)]
pub struct Decoded {
    place: Place,
    method: Method,
    headers: HeaderMap,
    payload: Payload,
    era: Era,
    version: Option<Version>,
    session: Option<Box<str>>,
    client: ClientTransport,
    /// The event after which a stream is taken up again, as the client wrote it.
    last_event_id: Option<Box<str>>,
    /// What lets a socket in without headers, unlooked at.
    ticket: Option<Box<str>>,
}

/// What a request brings.
#[derive(Clone)]
enum Payload {
    /// One message.
    One(Box<Message>),
    /// Several, of a legacy session.
    Batch(Vec<Message>),
    /// `GET`: the session's stream.
    Stream,
    /// `DELETE`: the end of the session.
    End,
    /// A connection that becomes a socket.
    Socket,
    /// What the path says, and nothing more.
    Order(&'static str),
}

/// Reads and decodes a request.
pub async fn read(call: Targeted, limits: &Limits, timeouts: &Timeouts, trail: &mut Trail) -> Result<Decoded, DecodeDenial> {
    let decoded = match call.endpoint() {
        Endpoint::Sse => bare(call, ClientTransport::HttpSse, Way::Stream, Payload::Stream)?,
        Endpoint::WebSocket => bare(call, ClientTransport::WebSocket, Way::Socket, Payload::Socket)?,
        Endpoint::WebSocketTicket => bare(call, ClientTransport::WebSocket, Way::Order, Payload::Order("ws/ticket"))?,
        Endpoint::RpcIntrospection => bare(call, ClientTransport::JsonRpc, Way::Document, Payload::Order("rpc/introspection"))?,
        Endpoint::SseEvents => posted(call, ClientTransport::HttpSse, (limits, timeouts), trail).await?,
        Endpoint::Rpc | Endpoint::RpcBatch => posted(call, ClientTransport::JsonRpc, (limits, timeouts), trail).await?,
        Endpoint::Mcp | Endpoint::McpStatus | Endpoint::McpCapabilities => streamable(call, limits, timeouts, trail).await?,
    };
    decoded.describe(trail);
    Ok(decoded)
}

/// A request that is all in its head.
fn bare(call: Targeted, client: ClientTransport, way: Way, payload: Payload) -> Result<Decoded, DecodeDenial> {
    let (parts, _body, place) = call.into_parts();
    way.head(&parts.method, &parts.headers)?;
    let ticket = parts.uri.query().filter(|_| way == Way::Socket).and_then(|query| parameter(query, "ticket")).map(Box::from);
    Ok(Decoded { ticket, ..Decoded::legacy(place, parts, payload, client) })
}

/// A request whose body is a message, or several.
async fn posted(
    call: Targeted,
    client: ClientTransport,
    (limits, timeouts): (&Limits, &Timeouts),
    trail: &mut Trail,
) -> Result<Decoded, DecodeDenial> {
    let several = call.endpoint() == Endpoint::RpcBatch;
    let (parts, body, place) = call.into_parts();
    let way = if several { Way::Batch } else { Way::Message };
    way.head(&parts.method, &parts.headers)?;
    let most = place.max_body_bytes(limits);
    let body = collect(body, most, Pace::new(limits, timeouts)).await?;
    let scan_limits = scan::Limits { bytes: most, depth: limits.json_depth, batch: limits.batch_messages };
    let payload = if several {
        Payload::from(transport::messages(&body, &scan_limits)?)
    } else {
        let message = transport::message(&body, &scan_limits)?;
        trail.echo(message.id());
        Payload::One(Box::new(message))
    };
    let session = parts.uri.query().and_then(|query| parameter(query, "session")).map(Box::from);
    Ok(Decoded { session, ..Decoded::legacy(place, parts, payload, client) })
}

/// A parameter of a query; tokens and tickets need no escaping.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

async fn streamable(call: Targeted, limits: &Limits, timeouts: &Timeouts, trail: &mut Trail) -> Result<Decoded, DecodeDenial> {
    let (parts, body, place) = call.into_parts();
    let head = codec::head(&parts.method, &parts.headers)?;
    let mut resumed = None;
    let (payload, era, version, session) = match head {
        Head::Stream { session, last_event_id, version } => {
            resumed = last_event_id;
            (Payload::Stream, Era::Legacy, version, Some(session))
        }
        Head::End { session, version } => (Payload::End, Era::Legacy, version, Some(session)),
        Head::Post => {
            let most = place.max_body_bytes(limits);
            let body = collect(body, most, Pace::new(limits, timeouts)).await?;
            let scan_limits = scan::Limits { bytes: most, depth: limits.json_depth, batch: limits.batch_messages };
            let scanned = scan::scan(&body, &scan_limits).map_err(Refusal::from)?;
            trail.echo(scanned.one().and_then(Message::id));
            let post = codec::post(&parts.headers, &scanned)?;
            let (version, session) = match &post {
                Post::Initialize => (None, None),
                Post::Legacy { session, version, .. } => (*version, Some(session.clone())),
                Post::Modern { version } => (Some(*version), None),
            };
            (Payload::from(scanned), post.era(), version, session)
        }
    };
    let client = ClientTransport::StreamableHttp;
    let (method, headers) = (parts.method, parts.headers);
    Ok(Decoded { place, method, headers, payload, era, version, session, client, last_event_id: resumed, ticket: None })
}

impl From<Scanned> for Payload {
    fn from(scanned: Scanned) -> Self {
        match scanned {
            Scanned::One(message) => Self::One(Box::new(message)),
            Scanned::Batch(messages) => Self::Batch(messages),
        }
    }
}

impl Decoded {
    /// A request of a transport that has only the legacy era.
    fn legacy(place: Place, parts: Parts, payload: Payload, client: ClientTransport) -> Self {
        let version = (client == ClientTransport::HttpSse).then_some(Version::V2024_11_05);
        let (method, headers) = (parts.method, parts.headers);
        Self {
            place,
            method,
            headers,
            payload,
            era: Era::Legacy,
            version,
            session: None,
            client,
            last_event_id: None,
            ticket: None,
        }
    }

    /// A message by itself, of a caller without a session.
    pub fn without_session(place: Place, parts: Parts, message: Message) -> Self {
        Self::legacy(place, parts, Payload::One(Box::new(message)), ClientTransport::JsonRpc)
    }

    /// See [`crate::pipeline::authenticate::Authenticated::without_headers`].
    #[must_use]
    pub fn without_headers(self) -> Self {
        Self { headers: HeaderMap::new(), ..self }
    }

    /// A message that came over a connection which this request opened.
    pub fn on_connection(&self, place: Place, message: Message, version: Option<Version>) -> Self {
        let (method, headers) = (Method::POST, HeaderMap::new());
        let payload = Payload::One(Box::new(message));
        Self {
            place,
            method,
            headers,
            payload,
            era: self.era,
            version,
            session: None,
            client: self.client,
            last_event_id: None,
            ticket: None,
        }
    }

    /// A request of the modern era that came over such a connection: what its own transport would have repeated in headers is taken
    /// from it.
    pub fn by_itself(&self, place: Place, message: Message) -> Result<Self, Refusal> {
        let headers = codec::mirrored(&message);
        let scanned = Scanned::One(message);
        let Post::Modern { version } = codec::post(&headers, &scanned)? else { return Err(Refusal::MissingSession) };
        let (Scanned::One(message), method) = (scanned, Method::POST) else { return Err(Refusal::Batch) };
        let payload = Payload::One(Box::new(message));
        Ok(Self {
            place,
            method,
            headers,
            payload,
            era: Era::Modern,
            version: Some(version),
            session: None,
            client: self.client,
            last_event_id: None,
            ticket: None,
        })
    }

    /// The whole body, batch or not.
    pub fn whole_body(&self) -> Bytes {
        match &self.payload {
            Payload::One(message) => message.body().clone(),
            Payload::Batch(messages) => messages.first().map(|message| message.body().clone()).unwrap_or_default(),
            Payload::Stream | Payload::End | Payload::Socket | Payload::Order(_) => Bytes::new(),
        }
    }

    /// How the client reaches the gateway.
    pub fn client(&self) -> ClientTransport {
        self.client
    }

    /// The event after which a stream is to be taken up again.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The ticket that a socket is opened with.
    pub fn ticket(&self) -> Option<&str> {
        self.ticket.as_deref()
    }

    /// The order that the path stands for.
    pub fn order(&self) -> Option<&'static str> {
        match self.payload {
            Payload::Order(order) => Some(order),
            Payload::One(_) | Payload::Batch(_) | Payload::Stream | Payload::End | Payload::Socket => None,
        }
    }

    /// The one message, taken out.
    pub fn into_message(self) -> Option<Message> {
        match self.payload {
            Payload::One(message) => Some(*message),
            Payload::Batch(_) | Payload::Stream | Payload::End | Payload::Socket | Payload::Order(_) => None,
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub fn http_method(&self) -> &Method {
        &self.method
    }

    pub fn era(&self) -> Era {
        self.era
    }

    /// The version that the request states, where it states one.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The sealed session token, unopened.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The one message, where there is one.
    pub fn message(&self) -> Option<&Message> {
        match &self.payload {
            Payload::One(message) => Some(message),
            Payload::Batch(_) | Payload::Stream | Payload::End | Payload::Socket | Payload::Order(_) => None,
        }
    }

    /// What the request does; requests without a message are the transport's own.
    pub fn operation(&self) -> Operation<'_> {
        self.message().map_or(Operation::Other, |message| {
            Operation::of(message).expect("the codec refused messages that lack what their method needs")
        })
    }

    /// The bytes that travel to the server.
    pub fn body(&self) -> Bytes {
        self.message().map(Message::bytes).unwrap_or_default()
    }

    pub fn is_batch(&self) -> bool {
        matches!(self.payload, Payload::Batch(_))
    }

    /// Whether the answer is a stream that lasts until somebody ends it.
    pub fn is_long_lived(&self) -> bool {
        matches!(self.payload, Payload::Stream | Payload::Socket) || self.operation() == Operation::Listen
    }

    /// Whether this ends a session.
    pub fn is_end(&self) -> bool {
        matches!(self.payload, Payload::End)
    }

    /// Each message of a batch as a request of its own; anything else as it is.
    pub fn split(self) -> Vec<Self> {
        match self.payload {
            Payload::Batch(messages) => {
                let Self { place, method, headers, era, version, session, client, .. } = self;
                let one = |message| Self {
                    place: place.clone(),
                    method: method.clone(),
                    headers: headers.clone(),
                    payload: Payload::One(Box::new(message)),
                    era,
                    version,
                    session: session.clone(),
                    client,
                    last_event_id: None,
                    ticket: None,
                };
                messages.into_iter().map(one).collect()
            }
            Payload::One(_) | Payload::Stream | Payload::End | Payload::Socket | Payload::Order(_) => vec![self],
        }
    }

    /// Tells the trail what is asked, and over what.
    pub fn describe(&self, trail: &mut Trail) {
        let asked = match &self.payload {
            Payload::One(message) => {
                let operation = Operation::of(message).ok();
                Asked {
                    method: message.method().unwrap_or("response"),
                    name: operation.and_then(|operation| operation.name()).unwrap_or_default(),
                    is_uri: operation.is_some_and(|operation| operation.is_about_resource()),
                    request_bytes: message.bytes().len() as u64,
                    arguments_digest: message
                        .arguments()
                        .map(|text| Bytes::copy_from_slice(&Sha256::digest(text)))
                        .unwrap_or_default(),
                }
            }
            Payload::Batch(messages) => {
                let request_bytes = messages.first().map_or(0, |message| message.body().len() as u64);
                Asked { method: "batch", request_bytes, ..Asked::default() }
            }
            Payload::Stream => Asked { method: "GET", ..Asked::default() },
            Payload::Socket => Asked { method: "GET", ..Asked::default() },
            Payload::Order(order) => Asked { method: order, ..Asked::default() },
            Payload::End => Asked { method: "DELETE", ..Asked::default() },
        };
        trail.asked(asked);
        let stated = self.version.map(Version::as_str);
        let asked_for = self.message().and_then(Message::initialize_version);
        trail.spoken(self.client, self.era, stated.or(asked_for).unwrap_or_default(), self.session.as_deref());
    }
}
