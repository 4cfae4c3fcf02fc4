//! The answer to one POST: a message, or a stream of them that may break and be taken up again where it broke; and what a refusal means.

use ::http::header::HeaderValue;
use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::{LONGEST_WAIT, Received, Upstreams};
use super::events::{Events, is_events};
use super::http::GOODBYE;
use super::{FromServer, LONGEST_RETRY, RETRY};
use crate::owned::number;
use crate::relay;
use crate::transport::Version;
use crate::transport::header::LAST_EVENT_ID;
use crate::transport::server_message::{self, ServerMessage};

/// Attempts to take a stream up again that bring nothing, at most.
const ATTEMPTS: u32 = 5;

/// The reading of one answer.
pub(super) struct Reading<'a> {
    pub upstreams: &'a Upstreams,
    /// Takes a stream up again, once it says where; none: a stream that broke is lost.
    pub template: Option<Request<Full<Bytes>>>,
    pub limit: usize,
    /// The session's number for the request.
    pub request: u64,
    pub to: &'a mpsc::Sender<FromServer>,
}

/// What an exchange brought.
pub(super) enum Said {
    /// The response, with the version in it if it names one.
    Answered(Option<Version>),
    Nothing(&'static str),
    /// Nobody is interested any more.
    Abandoned,
}

/// What a stream came to before it ended.
enum Stream {
    Done(Said),
    /// It broke off, and can be taken up there.
    Broke(HeaderValue),
}

impl Reading<'_> {
    /// Hands on the messages of an answer, up to the response.
    pub async fn answer(self, response: Response<Received>) -> Said {
        if !is_events(response.headers()) {
            let Ok(body) = Limited::new(response.into_body(), self.limit).collect().await else {
                return Said::Nothing("its answer broke off");
            };
            let message = body.to_bytes();
            if message.is_empty() {
                return Said::Nothing("its answer is empty");
            }
            let version = negotiated(&message);
            return if self.say(message).await { Said::Answered(version) } else { Said::Abandoned };
        }
        let (mut body, mut attempts, mut wait) = (response.into_body(), 0, RETRY);
        let mut last = None;
        loop {
            let before = last.clone();
            match self.stream(body, &mut last, &mut wait).await {
                Stream::Done(said) => return said,
                Stream::Broke(place) => {
                    let Some(template) = &self.template else { return Said::Nothing("its stream broke off") };
                    attempts = if before.as_ref() == Some(&place) { attempts + 1 } else { 1 };
                    body = loop {
                        if attempts > ATTEMPTS {
                            return Said::Nothing("its stream broke off and could not be taken up again");
                        }
                        tokio::time::sleep(wait).await;
                        let mut again = template.clone();
                        again.headers_mut().insert(LAST_EVENT_ID, place.clone());
                        match self.upstreams.carry(again, LONGEST_WAIT).await {
                            Ok(response) if response.status().is_success() && is_events(response.headers()) => {
                                break response.into_body();
                            }
                            Ok(_refused) => return Said::Nothing("its stream broke off and is not there any more"),
                            Err(_fault) => attempts += 1,
                        }
                    };
                }
            }
        }
    }

    async fn stream(&self, body: Received, last: &mut Option<HeaderValue>, wait: &mut std::time::Duration) -> Stream {
        let mut events = Events::of(body, self.limit);
        while let Some(event) = events.next().await {
            if let Some(retry) = event.retry() {
                *wait = retry.min(LONGEST_RETRY);
            }
            if let Some(id) = event.id().and_then(|id| HeaderValue::from_str(&id).ok()) {
                *last = Some(id);
            }
            let Some(message) = event.data().filter(|data| !data.is_empty()) else { continue };
            let (ends, version) = (answers(&message, self.request), negotiated(&message));
            if !self.say(message).await {
                return Stream::Done(Said::Abandoned);
            }
            if ends {
                return Stream::Done(Said::Answered(version));
            }
        }
        match last {
            Some(place) => Stream::Broke(place.clone()),
            None => Stream::Done(Said::Nothing("its stream ended without an answer")),
        }
    }

    async fn say(&self, message: Bytes) -> bool {
        self.to.send(FromServer::Message { message, about: Some(self.request) }).await.is_ok()
    }
}

/// A server's refusal.
pub(super) enum Refusal {
    /// It does not know the session.
    Lost,
    /// In the protocol's own terms.
    Said(Bytes),
    Mute,
}

/// What a server says when it refuses something.
pub(super) async fn refusal(response: Response<Received>, limit: usize) -> Bytes {
    let body = timeout(GOODBYE, Limited::new(response.into_body(), limit.min(64 << 10)).collect()).await;
    body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default()
}

/// What a refusal means; `had_session`: whether a session was named.
pub(super) fn read(status: StatusCode, body: Bytes, had_session: bool) -> Refusal {
    if had_session && relay::lost_session(status, &body) {
        return Refusal::Lost;
    }
    if is_response(&body) { Refusal::Said(body) } else { Refusal::Mute }
}

/// Whether a message is the answer to this request: servers have been seen to say others on the same stream.
fn answers(message: &[u8], request: u64) -> bool {
    let is_ours = |message: &ServerMessage<'_>| match message {
        ServerMessage::Result { id, .. } | ServerMessage::Error { id: Some(id), .. } => number(id) == Some(request),
        ServerMessage::Error { id: None, .. } => true,
        ServerMessage::Request { .. } | ServerMessage::Notification { .. } => false,
    };
    server_message::read(message).is_ok_and(|messages| messages.iter().any(is_ours))
}

fn is_response(message: &[u8]) -> bool {
    server_message::read(message).is_ok_and(|messages| messages.iter().any(ServerMessage::is_response))
}

fn negotiated(message: &[u8]) -> Option<Version> {
    server_message::read(message).ok()?.iter().find_map(|message| match message {
        ServerMessage::Result { facts, .. } => Version::parse(facts.protocol_version.as_deref()?),
        ServerMessage::Request { .. } | ServerMessage::Notification { .. } | ServerMessage::Error { .. } => None,
    })
}
