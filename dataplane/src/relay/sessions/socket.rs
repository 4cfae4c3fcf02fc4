//! WebSocket clients: one JSON-RPC message per text frame, subprotocol `mcp`; the session is the socket (MCP.md section 4). The caller is
//! known before the upgrade, and judged again whenever something changed, message by message. Modern clients have no session: what says
//! that it is modern is an exchange of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt, StreamExt as _};
use http::StatusCode;
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::Snapshot;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message as Frame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};
use uuid::Uuid;

use super::exchange::Exchanges;
use super::{Side, judge, keep_alive, open, pass, pipe, until};
use crate::owned::stream::{End, Outgoing, Spout};
use crate::owned::{Command, Handle};
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::authenticate::ticket::GOOD_FOR;
use crate::pipeline::denial::{DecodeDenial, Denial, RouteDenial};
use crate::pipeline::limit::Seat;
use crate::pipeline::target::Upgrade;
use crate::pipeline::trail::{Ending, Stage, Trail};
use crate::pipeline::{Pipeline, Reply};
use crate::relay::outcome::Answered;
use crate::relay::{OK, Standing, whole};
use crate::tasks::OnExit;
use crate::transport::scan::Message;
use crate::transport::{Refusal, message_of_either_era, scan};

/// Messages that leave in one write at most.
const TOGETHER: usize = 64;
/// How long the other side may take to close.
const FAREWELL: Duration = Duration::from_secs(2);

/// One open socket.
struct Socket {
    pipeline: Arc<Pipeline>,
    /// The request that opened it: what its messages come by.
    opened: Authenticated,
    session: Handle,
    standing: Standing,
    spout: Spout,
    /// Of a client that says everything with every request.
    exchanges: Exchanges,
    stream: WebSocketStream<TokioIo<Upgraded>>,
    limits: scan::Limits,
    trail: Trail,
    write: Duration,
    bytes: u64,
    events: u32,
    _seat: Seat,
}

/// Why a socket is closed.
struct Close {
    code: CloseCode,
    reason: &'static str,
    outcome: Outcome,
}

const GONE: Close = Close { code: CloseCode::Normal, reason: "", outcome: Outcome::Cancelled };

pub(super) async fn run(
    pipeline: &Arc<Pipeline>,
    call: Authenticated,
    upgrade: Option<Upgrade>,
    config: &Snapshot,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    if call.call().order().is_some() {
        return ticket(pipeline, call, trail).await;
    }
    let upgrade = upgrade.ok_or(DecodeDenial::from(Refusal::NoUpgrade))?;
    let passed = judge(pipeline, call, trail).await?;
    trail.mark(Stage::Route);
    let standing = pipeline.sessions().standing(&passed.call).map_err(RouteDenial::from)?;
    let session = open(pipeline, &passed.call, config, Side::Client).await?;
    trail.allowed().await?;
    let (tap, spout) = pipe(pipeline);
    session.ask(Command::Attach { tap, after: None }).await.map_err(|_over| RouteDenial::NoSession)?;
    let headers = accept(passed.call.call().headers());
    trail.status(StatusCode::SWITCHING_PROTOCOLS);
    let (trail, pipeline, keep_alive) = (trail.hand_over(), pipeline.clone(), keep_alive(pipeline, &passed.call));
    let (until, write) = (until(&pipeline, passed.call.principal()), pipeline.sessions().settings().write);
    let tasks = pipeline.relay().tasks().clone();
    tasks.spawn("websocket", OnExit::Ignore, async move {
        let Upgrade { connection, kept: _kept } = upgrade;
        let io = match connection.await {
            Ok(io) => TokioIo::new(io),
            Err(error) => return tracing::debug!(%error, "a connection was not upgraded"),
        };
        let limits = pipeline.scan_limits(passed.call.call().place());
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(protocol(&limits))).await;
        let (opened, _seat) = (passed.call.without_headers(), passed.seat);
        let exchanges = Exchanges::new();
        let socket = Socket {
            pipeline,
            opened,
            session,
            standing,
            spout,
            exchanges,
            stream,
            limits,
            trail,
            write,
            bytes: 0,
            events: 0,
            _seat,
        };
        socket.serve(keep_alive, until).await;
    });
    Ok(whole(StatusCode::SWITCHING_PROTOCOLS, headers, Bytes::new(), OK))
}

/// What a client's frames and messages may be.
pub(crate) fn protocol(limits: &scan::Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(limits.bytes))
        .max_frame_size(Some(limits.bytes))
}

/// A ticket for a socket, which lets in whoever the caller is.
async fn ticket(pipeline: &Arc<Pipeline>, call: Authenticated, trail: &mut Trail) -> Result<Reply, Denial> {
    let passed = judge(pipeline, call, trail).await?;
    trail.mark(Stage::Route);
    trail.allowed().await?;
    let (principal, server) = (passed.call.principal(), passed.call.server());
    let text =
        pipeline.tickets().issue(&pipeline.live().node(), principal, &server.id, Instant::now()).map_err(RouteDenial::from)?;
    let path = format!("/servers/{}/ws?ticket={text}", server.id);
    let body = serde_json::json!({ "ticket": text, "path": path, "expires_in": GOOD_FOR.as_secs() }).to_string();
    Ok(Reply::json(StatusCode::OK, body, OK))
}

