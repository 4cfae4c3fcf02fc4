//! An event stream on its way: framed, not parsed; judged again while it lasts; kept alive while it is silent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Uri};
use mcp_gateway::proto::node::v1::Outcome;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream as _;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::source::Source;
use crate::metrics::Metrics;
use crate::pipeline::authenticate::{LEEWAY_SECONDS, seconds_since_epoch};
use crate::pipeline::route::Routed;
use crate::relay::Settings;
use crate::relay::guard::{Examined, Forbidden, Guard, Passage};
use crate::relay::outcome::Answered;
use crate::relay::standing::{Lost, Standing};
use crate::sse::{self, Event, Framer};
use crate::tasks::{OnExit, Tasks};
use crate::transport::header::LAST_EVENT_ID;
use crate::upstream::{self, Upstreams};

/// What comes next for the client.
pub(super) enum Next {
    Bytes(Bytes),
    /// The last bytes, and how the call ended.
    Last(Bytes, Answered),
    /// Nothing more, and the client has to notice.
    Broken(Outcome),
}

/// An event that may not leave: the stream ends.
struct Unfit;

/// Bytes that leave in one write at most.
const WRITE: usize = 64 << 10;
/// How often a stream with something to write is asked for more first: once for the connection to the server to run, and once because
/// hyper asks twice in a turn.
const TURNS: u8 = 2;
/// What a silent stream says.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// An event stream from a server to a client.
pub(super) struct Events {
    upstream: Source,
    framer: Framer,
    standing: Standing,
    /// The id of the request that the stream answers, as the client wrote it.
    request: Option<Box<str>>,
    /// The largest list that is held to be filtered.
    list_bytes: u64,
    ready: Vec<Bytes>,
    ready_bytes: usize,
    /// How the call ended, once its response has passed.
    answered: Option<Answered>,
    count: u32,
    /// Of the response so many bytes are remembered; 0: nobody wants them.
    look_at: usize,
    response: Option<Bytes>,
    /// The stream cannot go on; what was whole before that leaves first.
    failed: bool,
    /// Whether hyper had a chance to write what it holds before it hears of the failure.
    flushed: bool,
    /// How often the stream was asked again since the server last brought something.
    asked_again: u8,
    clocks: Clocks,
    refuser: Refuser,
    /// For streams that last until somebody ends them: the process does when it stops.
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// What operators say, for those streams.
    announced: Option<Box<BroadcastStream<Bytes>>>,
    metrics: Arc<Metrics>,
}

/// The stream's deadlines. Armed when it first waits: most streams answer a call and never do.
struct Clocks {
    keep_alive: Duration,
    /// `None` where silence is normal.
    idle: Option<Duration>,
    until: Instant,
    last_heard: Instant,
    last_said: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// What a clock wants.
enum Alarm {
    KeepAlive,
    Idle,
    Over,
}

/// Answers requests of the server that the client may not be asked.
struct Refuser {
    upstreams: Upstreams,
    tasks: Tasks,
    url: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

impl Events {
    pub fn new(call: &Routed, upstream: Source, settings: &Settings) -> Result<Self, Lost> {
        let sender = call.call();
        let standing =
            Standing::register(settings.live.clone(), sender.principal().clone(), sender.org().clone(), sender.server().clone())?;
        settings.metrics.open_streams.fetch_add(1, Relaxed);
        let mut headers = upstream::outgoing(call);
        headers.remove(LAST_EVENT_ID);
        let lasting = sender.call().is_long_lived();
        let refuser = Refuser {
            upstreams: settings.upstreams.clone(),
            tasks: settings.surroundings.tasks.clone(),
            url: call.url().clone(),
            headers,
            timeout: call.timeout(),
        };
        Ok(Self {
            upstream,
            framer: Framer::new(usize::try_from(settings.limits.sse_event_bytes).unwrap_or(usize::MAX)),
            standing,
            request: Guard::of(call).request.map(Box::from),
            list_bytes: settings.limits.list_bytes,
            ready: Vec::new(),
            ready_bytes: 0,
            answered: None,
            count: 0,
            look_at: 0,
            response: None,
            failed: false,
            flushed: false,
            asked_again: 0,
            clocks: Clocks::new(call, settings),
            refuser,
            draining: lasting.then(|| Box::pin(settings.surroundings.draining.clone().cancelled_owned())),
            announced: lasting.then(|| Box::new(settings.announcements.hear(&sender.org().id))),
            metrics: settings.metrics.clone(),
        })
    }

