//! Servers that are processes of this node: one message per line on their stdin and stdout. The process lives as long as the link.

use std::path::PathBuf;

use super::{Ends, LinkError, Reach, Way};
use crate::children::{Child, Spec};

/// A running process.
pub(super) struct Connector {
    child: Child,
}

impl Connector {
    /// Starts the process, for the session that is named.
    pub async fn open(way: &Way, reach: &Reach, owner: &str) -> Result<Self, LinkError> {
        Ok(Self { child: start(way, reach, owner).await? })
    }

    /// Carries messages until the process or the session is over.
    pub async fn run(self, mut ends: Ends) {
        let handle = self.child.handle();
        let (mut sender, mut receiver) = self.child.split();
        let (say, closed) = (ends.from.clone(), ends.closed.clone());
        let listening = async {
            while let Some(line) = receiver.next().await {
                // What is no message was logged where it was read.
                let Ok(message) = line else { continue };
                if say.send(super::FromServer::Message { message, about: None }).await.is_err() {
                    return;
                }
            }
        };
        let telling = async {
            while let Some(message) = ends.to.recv().await {
                if let Err(error) = sender.send(message.message).await {
                    return tracing::debug!(%error, "a process did not take a message");
                }
            }
        };
        tokio::select! {
            () = listening => {}
            () = telling => {}
            () = closed.cancelled() => {}
        }
        drop((sender, receiver));
        let ended = handle.ended().await;
        let why = format!("its process ended: {:?}", ended.why);
        // Nobody listens any more: then nobody has to know.
        let _ = say.send(super::FromServer::Down { why }).await;
    }
}

/// Starts a server's process, as it is registered; `owner` is for those who look.
pub(super) async fn start(way: &Way, reach: &Reach, owner: &str) -> Result<Child, LinkError> {
    let stdio = way.server.stdio.as_ref().ok_or(LinkError::Transport)?;
    let mut env = stdio.environment.clone();
    env.extend(way.variable.clone());
    let spec = Spec {
        server_id: way.server.id.clone(),
        org_id: way.server.org_id.clone(),
        argv: stdio.command.clone(),
        env,
        dir: stdio.directory.as_ref().map(PathBuf::from),
        owner: owner.to_owned(),
    };
    Ok(reach.children.start(spec).await?)
}
