//! Streams of changes of modern clients, in the session that their requests share: a server that keeps something apart for each session, or
//! that is a process, tells there what those requests did. Each stream tells what its client asked for, and resources are subscribed to as
//! long as a stream is about them.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use super::Claim;
use super::actor::Actor;
use super::stream::{End, Outgoing, Tap};
use crate::bridge::legacy_server::Wanted;
use crate::upstream::link::Kind;

/// A modern client wants to be told of changes.
pub(crate) struct Listen {
    /// The id of its request in the records.
    pub request: Uuid,
    /// As far as the server can tell.
    pub wanted: Wanted,
    pub tap: Tap,
    /// Where the session is for this stream alone.
    pub claim: Option<Claim>,
}

/// One of those clients, by the number of its stream.
pub(super) struct Listener {
    request: Uuid,
    wanted: Wanted,
    /// Whether it was told what it will be told of; nothing else comes before that.
    is_agreed: bool,
    _claim: Option<Claim>,
}

impl Actor {
    /// From now on its resources are kept subscribed; it is told nothing yet.
    pub(super) async fn begin_listening(&mut self, Listen { request, wanted, tap, claim }: Listen) {
        if self.link.is_none() && Box::pin(self.heal()).await.is_err() {
            return tap.end(End::ServerGone);
        }
        let stream = self.own_stream(tap);
        self.listeners.insert(stream, Listener { request, wanted, is_agreed: false, _claim: claim });
    }

    /// The server knows what is listened for, except for what it `refused`.
    pub(super) fn agree(&mut self, request: Uuid, refused: &HashSet<String>) {
        let Some((stream, listener)) = self.listeners.iter_mut().find(|(_, listener)| listener.request == request) else {
            return;
        };
        listener.wanted.uris.retain(|uri| !refused.contains(uri));
        listener.is_agreed = true;
        let (stream, acknowledged) = (*stream, listener.wanted.acknowledged());
        self.deliver(stream, Outgoing::said(acknowledged));
    }

    /// Something changed: whoever asked for that is told.
    pub(super) fn tell_listeners(&mut self, message: &Bytes, method: &str) {
        let agreed = self.listeners.iter().filter(|(_, listener)| listener.is_agreed);
        let told: Vec<(u32, Bytes)> =
            agreed.filter_map(|(stream, listener)| Some((*stream, listener.wanted.tell(message, method)?))).collect();
        for (stream, message) in told {
            self.deliver(stream, Outgoing::said(message));
        }
    }

    /// Whether a request that was given up is one of these; then its stream is over.
    pub(super) fn stops_listening(&mut self, request: Uuid) -> bool {
        let found = self.listeners.iter().find(|(_, listener)| listener.request == request).map(|(stream, _)| *stream);
        if let Some(stream) = found {
            self.close(stream);
        }
        found.is_some()
    }

    /// The node stops: streams end in good order.
    pub(super) fn end_listening(&mut self) {
        let ends: Vec<(u32, Bytes)> = self.listeners.drain().map(|(stream, listener)| (stream, listener.wanted.over())).collect();
        for (stream, over) in ends {
            self.hand(stream, Outgoing::answer(over, None));
        }
    }

    /// Forgets those whose streams are gone, and what nobody else listens for.
    pub(super) fn forget_listeners(&mut self) {
        let gone: Vec<Listener> =
            self.listeners.extract_if(|stream, _| !self.streams.contains_key(stream)).map(|(_, listener)| listener).collect();
        let mut uris: HashSet<String> = gone.into_iter().flat_map(|listener| listener.wanted.uris).collect();
        uris.retain(|uri| !self.listeners.values().any(|listener| listener.wanted.uris.contains(uri)));
        for uri in uris {
            let number = self.calls.number();
            let params = json!({ "uri": uri });
            let message = json!({ "jsonrpc": "2.0", "id": number, "method": "resources/unsubscribe", "params": params });
            // Nobody waits for the answer.
            self.say_to_server(message.to_string().into(), Kind::Request(number));
        }
    }
}
