//! Requests of modern clients over a connection that lasts: each an exchange of its own with the server, as if it had come by itself, whose
//! answers go back over the connection under its id. Given up by `notifications/cancelled`, or with the connection (2026-07-28 stdio
//! transport, whose rules hold on sockets too).

use std::sync::Arc;

use hashbrown::HashMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::owned::stream::Outgoing;
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{Denial, TargetDenial};
use crate::pipeline::trail::Trail;
use crate::pipeline::{Pipeline, reply};
use crate::relay::Body;
use crate::sse::Framer;
use crate::tasks::OnExit;
use crate::transport::scan::Message;

/// Requests of one connection that are under way, at most.
const MOST: usize = 64;
/// Messages that may wait for the connection.
const QUEUE: usize = 32;

/// The exchanges of one connection.
pub(super) struct Exchanges {
    under_way: HashMap<Box<str>, CancellationToken>,
    say: mpsc::Sender<Outgoing>,
    said: mpsc::Receiver<Outgoing>,
    /// Cancelled with the connection.
    open: CancellationToken,
}

impl Exchanges {
    pub fn new() -> Self {
        let (say, said) = mpsc::channel(QUEUE);
        Self { under_way: HashMap::new(), say, said, open: CancellationToken::new() }
    }

    /// The next message for the client.
    pub async fn next(&mut self) -> Option<Outgoing> {
        self.said.recv().await
    }

    /// Begins an exchange; gives the record back if there are as many as may be, or one with this id.
    pub fn begin(&mut self, pipeline: &Arc<Pipeline>, call: Authenticated, trail: Trail) -> Result<(), Trail> {
        self.under_way.retain(|_, exchange| !exchange.is_cancelled());
        let id: Box<str> = call.call().message().and_then(Message::id).unwrap_or_default().into();
        if self.under_way.len() >= MOST || self.under_way.contains_key(&id) {
            return Err(trail);
        }
        let given_up = self.open.child_token();
        if !id.is_empty() {
            self.under_way.insert(id, given_up.clone());
        }
        let (say, pipeline) = (self.say.clone(), pipeline.clone());
        pipeline.relay().tasks().clone().spawn("exchange", OnExit::Ignore, async move {
            // Whatever it came to: given up, there is nobody to tell.
            let _ = given_up.run_until_cancelled(carry(&pipeline, call, trail, &say)).await;
            given_up.cancel();
        });
        Ok(())
    }

    /// Gives up the exchange of the request with this id; false: there is none.
    pub fn give_up(&mut self, id: &str) -> bool {
        self.under_way.remove(id).filter(|exchange| !exchange.is_cancelled()).map(|exchange| exchange.cancel()).is_some()
    }
}

impl Drop for Exchanges {
    fn drop(&mut self) {
        self.open.cancel();
    }
}

/// Carries one request to its server and what comes of it to the client.
async fn carry(pipeline: &Arc<Pipeline>, call: Authenticated, mut trail: Trail, say: &mpsc::Sender<Outgoing>) {
    let request_id = trail.id();
    let outcome = answer(pipeline, call, &mut trail).await;
    let outcome = outcome.map_err(|denial| pipeline.counted(denial, &trail));
    let (head, body) = reply::finish(outcome, trail, request_id, None).await.into_parts();
    let is_stream = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let most = usize::try_from(pipeline.config().limits.list_bytes).unwrap_or(usize::MAX);
    if is_stream {
        return events(body, most, say).await;
    }
    let Ok(whole) = Limited::new(body, most).collect().await else { return };
    let whole = whole.to_bytes();
    if !whole.is_empty() {
        // The connection may be gone.
        let _ = say.send(Outgoing::said(whole)).await;
    }
}

async fn answer(pipeline: &Arc<Pipeline>, call: Authenticated, trail: &mut Trail) -> Result<reply::Reply, Denial> {
    let config = pipeline.live().snapshot().ok_or(TargetDenial::NotReady)?;
    pipeline.carry(call, None, &config, trail).await
}

/// Each event of a stream as a message.
async fn events(mut body: Body, most: usize, say: &mpsc::Sender<Outgoing>) {
    let mut framer = Framer::new(most);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        framer.push(data);
        while let Ok(Some(event)) = framer.next_event() {
            let Some(data) = event.data().filter(|data| !data.is_empty()) else { continue };
            if say.send(Outgoing::said(data)).await.is_err() {
                return;
            }
        }
    }
}
