//! What a shared process says to one session and the session has not taken: bounded, so that one that does not read loses its link, and
//! nobody else anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::super::FromServer;

/// The most that may wait, in bytes. Bursts fit; so does one message, however large.
const MOST: usize = 8 << 20;
/// What a message takes beside its bytes.
const EACH: usize = 128;

/// The hub's end.
pub(super) struct Post {
    // Not bounded by count, so that what comes last always fits; `held` bounds it.
    to: mpsc::UnboundedSender<FromServer>,
    held: Arc<AtomicUsize>,
}

/// The session's end.
pub(super) struct Posted {
    from: mpsc::UnboundedReceiver<FromServer>,
    held: Arc<AtomicUsize>,
}

/// The session is gone, or does not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undeliverable;

pub(super) fn post() -> (Post, Posted) {
    let (to, from) = mpsc::unbounded_channel();
    let held = Arc::new(AtomicUsize::new(0));
    (Post { to, held: held.clone() }, Posted { from, held })
}

fn size(heard: &FromServer) -> usize {
    match heard {
        FromServer::Message { message, .. } => message.len() + EACH,
        FromServer::Unanswered { .. } | FromServer::Down { .. } => EACH,
    }
}

impl Post {
    /// Never waits.
    pub fn send(&self, heard: FromServer) -> Result<(), Undeliverable> {
        let size = size(&heard);
        let before = self.held.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before + size > MOST {
            return Err(Undeliverable);
        }
        self.to.send(heard).map_err(|_gone| Undeliverable)
    }

    /// The last thing that the session hears, after everything else.
    pub fn close(self, why: &str) {
        // It may be gone: then nobody has to know.
        let _ = self.to.send(FromServer::Down { why: why.to_owned() });
    }
}

impl Posted {
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<FromServer> {
        let heard = self.from.recv().await?;
        self.held.fetch_sub(size(&heard), Ordering::Relaxed);
        Some(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> FromServer {
        FromServer::Message { message: vec![b'x'; bytes].into(), about: None }
    }

    #[tokio::test]
    async fn one_message_fits_and_bursts_do_and_then_it_is_over() {
        let (post, mut posted) = post();
        post.send(message(2 * MOST)).unwrap();
        posted.next().await.unwrap();
        for _ in 0..1000 {
            post.send(message(1000)).unwrap();
        }
        assert_eq!(post.send(message(MOST)), Err(Undeliverable));
        post.close("it does not read");
        for _ in 0..1000 {
            assert!(matches!(posted.next().await, Some(FromServer::Message { .. })));
        }
        assert!(matches!(posted.next().await, Some(FromServer::Down { why }) if why == "it does not read"));
        assert!(posted.next().await.is_none());
    }
}
