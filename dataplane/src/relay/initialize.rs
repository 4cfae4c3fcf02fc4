//! The legacy handshake: the server opens a session, the client gets it sealed.
//!
//! The one answer that is read whole although it may be a stream: what was negotiated goes into the token, and the token
//! into the head.

use bytes::Bytes;
use http::header::HeaderValue;
use http::response::Parts;
use hyper::body::Incoming;
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::Snapshot;
use serde::Deserialize;

use super::{Media, OK, Settings, collect, media, outcome, passed_on, whole};
use crate::pipeline::Reply;
use crate::pipeline::authenticate::seconds_since_epoch;
use crate::pipeline::denial::{Denial, RelayDenial, RouteDenial};
use crate::pipeline::route::{Routed, holder};
use crate::pipeline::trail::Ending;
use crate::session::{self, SealError, Session};
use crate::sse::Framer;
use crate::transport::Version;
use crate::transport::header::SESSION_ID;

#[derive(Deserialize)]
struct Answer {
    result: Option<Opened>,
}

#[derive(Deserialize)]
struct Opened {
    #[serde(rename = "protocolVersion")]
    protocol_version: String,
}

/// Passes the answer to `initialize` on, with the session sealed where one was opened.
pub async fn answer(call: Routed, head: &Parts, body: Incoming, config: &Snapshot, settings: &Settings) -> Result<Reply, Denial> {
    let media = media(&head.headers);
    let bytes = collect(body, settings.limits.sse_event_bytes, settings.timeouts.stream_idle).await?;
    let message = match media {
        Media::Json => bytes.clone(),
        Media::Events => response_in(&bytes)?,
        Media::Other => return Err(RelayDenial::ContentType.into()),
    };
    let (outcome, error_code) = outcome::of(&message).ok_or(RelayDenial::BadInitialize)?;
    let mut headers = passed_on(&head.headers);
    if outcome != Outcome::Error {
        headers.insert(SESSION_ID, seal(&call, head, &message, config, settings)?);
    }
    Ok(whole(head.status, headers, bytes, Ending { outcome, error_code, ..OK }))
}

/// The response among the events of a finished stream.
fn response_in(stream: &Bytes) -> Result<Bytes, RelayDenial> {
    let mut framer = Framer::new(stream.len().max(1));
    framer.push(stream.clone());
    while let Ok(Some(event)) = framer.next_event() {
        if let Some(data) = event.data().filter(|data| outcome::of(data).is_some()) {
            return Ok(data);
        }
    }
    Err(RelayDenial::BadInitialize)
}

fn seal(call: &Routed, head: &Parts, message: &[u8], config: &Snapshot, settings: &Settings) -> Result<HeaderValue, Denial> {
    let opened: Answer = serde_json::from_slice(message).map_err(|_unreadable| RelayDenial::BadInitialize)?;
    let negotiated = opened.result.and_then(|result| Version::parse(&result.protocol_version));
    let upstream_id = head.headers.get(SESSION_ID).map(|id| id.to_str()).transpose();
    let issued_at = u64::try_from(seconds_since_epoch()).unwrap_or(0);
    let session = Session {
        upstream_id: upstream_id.map_err(|_not_ascii| RelayDenial::BadInitialize)?.map(Box::from),
        endpoint: call.endpoint(),
        version: negotiated.ok_or(RelayDenial::BadInitialize)?,
        issued_at,
        expires_at: issued_at + settings.timeouts.session.as_secs(),
    };
    let holder = holder(call.call().principal(), call.server());
    let key = config.session_keys().current().ok_or(RouteDenial::NoSessionKey)?;
    let token = session::seal(key, &holder, &session).map_err(|error| match error {
        SealError::Crypto => Denial::from(RouteDenial::NoSessionKey),
        SealError::UpstreamId => Denial::from(RelayDenial::BadInitialize),
    })?;
    Ok(HeaderValue::from_str(&token).expect("a sealed token is visible ASCII"))
}
