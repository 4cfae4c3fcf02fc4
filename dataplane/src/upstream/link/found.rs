//! The era of a server at the end of a connection, where its registration does not say: asked over the connection itself, once per server
//! (2026-07-28 versioning: `server/discover`, within a time, and whatever is no modern answer means the era before).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use mcp_gateway::snapshot::Server;
use tokio::time::timeout;

use super::super::era::{DISCOVER, is_modern};
use super::{FromServer, Kind, Link, LinkError, Reach, ToServer, Way};
use crate::transport::Era;

/// How long a server may think about a question that it may not know.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was found, by server.
#[derive(Clone, Default)]
pub struct Found(Arc<Mutex<HashMap<Arc<str>, Asked>>>);

struct Asked {
    /// As it was registered then.
    server: Arc<Server>,
    era: Era,
}

impl Found {
    /// The era of a server that is registered as it was when it was asked.
    pub fn get(&self, server: &Server) -> Option<Era> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Asked { server: asked, era } = found.get(&server.id)?;
        let same =
            asked.stdio == server.stdio && asked.endpoints.iter().map(|it| &it.url).eq(server.endpoints.iter().map(|it| &it.url));
        same.then_some(*era)
    }

    fn set(&self, server: &Arc<Server>, era: Era) {
        tracing::info!(server = %server.slug, era = era.as_str(), "found out which era a server speaks");
        let asked = Asked { server: server.clone(), era };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.id.clone(), asked);
    }
}

impl Way {
    /// A link, and the era that the server at its other end speaks.
    pub(super) async fn found_out(&self, reach: &Reach, owner: &str) -> Result<(Link, Era), LinkError> {
        if let Some(era) = reach.eras.get(&self.server) {
            return Ok((self.connect(reach, owner, era).await?, era));
        }
        let mut link = self.connect(reach, owner, Era::Legacy).await?;
        let (era, stays) = ask(&mut link).await;
        reach.eras.set(&self.server, era);
        if !stays {
            // Some servers leave when the first thing they hear is not `initialize`.
            link = self.connect(reach, owner, era).await?;
        }
        Ok((link, era))
    }
}

/// The era, and whether the link is still good.
async fn ask(link: &mut Link) -> (Era, bool) {
    if link.to.send(ToServer::new(DISCOVER.into(), Kind::Other)).await.is_err() {
        return (Era::Legacy, false);
    }
    let answer = async {
        loop {
            match link.from.recv().await {
                Some(FromServer::Message { message, .. }) if is_answer(&message) => break (is_modern(&message), true),
                Some(FromServer::Message { .. } | FromServer::Unanswered { .. }) => continue,
                Some(FromServer::Down { .. }) | None => break (false, false),
            }
        }
    };
    let (modern, stays) = timeout(PATIENCE, answer).await.unwrap_or((false, true));
    (if modern { Era::Modern } else { Era::Legacy }, stays)
}

fn is_answer(message: &[u8]) -> bool {
    use crate::transport::server_message;
    server_message::read(message).is_ok_and(|messages| messages.iter().any(server_message::ServerMessage::is_response))
}
