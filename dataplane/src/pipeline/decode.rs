//! Stage two: what is asked. Reads the body under the server's size and a deadline, then leaves the judging of syntax,
//! era and headers to the codec.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use sha2::{Digest as _, Sha256};

use super::denial::DecodeDenial;
use super::target::{Place, Targeted};
use super::trail::{Asked, Trail};
use crate::config::{Limits, Timeouts};
use crate::transport::scan::{self, Message, Scanned};
use crate::transport::streamable_http::{self as codec, Head, Post};
use crate::transport::{Era, Operation, Refusal, Version};

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
}

/// Reads and decodes a request.
pub async fn read(call: Targeted, limits: &Limits, timeouts: &Timeouts, trail: &mut Trail) -> Result<Decoded, DecodeDenial> {
    let (parts, body, place) = call.into_parts();
    let head = codec::head(&parts.method, &parts.headers)?;
    let (payload, era, version, session) = match head {
        Head::Stream { session, last_event_id: _, version } => (Payload::Stream, Era::Legacy, version, Some(session)),
        Head::End { session, version } => (Payload::End, Era::Legacy, version, Some(session)),
        Head::Post => {
            let most = place.max_body_bytes(limits);
            let body = collect(body, most, timeouts.body).await?;
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
    let decoded = Decoded { place, method: parts.method, headers: parts.headers, payload, era, version, session };
    decoded.describe(trail);
    Ok(decoded)
}

impl From<Scanned> for Payload {
    fn from(scanned: Scanned) -> Self {
        match scanned {
            Scanned::One(message) => Self::One(Box::new(message)),
            Scanned::Batch(messages) => Self::Batch(messages),
        }
    }
}

async fn collect(body: Incoming, most: usize, deadline: Duration) -> Result<Bytes, DecodeDenial> {
    let too_large = DecodeDenial::TooLarge { limit: most };
    // Refused unread where the length says so.
    if body.size_hint().lower() > most as u64 {
        linger(body).await;
        return Err(too_large);
    }
    let mut body = body;
    match tokio::time::timeout(deadline, Limited::new(&mut body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            linger(body).await;
            Err(too_large)
        }
        Ok(Err(_broken)) => Err(DecodeDenial::Broken),
        Err(_elapsed) => Err(DecodeDenial::Slow),
    }
}

/// Takes in some more of a body that is refused for its size: closing a connection while the client still sends loses it
/// the answer.
async fn linger(mut body: Incoming) {
    const MOST: usize = 16 << 20;
    const LONGEST: Duration = Duration::from_secs(2);
    let mut taken = 0;
    let rest = async {
        while taken < MOST
            && let Some(Ok(frame)) = body.frame().await
        {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whoever sends more, or slower, will not hear why.
    let _ = tokio::time::timeout(LONGEST, rest).await;
}

impl Decoded {
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
            Payload::Batch(_) | Payload::Stream | Payload::End => None,
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
        matches!(self.payload, Payload::Stream) || self.operation() == Operation::Listen
    }

    /// Whether this ends a session.
    pub fn is_end(&self) -> bool {
        matches!(self.payload, Payload::End)
    }

    /// Each message of a batch as a request of its own; anything else as it is.
    pub fn split(self) -> Vec<Self> {
        match self.payload {
            Payload::Batch(messages) => {
                let Self { place, method, headers, era, version, session, .. } = self;
                let one = |message| Self {
                    place: place.clone(),
                    method: method.clone(),
                    headers: headers.clone(),
                    payload: Payload::One(Box::new(message)),
                    era,
                    version,
                    session: session.clone(),
                };
                messages.into_iter().map(one).collect()
            }
            Payload::One(_) | Payload::Stream | Payload::End => vec![self],
        }
    }

    /// Tells the trail what is asked, and over what.
    pub fn describe(&self, trail: &mut Trail) {
        let asked = match &self.payload {
            Payload::One(message) => Asked {
                method: message.method().unwrap_or("response"),
                name: Operation::of(message).ok().and_then(|operation| operation.name()).unwrap_or_default(),
                request_bytes: message.bytes().len() as u64,
                arguments_digest: message
                    .arguments()
                    .map(|text| Bytes::copy_from_slice(&Sha256::digest(text)))
                    .unwrap_or_default(),
            },
            Payload::Batch(messages) => {
                let request_bytes = messages.first().map_or(0, |message| message.body().len() as u64);
                Asked { method: "batch", request_bytes, ..Asked::default() }
            }
            Payload::Stream => Asked { method: "GET", ..Asked::default() },
            Payload::End => Asked { method: "DELETE", ..Asked::default() },
        };
        trail.asked(asked);
        let stated = self.version.map(Version::as_str);
        let asked_for = self.message().and_then(Message::initialize_version);
        trail.spoken(self.era.as_str(), stated.or(asked_for).unwrap_or_default(), self.session.as_deref());
    }
}
