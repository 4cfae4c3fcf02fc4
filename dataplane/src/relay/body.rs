//! The body of every answer: whole, or flowing from a server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::flow::Flow;
use super::sessions::ClientStream;
use crate::listener::Busy;

/// What hyper sends to a client.
pub struct Body {
    content: Content,
    /// The connection is not idle while its answer is being sent.
    _busy: Option<Busy>,
}

enum Content {
    Whole(Bytes),
    Flow(Box<Flow>),
    Stream(Box<ClientStream>),
    Forwarded(Incoming),
}

impl Body {
    /// All of it at once.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Whole(bytes.into()), _busy: None }
    }

    /// As it comes.
    pub fn flow(flow: Box<Flow>) -> Self {
        Self { content: Content::Flow(flow), _busy: None }
    }

    /// As a session says it.
    pub fn stream(stream: Box<ClientStream>) -> Self {
        Self { content: Content::Stream(stream), _busy: None }
    }

    /// As another node says it.
    pub fn forwarded(body: Incoming) -> Self {
        Self { content: Content::Forwarded(body), _busy: None }
    }

    /// Keeps the connection busy until the body has been sent.
    pub fn holding(self, busy: Busy) -> Self {
        Self { _busy: Some(busy), ..self }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Flow(flow) => flow.poll(cx).map(|next| next.map(|bytes| bytes.map(Frame::data))),
            Content::Stream(stream) => stream.poll(cx).map(|next| next.map(|bytes| bytes.map(Frame::data))),
            Content::Forwarded(body) => Pin::new(body).poll_frame(cx).map_err(io::Error::other),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Flow(flow) => flow.is_over(),
            Content::Stream(stream) => stream.is_over(),
            Content::Forwarded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Flow(_) | Content::Stream(_) => SizeHint::default(),
            Content::Forwarded(body) => body.size_hint(),
        }
    }
}
