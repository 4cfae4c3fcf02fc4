//! The task of one shared process: opens it, carries what its sessions say and what it says, and ends it when nobody has used it for long
//! enough. Reads whether or not the process does, so that neither can hold up the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::super::ToServer;
use super::hub::Hub;
use super::opening::{self, Opening};
use super::post::Post;
use crate::children::{Child, Receiver, Sender};

/// Messages that may wait for the process beside those of the hub.
const WRITING: usize = 8;
const DEAF: &str = "its process takes nothing any more";

/// What a shared process hears of its sessions.
pub(super) enum Event {
    Join(Join),
    Said { session: u64, message: ToServer },
    Left { session: u64 },
}

/// A session that comes.
pub(super) struct Join {
    pub post: Post,
    /// How long the process is to be kept without sessions.
    pub linger: Duration,
    /// How the session is called from now on. Dropped: the process is ending, and another one has to be started.
    pub joined: oneshot::Sender<Result<u64, NotOpened>>,
}

/// The process did not open.
#[derive(Debug)]
pub(super) struct NotOpened;

/// A process that was started and not spoken to yet.
pub(super) struct Actor {
    pub server: Arc<str>,
    pub child: Child,
    pub events: mpsc::Receiver<Event>,
    /// How long it may take to open.
    pub patience: Duration,
    /// How long it is kept where no session has ever come.
    pub linger: Duration,
    /// Cancelled when the registration says something else now: then it ends with its last session.
    pub outdated: CancellationToken,
}

impl Actor {
    pub async fn run(mut self) {
        let handle = self.child.handle();
        if let Some(opening) = timeout(self.patience, opening::open(&mut self.child)).await.ok().flatten() {
            return self.serve(opening).await;
        }
        tracing::warn!(server = %self.server, "a process that sessions share does not open");
        self.events.close();
        drop(self.child);
        // Before anybody tries again, it is known that this one failed.
        handle.ended().await;
        while let Some(event) = self.events.recv().await {
            if let Event::Join(join) = event {
                // It may not wait any more.
                let _ = join.joined.send(Err(NotOpened));
            }
        }
    }

    async fn serve(self, opening: Opening) {
        let handle = self.child.handle();
        let (sender, receiver) = self.child.split();
        let (to, written) = mpsc::channel(WRITING);
        let mut events = self.events;
        let mut conversation = Conversation {
            hub: Hub::new(self.server, opening),
            unused: Instant::now(),
            linger: self.linger,
            outdated: self.outdated,
        };
        let why = tokio::select! {
            why = conversation.carry(receiver, &mut events, &to) => why,
            () = write(sender, written) => DEAF,
        };
        // Whoever has come meanwhile starts another one.
        events.close();
        drop(events);
        let ended = handle.ended().await;
        conversation.hub.end(&format!("{why}: {:?}", ended.why));
    }
}

/// Writes what there is, in its order; returns when the process does not take it.
async fn write(mut sender: Sender, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = sender.send(message).await {
            return tracing::debug!(%error, "a shared process did not take a message");
        }
    }
}

/// A process that is open, and its sessions.
struct Conversation {
    hub: Hub,
    /// When the last session left.
    unused: Instant,
    linger: Duration,
    outdated: CancellationToken,
}

impl Conversation {
    /// Returns why it is over.
    async fn carry(
        &mut self,
        mut receiver: Receiver,
        events: &mut mpsc::Receiver<Event>,
        to: &mpsc::Sender<Bytes>,
    ) -> &'static str {
        loop {
            let (is_unused, is_current) = (self.hub.is_empty(), !self.outdated.is_cancelled());
            let deadline = if is_current { self.unused + self.linger } else { self.unused };
            tokio::select! {
                line = receiver.next() => match line {
                    Some(Ok(line)) => self.hub.hear(&line),
                    // What is no message was counted and logged where it was read.
                    Some(Err(_garbage)) => {}
                    None => return "its process ended",
                },
                // What waits for the process leaves before more is taken in.
                permit = to.reserve(), if !self.hub.outbox.is_empty() => match (permit, self.hub.outbox.pop_front()) {
                    (Ok(permit), Some(message)) => permit.send(message),
                    (Ok(_unused), None) => {}
                    (Err(_closed), _) => return DEAF,
                },
                Some(event) = events.recv(), if self.hub.outbox.is_empty() => self.obey(event),
                () = sleep_until(deadline), if is_unused && events.is_empty() => {
                    // Somebody may have come just now.
                    if events.is_empty() {
                        return "nobody uses its process";
                    }
                }
                () = self.outdated.cancelled(), if is_unused && is_current => {}
            }
            if !is_unused && self.hub.is_empty() {
                self.unused = Instant::now();
            }
        }
    }

    fn obey(&mut self, event: Event) {
        match event {
            Event::Join(Join { post, linger, joined }) => {
                self.linger = linger;
                let session = self.hub.join(post);
                if joined.send(Ok(session)).is_err() {
                    self.hub.leave(session);
                    self.unused = Instant::now();
                }
            }
            Event::Said { session, message } => self.hub.say(session, &message),
            Event::Left { session } => self.hub.leave(session),
        }
    }
}
