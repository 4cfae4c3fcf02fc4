//! How long a connection may keep us waiting between requests: wraps the socket, because only reads know.
//!
//! Nothing is asked while a request is being answered; bodies and calls have deadlines of their own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What the connection is doing: shared by its socket and its requests.
#[derive(Default)]
pub struct Phase {
    /// Requests whose answers are not complete.
    busy: AtomicUsize,
    /// HTTP/2 sends frames that begin no request; only silence counts there.
    framed: AtomicBool,
}

/// Held while a request is being answered.
pub struct Busy(Arc<Phase>);

impl Phase {
    /// A request's head has been read.
    pub fn enter(self: &Arc<Self>, version: Version) -> Busy {
        self.framed.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the clock is running for.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Waiting {
    /// Not at all: a request is being answered.
    No,
    /// For the first byte of a request.
    Idle,
    /// For the rest of a head.
    Head,
}

/// A socket that gives up on a silent or slow peer.
pub struct Patient<S> {
    inner: S,
    phase: Arc<Phase>,
    headers: Duration,
    idle: Duration,
    waiting: Waiting,
    /// When patience ends.
    until: Instant,
    /// Goes off then or earlier: moving it costs more than looking at the time when it went off too early.
    clock: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub fn new(inner: S, phase: Arc<Phase>, headers: Duration, idle: Duration) -> Self {
        let until = Instant::now() + headers;
        let clock = Box::pin(tokio::time::sleep_until(until));
        // A new connection owes us a request right away.
        Self { inner, phase, headers, idle, waiting: Waiting::Head, until, clock }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.phase.busy.load(Ordering::Relaxed) > 0 {
            self.waiting = Waiting::No;
            return Poll::Pending;
        }
        if self.waiting == Waiting::No {
            self.start(Waiting::Idle);
        }
        if self.clock.deadline() > self.until {
            self.clock.as_mut().reset(self.until);
        }
        while self.clock.as_mut().poll(cx).is_ready() {
            if self.clock.deadline() >= self.until {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client kept us waiting")));
            }
            self.clock.as_mut().reset(self.until);
        }
        Poll::Pending
    }

    fn start(&mut self, waiting: Waiting) {
        self.waiting = waiting;
        let patience = if waiting == Waiting::Head { self.headers } else { self.idle };
        self.until = Instant::now() + patience;
    }

    fn heard(&mut self) {
        let between = self.phase.busy.load(Ordering::Relaxed) == 0;
        if between && self.waiting != Waiting::Head && !self.phase.framed.load(Ordering::Relaxed) {
            self.start(Waiting::Head);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Pending => self.wait(cx),
            ready => {
                if buffer.filled().len() > before {
                    self.heard();
                }
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