/// The head of the answer (RFC 6455 section 4.2.2). The subprotocol is named only where it was offered.
fn accept(offered: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let key = offered.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes())).unwrap_or_default();
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&key).expect("Base64 is visible ASCII"));
    let protocols = offered.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    if protocols.flat_map(|value| value.split(',')).any(|protocol| protocol.trim() == "mcp") {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mcp"));
    }
    headers
}

impl Socket {
    async fn serve(mut self, keep_alive: Duration, until: Instant) {
        let metrics = self.pipeline.metrics();
        metrics.sockets.inc();
        let close = self.converse(keep_alive, until).await;
        metrics.sockets.dec();
        // It may be gone already.
        let _ = timeout(FAREWELL, self.part(&close)).await;
        self.session.end(End::Closed).await;
        let (bytes, events) = (self.bytes, self.events);
        self.trail.end(Ending { bytes, events, ..Ending::of(Answered::new(close.outcome, 0)) });
        self.trail.settled().await;
    }

    /// Closes for a reason, or answers the client's close if that came first.
    async fn part(&mut self, close: &Close) -> Result<(), Error> {
        let frame = CloseFrame { code: close.code, reason: Utf8Bytes::from_static(close.reason) };
        // Refused where the client closed: the answer to that is what is left to send.
        let _refused = self.stream.feed(Frame::Close(Some(frame))).await;
        SinkExt::close(&mut self.stream).await
    }