    /// Events passed on.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Remembers the beginning of the response from now on.
    pub fn look_at(&mut self, most: usize) {
        self.look_at = most;
    }

    /// The beginning of the response, as told by [`Events::look_at`].
    pub fn take_response(&mut self) -> Option<Bytes> {
        self.response.take()
    }

    /// How the call ended, if its response has passed.
    pub fn answered(&self) -> Option<Answered> {
        self.answered
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Err(lost) = self.standing.poll(cx) {
            tracing::info!(subject = self.standing.principal().subject, %lost, "a stream was ended");
            self.metrics.streams_revoked.inc();
            return Poll::Ready(Next::Last(Bytes::new(), Answered::new(Outcome::Denied, 0)));
        }
        if self.failed {
            return self.fail(cx);
        }
        if self.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Next::Last(Bytes::new(), Answered::new(Outcome::Ok, 0)));
        }
        self.take_announcements(cx);
        loop {
            if self.take_events().is_err() {
                return self.fail(cx);
            }
            if self.ready_bytes >= WRITE {
                return Poll::Ready(Next::Bytes(self.take_ready()));
            }
            match self.upstream.poll(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.clocks.last_heard = Instant::now();
                    self.asked_again = 0;
                    self.framer.push(chunk);
                }
                Poll::Ready(Some(Err(_))) => return self.fail(cx),
                Poll::Ready(None) => return self.finish(cx),
                // The connection hands over a chunk at a time and has to run in between. A turn of the scheduler costs less than a write
                // of its own for every event of an answer that came in one piece.
                Poll::Pending if !self.ready.is_empty() && self.asked_again < TURNS => {
                    self.asked_again += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending if !self.ready.is_empty() => return Poll::Ready(Next::Bytes(self.take_ready())),
                Poll::Pending => return self.wait(cx),
            }
        }
    }

    /// Ends the stream so that the client notices, after everything that was whole has left: an error makes hyper drop
    /// what it has not written yet, be it the head, so it gets one turn to write.
    fn fail(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.failed = true;
        if !self.ready.is_empty() {
            return Poll::Ready(Next::Bytes(self.take_ready()));
        }
        if !std::mem::replace(&mut self.flushed, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Next::Broken(self.answered().map_or(Outcome::UpstreamFailed, |answered| answered.outcome)))
    }

    /// Moves whole events from the framer to what is ready.
    fn take_events(&mut self) -> Result<(), Unfit> {
        while self.ready_bytes < WRITE {
            match self.framer.next_event() {
                Ok(Some(event)) => self.pass(event)?,
                Ok(None) => return Ok(()),
                Err(_too_large) => return Err(Unfit),
            }
        }
        Ok(())
    }

    /// Adds what operators said. Between events: what is ready is always whole.
    fn take_announcements(&mut self, cx: &mut Context<'_>) {
        let Some(announced) = &mut self.announced else { return };
        let mut said = BytesMut::new();
        while let Poll::Ready(Some(message)) = Pin::new(&mut **announced).poll_next(cx) {
            // Whoever is too slow has missed some.
            let Ok(message) = message else { continue };
            sse::write_event(&mut said, None::<&u32>, &message);
            self.count += 1;
        }
        if !said.is_empty() {
            self.say(said.freeze());
        }
    }

