//! The life of one session: what its client asks and what its server says, in one task, one after the other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use mcp_gateway::proto::node::v1::Outcome;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::calls::{Call, Calls};
use super::link::Opening;
use super::listening::Listener;
use super::log::Log;
use super::splice::splice;
use super::stream::{End, EventId, Outgoing, Tap};
use super::{Command, Facts, Manners, Surroundings};
use crate::pipeline::limit::Seat;
use crate::pipeline::trail::Trail;
use crate::relay::outcome::Answered;
use crate::relay::{Lost, Standing};
use crate::transport::scan::{Kind as Form, Message};
use crate::upstream::link::{FromServer, Kind, Link, ToServer, Way};

/// Requests that one session may have under way.
const MOST_CALLS: usize = 256;
/// Questions of the server's that one session may have open.
pub(super) const MOST_QUESTIONS: usize = 64;
const OVER: &str = "The session is over";
/// Messages that may wait for a server that does not take them, beside the one that is being handed on.
const MOST_WAITING: usize = 1024;
/// The stream that answers no request.
pub(super) const STANDING: u32 = 0;

/// See the module.
pub(super) struct Actor {
    pub(super) id: Uuid,
    pub(super) around: Arc<Surroundings>,
    pub(super) standing: Standing,
    pub(super) way: Way,
    pub(super) manners: Manners,
    pub(super) facts: Arc<Facts>,
    pub(super) link: Option<Link>,
    /// What the server has not taken yet.
    pub(super) outbox: VecDeque<ToServer>,
    /// The client's `initialize`, to open another session with the server if this one is lost.
    pub(super) opening: Option<Opening>,
    pub(super) calls: Calls,
    /// Questions of the server's, by id as it wrote it, and the stream that each went to.
    pub(super) questions: HashMap<Box<str>, u32>,
    pub(super) streams: HashMap<u32, Tap>,
    pub(super) last_stream: u32,
    pub(super) log: Log,
    /// What was said last on the standing stream while somebody read it.
    pub(super) said: EventId,
    /// Whether the server keeps something for this session that another one would not have.
    pub(super) bound: bool,
    /// Modern clients that are told of changes, by the number of their stream.
    pub(super) listeners: HashMap<u32, Listener>,
    used: Instant,
}

impl Actor {
    pub fn new(
        id: Uuid,
        around: Arc<Surroundings>,
        standing: Standing,
        way: Way,
        (manners, facts): (Manners, Arc<Facts>),
    ) -> Self {
        let log =
            Log::new(if manners.resumable { usize::try_from(around.sessions.replay_bytes).unwrap_or(usize::MAX) } else { 0 });
        Self {
            id,
            around,
            standing,
            way,
            manners,
            facts,
            link: None,
            outbox: VecDeque::new(),
            opening: None,
            calls: Calls::default(),
            questions: HashMap::new(),
            streams: HashMap::new(),
            last_stream: STANDING,
            log,
            said: EventId { stream: STANDING, place: 0 },
            bound: false,
            listeners: HashMap::new(),
            used: Instant::now(),
        }
    }

    /// Serves until the session is over.
    pub async fn run(mut self, mut mailbox: mpsc::Receiver<Command>) {
        let end = self.serve(&mut mailbox).await;
        // Whoever asks from now on is told; whoever has asked is answered.
        mailbox.close();
        while let Some(command) = mailbox.recv().await {
            match command {
                Command::Call { message, record, tap, .. } => self.refuse(&message, record, tap, OVER),
                Command::Cross(across) => self.refuse_across(*across, OVER),
                _ => {}
            }
        }
        let outcome = match end {
            End::Denied => Outcome::Denied,
            End::ServerGone => Outcome::UpstreamFailed,
            End::Complete | End::Closed | End::Slow | End::Replaced | End::Draining => Outcome::Cancelled,
        };
        for (_, call) in self.calls.drain().collect::<Vec<_>>() {
            match end {
                End::ServerGone => self.fail(call, "The connection to the server was lost; the call may have had effects"),
                End::Denied | End::Complete | End::Closed | End::Slow | End::Replaced | End::Draining => {
                    call.abandon(Answered::new(outcome, 0));
                }
            }
        }
        if end == End::Draining {
            self.end_listening();
        }
        for (_, tap) in self.streams.drain() {
            tap.end(end);
        }
    }