    /// Until either side, the time or the caller's rights are at their end.
    async fn converse(&mut self, keep_alive: Duration, until: Instant) -> Close {
        let draining = self.pipeline.relay().draining();
        let mut ticks = tokio::time::interval_at(Instant::now() + keep_alive, keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expired = pin!(tokio::time::sleep_until(until));
        let mut heard = true;
        loop {
            tokio::select! {
                biased;
                lost = poll_fn(|cx| self.standing.poll(cx).err().map_or(Poll::Pending, Poll::Ready)) => {
                    tracing::info!(subject = self.standing.principal().subject, %lost, "a socket was closed");
                    return Close { code: CloseCode::Policy, reason: "access was withdrawn", outcome: Outcome::Denied };
                }
                () = draining.cancelled() => {
                    return Close { code: CloseCode::Restart, reason: "the gateway restarts", outcome: Outcome::Ok };
                }
                () = expired.as_mut() => {
                    return Close { code: CloseCode::Policy, reason: "the credential expired", outcome: Outcome::Ok };
                }
                outgoing = self.spout.next() => {
                    let said = match outgoing {
                        Ok(outgoing) => timeout(self.write, self.say(outgoing)).await,
                        Err(end) => return closed(end),
                    };
                    if !matches!(said, Ok(Ok(()))) {
                        return GONE;
                    }
                }
                Some(outgoing) = self.exchanges.next() => {
                    if !matches!(timeout(self.write, self.say(outgoing)).await, Ok(Ok(()))) {
                        return GONE;
                    }
                }
                frame = self.stream.next() => {
                    heard = true;
                    if let Some(close) = self.take(frame).await {
                        return close;
                    }
                }
                _ = ticks.tick() => {
                    let ping = timeout(self.write, self.stream.send(Frame::Ping(Bytes::new())));
                    if !std::mem::replace(&mut heard, false) || !matches!(ping.await, Ok(Ok(()))) {
                        return Close { code: CloseCode::Away, reason: "no pong", outcome: Outcome::Cancelled };
                    }
                }
            }
        }
    }

    /// Sends a message, and with it whatever else is ready.
    async fn say(&mut self, first: Outgoing) -> Result<(), Error> {
        let mut next = Some(first);
        for _ in 0..TOGETHER {
            let Some(outgoing) = next else { break };
            if let Some(recorded) = outgoing.recorded {
                recorded.await;
            }
            self.bytes += outgoing.message.len() as u64;
            self.events += 1;
            if outgoing.message.is_empty() {
                self.stream.feed(Frame::Ping(Bytes::new())).await?;
            } else if let Ok(text) = Utf8Bytes::try_from(outgoing.message) {
                self.stream.feed(Frame::Text(text)).await?;
            }
            // What ends the stream is met again by whoever asks next.
            next = self.spout.next().now_or_never().and_then(Result::ok);
        }
        self.stream.flush().await
    }

    /// What comes from the client; a reason if the socket has to be closed for it.
    async fn take(&mut self, frame: Option<Result<Frame, Error>>) -> Option<Close> {
        let denied = Outcome::Denied;
        match frame {
            Some(Ok(Frame::Text(text))) => {
                // Boxed: a socket is silent most of the time, and would keep room for what a message needs.
                Box::pin(self.hear(text.into())).await;
                None
            }
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => None,
            Some(Ok(Frame::Binary(_))) => {
                Some(Close { code: CloseCode::Unsupported, reason: "text frames only", outcome: denied })
            }
            Some(Ok(Frame::Close(_))) | None => Some(Close { outcome: Outcome::Ok, ..GONE }),
            Some(Err(Error::Capacity(_))) => {
                Some(Close { code: CloseCode::Size, reason: "the message is too large", outcome: denied })
            }
            Some(Err(Error::Utf8(_))) => Some(Close { code: CloseCode::Invalid, reason: "not UTF-8", outcome: denied }),
            // It hung up without a word, which breaks no rule that anybody could be told of.
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Some(GONE),
            Some(Err(Error::Protocol(_))) => Some(Close { code: CloseCode::Protocol, reason: "", outcome: denied }),
            Some(Err(_broken)) => Some(GONE),
        }
    }

    /// One message of the client's, from text to session. What is wrong with it is said to the client, if it asked for an answer.
    async fn hear(&mut self, text: Bytes) {
        let mut trail = self.trail.branch(Uuid::now_v7());
        let (said, answerable) = match message_of_either_era(&text, &self.limits) {
            // What is given up may say of itself that it is modern, or not.
            Ok(message) if self.gives_up(&message) => (Ok(()), false),
            Ok(message) if message.meta_version().is_some() => {
                trail.echo(message.id());
                let answerable = message.is_request();
                match self.begin(message, &mut trail) {
                    Ok(()) => return,
                    Err(denial) => (Err(denial), answerable),
                }
            }
            Ok(message) => {
                trail.echo(message.id());
                let answerable = message.is_request();
                let call = self.opened.on_connection(&self.standing, message, self.session.facts.version.get().copied());
                call.call().describe(&mut trail);
                trail.mark(Stage::Decode);
                (forward(&self.pipeline, &self.session, call, &mut trail).await, answerable)
            }
            Err(refusal) => (Err(DecodeDenial::from(refusal).into()), true),
        };
        match said {
            Ok(()) => trail.end(OK),
            Err(denial) => {
                let denial = self.pipeline.counted(denial, &trail);
                let wire = denial.wire();
                let body = Bytes::from(wire.body(trail.echoed()));
                trail.refused(&denial, &wire, body.len() as u64);
                if answerable {
                    let outgoing = Outgoing { recorded: Some(Box::pin(trail.settled())), ..Outgoing::said(body) };
                    // A broken socket shows at the next turn.
                    let _ = timeout(self.write, self.say(outgoing)).await;
                }
            }
        }
        trail.settled().await;
    }
}

impl Socket {
    /// Begins what a modern client asks for, with the record; where that cannot be, the record stays.
    fn begin(&mut self, message: Message, trail: &mut Trail) -> Result<(), Denial> {
        let call = self.opened.by_itself(&self.standing, message).map_err(DecodeDenial::from)?;
        call.call().describe(trail);
        trail.mark(Stage::Decode);
        let begun = self.exchanges.begin(&self.pipeline, call, trail);
        begun.then_some(()).ok_or_else(|| DecodeDenial::from(Refusal::UnderWay).into())
    }

    /// Whether a message gives up what a modern client asked for; then it is given up.
    fn gives_up(&mut self, message: &Message) -> bool {
        let cancels = message.method() == Some("notifications/cancelled");
        cancels && message.cancelled_id().is_some_and(|id| self.exchanges.give_up(id))
    }
}

async fn forward(pipeline: &Pipeline, session: &Handle, call: Authenticated, trail: &mut Trail) -> Result<(), Denial> {
    let passed = judge(pipeline, call, trail).await?;
    pass(passed, session, None, trail).await
}

fn closed(end: End) -> Close {
    match end {
        End::Complete | End::Closed | End::Replaced => Close { code: CloseCode::Normal, reason: "", outcome: Outcome::Ok },
        End::ServerGone => Close { code: CloseCode::Error, reason: "the server is gone", outcome: Outcome::UpstreamFailed },
        End::Denied => Close { code: CloseCode::Policy, reason: "access was withdrawn", outcome: Outcome::Denied },
        End::Slow => Close { code: CloseCode::Policy, reason: "too slow", outcome: Outcome::Cancelled },
        End::Draining => Close { code: CloseCode::Restart, reason: "the gateway restarts", outcome: Outcome::Ok },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_an_upgrade_is_that_of_the_rfc_and_names_the_subprotocol_only_where_it_was_offered() {
        let mut offered = HeaderMap::new();
        // The example of RFC 6455 section 1.3.
        offered.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&offered)[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept(&offered).get(SEC_WEBSOCKET_PROTOCOL), None);
        offered.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat, mcp"));
        assert_eq!(accept(&offered)[SEC_WEBSOCKET_PROTOCOL], "mcp");
    }
}