    fn pass(&mut self, event: Event) -> Result<(), Unfit> {
        let Some(data) = event.data().filter(|data| !data.is_empty()) else {
            self.say(event.into_raw());
            return Ok(());
        };
        let standing = &self.standing;
        let guard = Guard {
            org: standing.org(),
            server: standing.server(),
            principal: standing.principal(),
            request: self.request.as_deref(),
        };
        // A message that may not leave as it is and an error have no place on a stream: it ends here.
        let Ok(Examined { passage, answer }) = guard.examine(&data, self.list_bytes) else { return Err(Unfit) };
        let wanted = self.look_at > 0 && answer.is_some();
        let raw = match passage {
            Passage::AsItIs => {
                self.response = wanted.then(|| data.slice(..data.len().min(self.look_at))).or(self.response.take());
                event.into_raw()
            }
            Passage::Changed(message) => {
                self.response = wanted.then(|| message.slice(..message.len().min(self.look_at))).or(self.response.take());
                event.with_data(&message).into_raw()
            }
            Passage::Withheld(forbidden) => {
                self.refuser.refuse(&forbidden);
                return Ok(());
            }
        };
        self.answered = answer.or(self.answered);
        self.count += 1;
        self.say(raw);
        Ok(())
    }

    fn say(&mut self, bytes: Bytes) {
        self.ready_bytes += bytes.len();
        self.ready.push(bytes);
    }

    fn take_ready(&mut self) -> Bytes {
        self.clocks.last_said = Instant::now();
        let total = std::mem::take(&mut self.ready_bytes);
        if self.ready.len() == 1 {
            return self.ready.pop().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(total);
        self.ready.drain(..).for_each(|bytes| joined.extend_from_slice(&bytes));
        joined.freeze()
    }

    /// The server closed the stream.
    fn finish(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let framer = std::mem::replace(&mut self.framer, Framer::new(0));
        if framer.finish().is_some_and(|event| self.pass(event).is_err()) {
            return self.fail(cx);
        }
        let answered = self.answered().unwrap_or(Answered::new(Outcome::Ok, 0));
        Poll::Ready(Next::Last(self.take_ready(), answered))
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        match self.clocks.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Alarm::KeepAlive) => {
                self.clocks.last_said = Instant::now();
                Poll::Ready(Next::Bytes(KEEP_ALIVE))
            }
            Poll::Ready(Alarm::Idle) => Poll::Ready(Next::Broken(Outcome::UpstreamFailed)),
            Poll::Ready(Alarm::Over) => Poll::Ready(Next::Last(Bytes::new(), Answered::new(Outcome::Ok, 0))),
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.metrics.open_streams.fetch_sub(1, Relaxed);
    }
}

impl Clocks {
    fn new(call: &Routed, settings: &Settings) -> Self {
        let now = Instant::now();
        let left = |moment: i64| Duration::from_secs(u64::try_from(moment + LEEWAY_SECONDS - seconds_since_epoch()).unwrap_or(0));
        let proved = call.call().principal().expires_at.map_or(Duration::MAX, left);
        Self {
            keep_alive: settings.timeouts.keep_alive,
            idle: (!call.call().call().is_long_lived()).then_some(settings.timeouts.stream_idle),
            until: now + settings.timeouts.stream_max.min(proved),
            last_heard: now,
            last_said: now,
            alarm: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        loop {
            let idle = self.idle.map(|idle| self.last_heard + idle);
            let say = self.last_said + self.keep_alive;
            let next = idle.unwrap_or(say).min(say).min(self.until);
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if alarm.deadline() != next {
                alarm.as_mut().reset(next);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= self.until {
                return Poll::Ready(Alarm::Over);
            }
            if idle.is_some_and(|idle| now >= idle) {
                return Poll::Ready(Alarm::Idle);
            }
            if now >= say {
                return Poll::Ready(Alarm::KeepAlive);
            }
        }
    }
}

impl Refuser {
    fn refuse(&self, forbidden: &Forbidden) {
        tracing::info!(method = forbidden.method, "a request of a server was refused by policy");
        let error = r#"{"code":-32601,"message":"Method not allowed by policy"}"#;
        let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, forbidden.id));
        let (upstreams, url, headers, timeout) = (self.upstreams.clone(), self.url.clone(), self.headers.clone(), self.timeout);
        self.tasks.spawn("refuse-server-request", OnExit::Ignore, async move {
            if let Err(error) = upstreams.tell(url, headers, body, timeout).await {
                tracing::debug!(%error, "a server could not be told that its request was refused");
            }
        });
    }
}
