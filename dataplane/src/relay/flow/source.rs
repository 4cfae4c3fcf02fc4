//! Where a stream's bytes come from: a server that answers, or one that has not sent its head yet. Knows no events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;

use crate::relay::{Media, check, media};
use crate::upstream::{Received, Waiting};

/// The upstream end of a stream.
pub(in crate::relay) enum Source {
    /// The head is there.
    Flowing(Received),
    /// The head is not there; the client already has one.
    Awaited(Waiting),
}

/// The server failed, or its late head is not that of a stream.
#[derive(Debug)]
pub(in crate::relay) struct Failed;

impl Source {
    /// The next bytes; `None` at the end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failed>>> {
        loop {
            match self {
                Self::Awaited(waiting) => {
                    let Ok(response) = ready!(waiting.as_mut().poll(cx)) else { return Poll::Ready(Some(Err(Failed))) };
                    let (head, body) = response.into_parts();
                    if check(&head).is_err() || !head.status.is_success() || media(&head.headers) != Media::Events {
                        return Poll::Ready(Some(Err(Failed)));
                    }
                    *self = Self::Flowing(body);
                }
                Self::Flowing(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(_broken)) => return Poll::Ready(Some(Err(Failed))),
                    // Trailers are not passed on.
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                    }
                },
            }
        }
    }
}
