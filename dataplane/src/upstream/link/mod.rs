//! The server's end of an owned session: messages in, messages out, whatever the transport. One connector per transport, each a task
//! of its own between two bounded queues. Connectors carry what the session hands them; they judge nothing, answer nothing and repeat
//! nothing. What could not be delivered is said, with whether the server may have seen it.

mod answer;
mod child;
mod events;
mod found;
mod http;
mod shared;
mod socket;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use bytes::Bytes;
use mcp_gateway::proto::config::v1::Transport;
use mcp_gateway::snapshot::Server;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::era::Eras;
use super::{Fault, Upstreams};
use crate::bridge::legacy_client::{self, Bridge};
use crate::children::{Children, StartError};
pub use found::Found;
pub use shared::Hubs;
pub(crate) use shared::is_within;

use crate::tasks::{OnExit, Tasks};
use crate::transport::Era;

/// The owner of a process that sessions share, for those who look.
pub(crate) const SHARED: &str = "shared";

/// Messages that may wait in each direction.
const QUEUE: usize = 32;
/// How long a server's stream is left alone after it ended, unless it says otherwise.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that a server may ask to be left alone.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// A message for the server.
#[derive(Debug, Clone)]
pub struct ToServer {
    pub message: Bytes,
    pub kind: Kind,
    /// What the message's transport says beside it, where it is HTTP of the modern era.
    pub mirrored: Option<Box<HeaderMap>>,
}

impl ToServer {
    /// A message that says everything itself.
    pub fn new(message: Bytes, kind: Kind) -> Self {
        Self { message, kind, mirrored: None }
    }
}

/// What a message for the server is, as far as a transport has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request, with the session's number for it.
    Request(u64),
    /// `initialize`, with the session's number for it.
    Initialize(u64),
    /// `notifications/initialized`: streams that answer nothing may be opened now.
    Initialized,
    /// `notifications/cancelled`, of the request with this number.
    Cancelled(u64),
    /// A notification, or the answer to a request of the server's.
    Other,
}

impl Kind {
    /// The number of a request.
    pub fn request(self) -> Option<u64> {
        match self {
            Self::Request(number) | Self::Initialize(number) => Some(number),
            Self::Initialized | Self::Cancelled(_) | Self::Other => None,
        }
    }
}

/// What comes from the server.
#[derive(Debug)]
pub enum FromServer {
    /// A message; `about` is the request on whose own stream it came, where the transport has such streams.
    Message { message: Bytes, about: Option<u64> },
    /// There will be no answer to this request; `begun` tells whether the server may have seen it.
    Unanswered { request: u64, begun: bool, why: String },
    /// The server does not know the session any more, or the connection is gone. Nothing comes after this.
    Down { why: String },
}

/// Messages to a server and back. Dropping it closes the connection, and tells a server that keeps sessions that this one is over.
pub struct Link {
    pub to: mpsc::Sender<ToServer>,
    pub from: mpsc::Receiver<FromServer>,
    /// What the server speaks.
    pub era: Era,
    /// Whether the link itself speaks the legacy era nevertheless.
    pub is_bridged: bool,
    _open: DropGuard,
}

/// A connector's ends of the two queues.
pub struct Ends {
    pub to: mpsc::Receiver<ToServer>,
    pub from: mpsc::Sender<FromServer>,
    /// Cancelled when nobody has the link any more.
    pub closed: CancellationToken,
}

/// Where a link goes and what it may take.
#[derive(Clone)]
pub struct Way {
    pub server: Arc<Server>,
    pub transport: Transport,
    /// What the server speaks; none: to be found out, where there is a connection to ask over.
    pub eras: Option<Eras>,
    /// The era of the session's client.
    pub client: Era,
    /// Whether the session's client hears what answers no request.
    pub listens: bool,
    /// Of transports that have one.
    pub url: Uri,
    /// Proves the gateway to the server.
    pub credential: Option<(HeaderName, HeaderValue)>,
    /// The same, for servers that are processes: a variable of their environment.
    pub variable: Option<(String, String)>,
    /// The largest message.
    pub message_bytes: usize,
    /// Between two signs of life on a socket.
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
}

/// What links are made with.
#[derive(Clone)]
pub struct Reach {
    pub upstreams: Upstreams,
    pub tasks: Tasks,
    pub children: Children,
    /// Processes that sessions share.
    pub hubs: Hubs,
    /// What servers of the modern era want repeated of calls of their tools.
    pub mirrors: legacy_client::Known,
    /// The eras of servers at the end of connections.
    pub eras: Found,
}

