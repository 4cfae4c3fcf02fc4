//! The codecs of the transports that carry bare messages: HTTP+SSE, WebSocket and JSON-RPC over POST, all of the legacy era but sockets.
//! Pure, as every codec: from headers and bytes to messages that keep the protocol's rules.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::header;
use super::operation::Operation;
use super::refusal::Refusal;
use super::scan::{self, Message, Scanned};

/// What a request over HTTP is for, in these transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `GET` of an event stream.
    Stream,
    /// `GET` that becomes a WebSocket.
    Socket,
    /// `GET` of a document.
    Document,
    /// `POST` without a body.
    Order,
    /// `POST` of one message.
    Message,
    /// `POST` of several.
    Batch,
}

impl Way {
    /// Judges request line and headers.
    pub fn head(self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let (wanted, allow) = match self {
            Self::Stream | Self::Socket | Self::Document => (Method::GET, "GET"),
            Self::Order | Self::Message | Self::Batch => (Method::POST, "POST"),
        };
        if method != wanted {
            return Err(Refusal::MethodNotAllowed { allow });
        }
        match self {
            Self::Stream if !header::accepts(headers, "text/event-stream") => {
                Err(Refusal::NotAcceptable { wanted: "text/event-stream" })
            }
            Self::Socket if !upgrades(headers) => Err(Refusal::NoUpgrade),
            Self::Message | Self::Batch => {
                let content_type = header::single(headers, &http::header::CONTENT_TYPE).ok().flatten();
                let plain = content_type.is_some_and(header::is_json) && !headers.contains_key(http::header::CONTENT_ENCODING);
                if plain { Ok(()) } else { Err(Refusal::UnsupportedMediaType) }
            }
            Self::Stream | Self::Socket | Self::Document | Self::Order => Ok(()),
        }
    }
}

/// RFC 6455 section 4.2.1: what makes a request one for a WebSocket, of the one version that there is.
fn upgrades(headers: &HeaderMap) -> bool {
    let one = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        values.map(str::trim).any(|value| value.eq_ignore_ascii_case(wanted))
    };
    one(http::header::CONNECTION, "upgrade")
        && one(http::header::UPGRADE, "websocket")
        && one(http::header::SEC_WEBSOCKET_VERSION, "13")
        && headers.get(http::header::SEC_WEBSOCKET_KEY).is_some_and(|key| key.len() == 24)
}

/// One message.
pub fn message(bytes: &Bytes, limits: &scan::Limits) -> Result<Message, Refusal> {
    match scan::scan(bytes, limits)? {
        Scanned::One(message) => legacy(&message).map(|()| message),
        Scanned::Batch(_) => Err(Refusal::OneMessage),
    }
}

/// One message over a connection that lasts, which serves both eras: what says that it is modern is judged as such later.
pub fn message_of_either_era(bytes: &Bytes, limits: &scan::Limits) -> Result<Message, Refusal> {
    match scan::scan(bytes, limits)? {
        Scanned::One(message) if message.meta_version().is_some() => Ok(message),
        Scanned::One(message) => legacy(&message).map(|()| message),
        Scanned::Batch(_) => Err(Refusal::OneMessage),
    }
}

/// Several messages, or one; each is judged by itself later.
pub fn messages(bytes: &Bytes, limits: &scan::Limits) -> Result<Scanned, Refusal> {
    let scanned = scan::scan(bytes, limits)?;
    scanned.messages().iter().try_for_each(legacy)?;
    Ok(scanned)
}

/// What names a later version cannot be served here, and what a method needs has to be there.
fn legacy(message: &Message) -> Result<(), Refusal> {
    if message.meta_version().is_some() {
        return Err(Refusal::LegacyTransport);
    }
    Operation::of(message).map(drop).map_err(|member| Refusal::InvalidParams { member })
}
