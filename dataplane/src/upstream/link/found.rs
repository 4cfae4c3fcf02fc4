//! The era of a server at the end of a connection, where its registration does not say: asked over the connection itself, once per server
//! (2026-07-28 versioning: `server/discover`, within a time, and whatever is no modern answer means the era before).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hashbrown::HashMap;
use mcp_gateway::snapshot::Server;
use tokio::time::timeout;

use super::super::detect::OPENING;
use super::super::era::{DISCOVER, Eras, is_handshake, is_modern};
use super::{FromServer, Kind, Link, LinkError, Reach, ToServer, Way};
use crate::transport::Era;

/// How long a server may take for a question that it may not know: many processes take a while to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found, by server.
#[derive(Clone, Default)]
pub struct Found(Arc<Mutex<HashMap<Arc<str>, Asked>>>);

struct Asked {
    /// As it was registered then.
    server: Arc<Server>,
    eras: Eras,
    at: SystemTime,
}

impl Found {
    /// The eras of a server that is registered as it was when it was asked.
    pub fn get(&self, server: &Server) -> Option<Eras> {
        self.when(server).map(|(eras, _)| eras)
    }

    /// The same, and when it was asked.
    pub fn when(&self, server: &Server) -> Option<(Eras, SystemTime)> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Asked { server: asked, eras, at } = found.get(&server.id)?;
        let same =
            asked.stdio == server.stdio && asked.endpoints.iter().map(|it| &it.url).eq(server.endpoints.iter().map(|it| &it.url));
        same.then_some((*eras, *at))
    }

    fn set(&self, server: &Arc<Server>, eras: Eras) {
        tracing::info!(server = %server.slug, ?eras, "found out which eras a server speaks");
        let asked = Asked { server: server.clone(), eras, at: SystemTime::now() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.id.clone(), asked);
    }

    /// The connection broke, or the server did not open a session over it: it may be another one.
    pub fn forget(&self, server: &Server) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&server.id);
    }
}

impl Way {
    /// A link, and the era in which the server at its other end is spoken to.
    pub(super) async fn found_out(&self, reach: &Reach, owner: &str) -> Result<(Link, Era), LinkError> {
        if let Some(eras) = reach.eras.get(&self.server) {
            let era = eras.to(self.client);
            return Ok((self.connect(reach, owner, era).await?, era));
        }
        let mut link = self.connect(reach, owner, Era::Legacy).await?;
        let (era, mut stays) = ask(&mut link).await;
        let eras = match era {
            Some(Era::Legacy) => Eras::Legacy,
            Some(Era::Modern) => {
                // Many servers settle for the era in which they were spoken to first.
                let eras = if self.knows_handshake(reach, owner).await? { Eras::Both } else { Eras::Modern };
                stays &= eras.to(self.client) == Era::Modern;
                eras
            }
            // One that is silent may have dropped what it does not know. Or it is slow, and is asked again next time.
            None if self.knows_handshake(reach, owner).await? => Eras::Legacy,
            None => return Ok((link, Era::Legacy)),
        };
        reach.eras.set(&self.server, eras);
        let era = eras.to(self.client);
        if !stays {
            // Some servers leave when the first thing they hear is not `initialize`.
            link = self.connect(reach, owner, era).await?;
        }
        Ok((link, era))
    }

    /// Whether the server also knows the legacy era, asked over another connection.
    async fn knows_handshake(&self, reach: &Reach, owner: &str) -> Result<bool, LinkError> {
        let mut link = self.connect(reach, owner, Era::Legacy).await?;
        if link.to.send(ToServer::new(OPENING.into(), Kind::Initialize(0))).await.is_err() {
            return Ok(false);
        }
        Ok(timeout(PATIENCE, answer(&mut link)).await.ok().flatten().is_some_and(|message| is_handshake(&message)))
    }
}

/// What the server says to what it was asked; `None`: it left.
async fn answer(link: &mut Link) -> Option<Bytes> {
    loop {
        match link.from.recv().await {
            Some(FromServer::Message { message, .. }) if is_answer(&message) => return Some(message),
            Some(FromServer::Message { .. } | FromServer::Unanswered { .. }) => continue,
            Some(FromServer::Down { .. }) | None => return None,
        }
    }
}

/// The era, if the server says something, and whether the link is still good.
async fn ask(link: &mut Link) -> (Option<Era>, bool) {
    if link.to.send(ToServer::new(DISCOVER.into(), Kind::Other)).await.is_err() {
        return (Some(Era::Legacy), false);
    }
    match timeout(PATIENCE, answer(link)).await {
        Ok(Some(message)) => (Some(if is_modern(&message) { Era::Modern } else { Era::Legacy }), true),
        Ok(None) => (Some(Era::Legacy), false),
        Err(_silent) => (None, true),
    }
}

fn is_answer(message: &[u8]) -> bool {
    use crate::transport::server_message;
    server_message::read(message).is_ok_and(|messages| messages.iter().any(server_message::ServerMessage::is_response))
}
