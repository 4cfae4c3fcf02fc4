//! A session's link to its server: opened with the client's `initialize`, lost, and healed where nothing was lost with it.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::time::timeout;

use super::actor::{Actor, STANDING};
use super::splice::{number, splice};
use super::stream::End;
use crate::children::{StartError, Whose};
use crate::transport::Era;
use crate::transport::scan::Message;
use crate::transport::scan::lexer::Span;
use crate::transport::server_message::{self, ServerMessage};
use crate::upstream::link::{FromServer, Kind, Link, LinkError, ToServer};

const UNREACHABLE: &str = "The server cannot be reached";
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A client's `initialize`, kept as long as the session: a copy, because the message itself is a piece of a larger buffer.
pub(super) struct Opening {
    message: Bytes,
    /// Where its id is.
    id: Span,
}

impl Opening {
    fn of(message: &Message) -> Option<Self> {
        let id = message.id_span()?.before(message.span().range().start);
        Some(Self { message: Bytes::copy_from_slice(&message.bytes()), id })
    }
}

impl Actor {
    /// Makes the server ready for a request of the client's; otherwise tells why it cannot be sent.
    pub(super) async fn ready(&mut self, message: &Message) -> Result<(), &'static str> {
        self.has_room(message)?;
        let opens = message.method() == Some("initialize");
        match (opens, self.opening.is_some()) {
            (true, true) => return Err("The session is open already"),
            (false, false) if self.passes_untouched() => self.connected().await?,
            (false, false) => return Err("The session is not open: send initialize first"),
            (true, false) => {
                self.connected().await?;
                self.opening = Opening::of(message);
            }
            (false, true) if self.link.is_none() => Box::pin(self.heal()).await?,
            (false, true) => {}
        }
        Ok(())
    }

    /// Whether client and server are both of the modern era, which knows no sessions.
    pub(super) fn passes_untouched(&self) -> bool {
        self.facts.is_untouched.load(Relaxed)
    }

    /// Sees to it that there is a link.
    pub(super) async fn connected(&mut self) -> Result<(), &'static str> {
        if self.link.is_none() {
            self.link = Some(self.connect().await?);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Link, &'static str> {
        // Boxed, as healing is: both are rare, and a session would keep room for them as long as it lives.
        let link = Box::pin(self.way.open(&self.around.reach, &self.id.to_string())).await.map_err(|error| {
            tracing::warn!(server = %self.way.server.slug, %error, "no link to a server");
            words(&error)
        })?;
        // The first answer holds, as the first agreement does.
        let _ = self.facts.server_era.set(link.era);
        let untouched = self.manners.modern.is_some() && link.era == Era::Modern && !link.is_bridged;
        self.facts.is_untouched.store(untouched, Relaxed);
        Ok(link)
    }

    /// The server is gone. What is under way cannot be saved and is answered; the session goes on if there is nothing that another
    /// one of the server's would not have.
    pub(super) async fn server_lost(&mut self, why: &str) -> Result<(), End> {
        tracing::info!(server = %self.way.server.slug, why, "a server ended a session");
        self.around.reach.eras.forget(&self.way.server);
        self.link = None;
        self.outbox.clear();
        let bound = self.bound
            || !self.listeners.is_empty()
            || !self.calls.is_empty()
            || !self.questions.is_empty()
            || self.opening.is_none();
        if bound {
            return Err(End::ServerGone);
        }
        // Who listens would wait for ever; who asks can wait until then.
        if self.has_reader(STANDING) && Box::pin(self.heal()).await.is_err() {
            return Err(End::ServerGone);
        }
        Ok(())
    }

    /// Opens another session of the server's in place of the lost one, as the client opened the first.
    pub(super) async fn heal(&mut self) -> Result<(), &'static str> {
        let Some(opening) = &self.opening else { return Err(UNREACHABLE) };
        let mut link = self.connect().await?;
        if self.passes_untouched() {
            // It was exchanged for one of its client's era, which knows no sessions.
            (self.opening, self.link) = (None, Some(link));
            return Ok(());
        }
        let digits = self.calls.number().to_string();
        let sent = number(&digits).unwrap_or_default();
        let message = splice(&opening.message, &[(opening.id, &digits)]);
        let opened = async {
            link.to.send(ToServer::new(message, Kind::Initialize(sent))).await.ok()?;
            while let Some(heard) = link.from.recv().await {
                match heard {
                    FromServer::Message { message, .. } => match opens(&message, sent) {
                        Some(true) => return Some(()),
                        Some(false) => return None,
                        None => continue,
                    },
                    FromServer::Unanswered { .. } | FromServer::Down { .. } => return None,
                }
            }
            None
        };
        let opened = timeout(self.way.server.call_timeout, opened).await.ok().flatten();
        if opened.is_none() {
            self.around.reach.eras.forget(&self.way.server);
            return Err(UNREACHABLE);
        }
        let told = link.to.send(ToServer::new(INITIALIZED.into(), Kind::Initialized)).await;
        told.map_err(|_gone| UNREACHABLE)?;
        tracing::info!(server = %self.way.server.slug, "a session was healed");
        self.around.metrics.sessions_healed.inc();
        self.link = Some(link);
        Ok(())
    }
}

/// What the client is told: what it can do something about, and nothing of the node's.
fn words(error: &LinkError) -> &'static str {
    match error {
        LinkError::Child(StartError::Full { whose: Whose::Organization }) => {
            "As many processes of servers run as may for the organisation; end a session, or try again later"
        }
        LinkError::Child(StartError::Full { whose: Whose::Node }) => {
            "As many processes of servers run as may on this node; try again later"
        }
        LinkError::Child(StartError::Backoff { .. }) => "The server's process keeps ending; try again later",
        LinkError::Child(StartError::Disabled | StartError::NotAllowed(_)) => "This node does not run the server's program",
        LinkError::Child(StartError::Stopping | StartError::Spawn(_))
        | LinkError::Fault(_)
        | LinkError::Socket(_)
        | LinkError::Events(_)
        | LinkError::NotOpened
        | LinkError::Transport => UNREACHABLE,
    }
}

/// Whether a message is the answer to this `initialize`, and a good one.
fn opens(message: &[u8], sent: u64) -> Option<bool> {
    server_message::read(message).ok()?.iter().find_map(|message| match message {
        ServerMessage::Result { id, .. } if number(id) == Some(sent) => Some(true),
        ServerMessage::Error { id: Some(id), .. } if number(id) == Some(sent) => Some(false),
        ServerMessage::Result { .. }
        | ServerMessage::Error { .. }
        | ServerMessage::Request { .. }
        | ServerMessage::Notification { .. } => None,
    })
}
