//! The legacy handshake: the server opens a session, the client gets it sealed.
//!
//! The one answer that is read up to its response although it may be a stream: what was negotiated goes into the token,
//! and the token into the head.

use super::gather::collect;
use super::guard::{Examined, Guard, Passage};
use super::outcome::Answered;
use super::{Media, Settings, media, passed_on, whole};
use crate::pipeline::Reply;
use crate::pipeline::authenticate::seconds_since_epoch;
use crate::pipeline::denial::{Denial, RelayDenial, RouteDenial};
use crate::pipeline::route::{Routed, holder};
use crate::pipeline::trail::Ending;
use crate::session::{self, SealError, Session, Token};
use crate::sse::Framer;
use crate::transport::Version;
use crate::transport::header::SESSION_ID;
use crate::transport::server_message::{self, ServerMessage};
use crate::upstream::Received;
use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use http::response::Parts;
use http_body_util::BodyExt;
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::Snapshot;

/// Passes the answer to `initialize` on, with the session sealed where one was opened.
pub async fn answer(call: Routed, head: &Parts, body: Received, config: &Snapshot, settings: &Settings) -> Result<Reply, Denial> {
    let (limit, idle) = (settings.limits.sse_event_bytes, settings.timeouts.stream_idle);
    let guard = Guard::of(&call);
    let opening = match media(&head.headers) {
        Media::Json => {
            let bytes = collect(body, limit, idle).await?;
            let Examined { passage: Passage::AsItIs, answer: Some(answer) } = guard.examine(&bytes, limit)? else {
                return Err(RelayDenial::BadInitialize.into());
            };
            Opening { message: bytes.clone(), bytes, answer }
        }
        Media::Events => {
            let reading = first_response(body, &guard, limit);
            tokio::time::timeout(idle, reading).await.map_err(|_elapsed| RelayDenial::Broken)??
        }
        Media::Other => return Err(RelayDenial::ContentType.into()),
    };
    let mut headers = passed_on(&head.headers);
    if opening.answer.outcome != Outcome::Error {
        headers.insert(SESSION_ID, seal(&call, head, &opening.message, config, settings)?);
    }
    Ok(whole(head.status, headers, opening.bytes, Ending::of(opening.answer)))
}

/// What a server said to `initialize`.
struct Opening {
    /// For the client: the message, or the events up to and including it.
    bytes: Bytes,
    message: Bytes,
    answer: Answered,
}

/// Reads a stream up to the response, whether or not the server closes it then. A session that does not exist yet has
/// no way to ask anything, so requests before the response are left out.
async fn first_response(mut body: Received, guard: &Guard<'_>, limit: u64) -> Result<Opening, RelayDenial> {
    let mut framer = Framer::new(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|_broken| RelayDenial::Broken)?.into_data() else { continue };
        framer.push(chunk);
        while let Some(event) = framer.next_event().map_err(|_large| RelayDenial::TooLarge { limit })? {
            let Some(message) = event.data().filter(|data| !data.is_empty()) else {
                bytes.extend_from_slice(event.raw());
                continue;
            };
            match guard.examine(&message, limit)? {
                Examined { passage: Passage::Withheld(_), .. } => continue,
                Examined { passage: Passage::Changed(_), .. } => return Err(RelayDenial::BadInitialize),
                Examined { passage: Passage::AsItIs, answer } => {
                    bytes.extend_from_slice(event.raw());
                    if let Some(answer) = answer {
                        return Ok(Opening { bytes: bytes.freeze(), message, answer });
                    }
                }
            }
            if bytes.len() as u64 > limit {
                return Err(RelayDenial::TooLarge { limit });
            }
        }
    }
    Err(RelayDenial::BadInitialize)
}

/// The version in the response.
fn negotiated(message: &[u8]) -> Option<Version> {
    server_message::read(message).ok()?.iter().find_map(|message| match message {
        ServerMessage::Result { facts, .. } => Version::parse(facts.protocol_version.as_deref()?),
        ServerMessage::Request { .. } | ServerMessage::Notification { .. } | ServerMessage::Error { .. } => None,
    })
}

fn seal(call: &Routed, head: &Parts, message: &[u8], config: &Snapshot, settings: &Settings) -> Result<HeaderValue, Denial> {
    let upstream_id = head.headers.get(SESSION_ID).map(|id| id.to_str()).transpose();
    let issued_at = u64::try_from(seconds_since_epoch()).unwrap_or(0);
    let session = Session {
        upstream_id: upstream_id.map_err(|_not_ascii| RelayDenial::BadInitialize)?.map(Box::from),
        endpoint: call.endpoint(),
        version: negotiated(message).ok_or(RelayDenial::BadInitialize)?,
        issued_at,
        expires_at: issued_at + settings.timeouts.session.as_secs(),
    };
    let holder = holder(call.call().principal(), call.server());
    let key = config.session_keys().current().ok_or(RouteDenial::NoSessionKey)?;
    let token = session::seal(key, &holder, &Token::Sealed(session)).map_err(|error| match error {
        SealError::Crypto => Denial::from(RouteDenial::NoSessionKey),
        SealError::UpstreamId => Denial::from(RelayDenial::BadInitialize),
    })?;
    Ok(HeaderValue::from_str(&token).expect("a sealed token is visible ASCII"))
}