    async fn serve(&mut self, mailbox: &mut mpsc::Receiver<Command>) -> End {
        let (stopping, spent) = (self.around.draining.clone(), self.facts.spent.clone());
        let clock = tokio::time::sleep(self.manners.idle);
        tokio::pin!(clock);
        loop {
            let next = self.next_alarm();
            if clock.deadline() != next {
                clock.as_mut().reset(next);
            }
            let reader = self.streams.get(&STANDING).filter(|_| self.manners.lives_with_stream).cloned();
            let (to, from) = self.link.as_mut().map(|link| (&link.to, &mut link.from)).unzip();
            tokio::select! {
                biased;
                lost = lost(&mut self.standing) => return self.denied(lost),
                () = stopping.cancelled() => return End::Draining,
                () = gone(reader.as_ref()) => return End::Closed,
                // Whatever waits for the server leaves before more is taken in.
                taken = hand_over(to, &mut self.outbox) => {
                    if !taken && let Err(end) = self.server_lost("it takes nothing any more").await {
                        return end;
                    }
                }
                heard = listen(from) => {
                    if let Err(end) = self.hear(heard).await {
                        return end;
                    }
                }
                command = mailbox.recv(), if self.outbox.is_empty() => {
                    let Some(command) = command else { return End::Closed };
                    self.used = Instant::now();
                    if let Some(end) = self.obey(command).await {
                        return end;
                    }
                }
                // Whatever was said with the last request was heard.
                () = spent.cancelled(), if self.outbox.is_empty() && self.calls.is_empty() => return End::Closed,
                () = clock.as_mut() => if let Some(end) = self.alarm() { return end },
            }
            if self.is_over() {
                return End::Closed;
            }
        }
    }

    /// Sessions that live with their stream end with it.
    fn is_over(&self) -> bool {
        self.manners.lives_with_stream && self.streams.get(&STANDING).is_none_or(Tap::is_gone)
    }

    fn denied(&self, lost: Lost) -> End {
        tracing::info!(subject = self.standing.principal().subject, %lost, "a session was ended");
        self.around.metrics.streams_revoked.inc();
        End::Denied
    }

    async fn obey(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Call { message, record, tap, caller } => {
                caller.into_iter().for_each(|caller| self.standing.assume(caller));
                match self.ready(&message).await {
                    Ok(()) => self.send(&message, record, tap),
                    Err(why) => self.refuse(&message, record, tap, why),
                }
            }
            Command::Connect { reply } => {
                let connected = self.connected().await.is_ok();
                // Whoever asked may be gone.
                let _ = reply.send(connected);
            }
            Command::Cross(across) => self.cross(*across).await,
            Command::Listen(listen) => self.begin_listening(*listen).await,
            Command::Agree { request, refused } => self.agree(request, &refused),
            Command::Tell { message } => self.tell(&message),
            Command::Attach { tap, after } => self.attach(tap, after),
            Command::Say { message } => self.deliver(STANDING, Outgoing::said(message)),
            Command::HungUp { request } => self.hung_up(request),
            Command::Ping => self.hand(STANDING, Outgoing::said(Bytes::new())),
            Command::Replay { after, reply } => {
                let said = self.log.after(after).map(|(event, message)| (event, message.clone())).collect();
                // Whoever asked may be gone.
                let _ = reply.send(said);
            }
            Command::End(end) => return Some(end),
        }
        None
    }

    /// Whatever is due: calls that take too long, and a session that nobody uses.
    fn alarm(&mut self) -> Option<End> {
        let now = Instant::now();
        for number in self.calls.overdue(now) {
            if self.ask_client(number, now) {
                continue;
            }
            if let Some(call) = self.calls.remove(number) {
                self.say_cancelled(number);
                self.fail(call, "The server did not answer in time");
            }
        }
        self.streams.retain(|_, tap| !tap.is_gone());
        self.forget_listeners();
        self.count_streams();
        let idle = self.calls.is_empty() && self.streams.is_empty() && now >= self.used + self.manners.idle;
        idle.then_some(End::Closed)
    }

    fn next_alarm(&self) -> Instant {
        let idle = self.used + self.manners.idle;
        // While somebody reads, silence is no reason to end; look again later.
        let idle = if idle <= Instant::now() { Instant::now() + self.manners.idle } else { idle };
        self.calls.deadline().map_or(idle, |deadline| deadline.min(idle))
    }

    /// Takes a request of the client's on its way to the server.
    fn send(&mut self, message: &Message, record: Option<Box<(Trail, Seat)>>, tap: Option<Tap>) {
        let number = self.calls.number();
        let stream = tap.map_or(STANDING, |tap| self.own_stream(tap));
        let initialize = message.method() == Some("initialize");
        self.bound |= matches!(message.method(), Some("resources/subscribe" | "logging/setLevel"));
        let deadline = Instant::now() + self.way.server.call_timeout;
        self.calls.insert(number, Call { initialize, ..Call::new(message, stream, record, deadline) });
        let kind = if initialize { Kind::Initialize(number) } else { Kind::Request(number) };
        self.say_to_server(renumbered(message, number), kind);
    }

    /// Whether another request fits; a refusal gives the record back.
    pub(super) fn has_room(&self, message: &Message) -> Result<(), &'static str> {
        let id = message.id().unwrap_or("null");
        // Callers without a session of their own share one, and know nothing of each other's ids.
        if self.manners.listens && self.manners.modern.is_none() && self.calls.called(id).is_some() {
            return Err("A request with this id is under way");
        }
        if self.calls.len() >= MOST_CALLS {
            return Err("Too many requests of this session are under way");
        }
        Ok(())
    }

    /// A notification of the client's, or its answer to a question.
    fn tell(&mut self, message: &Message) {
        match message.kind() {
            Form::Response | Form::ErrorResponse => {
                // Answers nobody asked for go nowhere.
                let asked = message.id().and_then(|id| self.questions.remove(id));
                if asked.is_some() {
                    self.say_to_server(message.bytes(), Kind::Other);
                } else {
                    tracing::debug!(server = %self.way.server.slug, "an answer to no question was dropped");
                }
            }
            Form::Notification if message.method() == Some("notifications/cancelled") => self.cancel(message),
            Form::Notification if message.method() == Some("notifications/initialized") => {
                self.say_to_server(message.bytes(), Kind::Initialized);
            }
            Form::Notification | Form::Request => self.say_to_server(message.bytes(), Kind::Other),
        }
    }

    /// The client gives a request up: the server is told in its own terms, and nothing more is said about it.
    fn cancel(&mut self, message: &Message) {
        let Some(number) = message.cancelled_id().and_then(|id| self.calls.called(id)) else { return };
        let Some(span) = message.cancelled_id_span() else { return };
        if self.calls.get_mut(number).is_some_and(|call| call.initialize) {
            return;
        }
        let digits = number.to_string();
        let bytes = splice(&message.bytes(), &[(span.before(message.span().range().start), &digits)]);
        self.say_to_server(bytes, Kind::Cancelled(number));
        if let Some(call) = self.calls.remove(number) {
            self.close(call.stream);
            call.abandon(Answered::new(Outcome::Cancelled, 0));
        }
    }

    /// The client of a request that has no other way to give it up is gone.
    fn hung_up(&mut self, request: Uuid) {
        if self.stops_listening(request) {
            return;
        }
        let Some(number) = self.calls.recorded_as(request) else { return };
        self.say_cancelled(number);
        if let Some(call) = self.calls.remove(number) {
            self.close(call.stream);
            call.abandon(Answered::new(Outcome::Cancelled, 0));
        }
    }

    pub(super) fn say_cancelled(&mut self, number: u64) {
        let cancelled = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number}}}}}"#);
        self.say_to_server(cancelled.into(), Kind::Cancelled(number));
    }

    pub(super) fn say_to_server(&mut self, message: Bytes, kind: Kind) {
        if self.link.is_none() {
            // Whoever opens another link begins anew: nothing said before means anything there.
            tracing::debug!(server = %self.way.server.slug, "nobody is there to be told");
        } else if self.outbox.len() < MOST_WAITING {
            self.outbox.push_back(ToServer::new(message, kind));
        } else {
            // It only grows by what a server that does not listen asks for itself.
            tracing::warn!(server = %self.way.server.slug, "a server does not take its answers; one was dropped");
        }
    }

    /// Answers a call with an error of the gateway's.
    pub(super) fn fail(&mut self, call: Call, why: &str) {
        let message = error(&call.id, -32603, why);
        let (stream, outcome) = (call.stream, Answered::new(Outcome::UpstreamFailed, -32603));
        let recorded = call.end(outcome, &message);
        self.deliver(stream, Outgoing::answer(message, recorded));
        self.close(stream);
    }

    pub(super) fn refuse(&mut self, message: &Message, record: Option<Box<(Trail, Seat)>>, tap: Option<Tap>, why: &str) {
        let stream = tap.map_or(STANDING, |tap| self.own_stream(tap));
        self.fail(Call { token: None, ..Call::new(message, stream, record, Instant::now()) }, why);
    }

    /// How long the client may think about a question.
    pub(super) fn patience(&self) -> Duration {
        self.around.timeouts.stream_idle
    }
}