/// Why a link cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("the server does not open a socket: {0}")]
    Socket(String),
    #[error("the server's event stream is not one of MCP 2024-11-05: {0}")]
    Events(&'static str),
    #[error(transparent)]
    Child(#[from] StartError),
    #[error("the server's process does not open a session")]
    NotOpened,
    #[error("the server is registered as a process, and what to run is not")]
    Transport,
}

impl Way {
    /// Opens a link for a session. It speaks the legacy era, whichever the server speaks; between a client and a server of the modern era
    /// it speaks that, over a connection that lasts. Connects first where the transport has a connection to keep.
    pub async fn open(&self, reach: &Reach, owner: &str) -> Result<Link, LinkError> {
        let (link, era) = if self.asks_over_connection() {
            self.found_out(reach, owner).await?
        } else {
            let client = if self.lasts() { self.client } else { Era::Legacy };
            let era = self.eras_now(reach).await.map_or(Era::Legacy, |eras| eras.to(client));
            (self.connect(reach, owner, era).await?, era)
        };
        let is_bridged = era == Era::Modern && !(self.lasts() && self.client == Era::Modern);
        let link = if is_bridged { self.bridged(link, reach) } else { link };
        Ok(Link { era, is_bridged, ..link })
    }

    /// Whether the eras are unknown and the transport one over which the server can be asked.
    fn asks_over_connection(&self) -> bool {
        let is_shared = self.server.stdio.as_ref().is_some_and(|stdio| stdio.shared);
        self.eras.is_none() && !is_shared && self.lasts()
    }

    /// The eras of the server: what was found out when the session was opened may have been forgotten since.
    async fn eras_now(&self, reach: &Reach) -> Option<Eras> {
        let asks = matches!(self.transport, Transport::StreamableHttp | Transport::JsonRpc);
        if !asks || self.eras.is_none() {
            return self.eras;
        }
        let found = reach.upstreams.eras_at(&self.server, &self.url, self.credential.as_ref()).await;
        found.or(self.eras)
    }

    /// Whether there is a connection, and requests are told apart by their numbers on it.
    fn lasts(&self) -> bool {
        matches!(self.transport, Transport::Websocket | Transport::Stdio)
    }

    /// A session of the legacy era in front of a server of the modern one.
    fn bridged(&self, server: Link, reach: &Reach) -> Link {
        let (link, ends) = link();
        let setting = legacy_client::Setting {
            server: self.server.clone(),
            has_headers: !self.lasts(),
            listens: self.listens,
            message_bytes: self.message_bytes,
            known: reach.mirrors.clone(),
        };
        reach.tasks.spawn("bridge", OnExit::Ignore, Bridge::new(setting, ends, server).run());
        link
    }

    /// A link to the server in its own terms.
    async fn connect(&self, reach: &Reach, owner: &str, era: Era) -> Result<Link, LinkError> {
        let (link, ends) = link();
        let Reach { upstreams, tasks, .. } = reach;
        match self.transport {
            Transport::StreamableHttp | Transport::JsonRpc | Transport::Unspecified => {
                let connector = http::Connector::new(self.clone(), upstreams.clone(), era);
                tasks.spawn("link-http", OnExit::Ignore, connector.run(ends));
            }
            Transport::HttpSse => {
                let connector = sse::Connector::open(self.clone(), upstreams.clone()).await?;
                tasks.spawn("link-sse", OnExit::Ignore, connector.run(ends));
            }
            Transport::Websocket => {
                let connector = socket::Connector::open(self, upstreams).await?;
                tasks.spawn("link-websocket", OnExit::Ignore, connector.run(ends));
            }
            Transport::Stdio if self.server.stdio.as_ref().is_some_and(|stdio| stdio.shared) => {
                reach.hubs.join(self, reach, ends).await?;
            }
            Transport::Stdio => {
                let connector = child::Connector::open(self, reach, owner).await?;
                tasks.spawn("link-stdio", OnExit::Ignore, connector.run(ends));
            }
        }
        Ok(link)
    }
}

fn link() -> (Link, Ends) {
    let (to, to_server) = mpsc::channel(QUEUE);
    let (from_server, from) = mpsc::channel(QUEUE);
    let closed = CancellationToken::new();
    let ends = Ends { to: to_server, from: from_server, closed: closed.clone() };
    (Link { to, from, era: Era::Legacy, is_bridged: false, _open: closed.drop_guard() }, ends)
}

impl Ends {
    /// Hands a message to the session; false: it is gone.
    pub async fn say(&self, message: Bytes, about: Option<u64>) -> bool {
        self.from.send(FromServer::Message { message, about }).await.is_ok()
    }

    pub async fn down(&self, why: impl Into<String>) {
        // Nobody listens any more: then nobody has to know.
        let _ = self.from.send(FromServer::Down { why: why.into() }).await;
    }
}