/// A request under the session's own number, progress token and all.
pub(super) fn renumbered(message: &Message, number: u64) -> Bytes {
    let digits = number.to_string();
    let offset = message.span().range().start;
    let spans = message.id_span().into_iter().chain(message.progress_token_span());
    let mut places: Vec<_> = spans.map(|span| (span.before(offset), &*digits)).collect();
    places.sort_unstable_by_key(|(span, _)| span.range().start);
    splice(&message.bytes(), &places)
}

/// A JSON-RPC error.
pub(crate) fn error(id: &str, code: i32, why: &str) -> Bytes {
    let why = serde_json::to_string(why).expect("a string always serialises");
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{why}}}}}"#).into()
}

/// Resolves when the caller may not have the session any more.
async fn lost(standing: &mut Standing) -> Lost {
    poll_fn(|cx| match standing.poll(cx) {
        Ok(()) => Poll::Pending,
        Err(lost) => Poll::Ready(lost),
    })
    .await
}

/// Resolves when the client of a stream has left.
async fn gone(reader: Option<&Tap>) {
    match reader {
        Some(tap) => tap.gone().await,
        None => std::future::pending().await,
    }
}

/// The next thing that the server says.
async fn listen(from: Option<&mut mpsc::Receiver<FromServer>>) -> Option<FromServer> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

/// Hands what waits longest to the server; false: it is gone.
async fn hand_over(to: Option<&mpsc::Sender<ToServer>>, outbox: &mut VecDeque<ToServer>) -> bool {
    let Some(to) = to.filter(|_| !outbox.is_empty()) else { return std::future::pending().await };
    let Ok(permit) = to.reserve().await else { return false };
    if let Some(message) = outbox.pop_front() {
        permit.send(message);
    }
    true
}
