//! Owned sessions: those that live in one node, because their server is a process, a socket or a stream, or because their client is.
//!
//! Each is an actor: it has the client's streams, one link to the server, and what is under way between them. Messages come to it judged,
//! limited and on record; it gives them numbers of its own, brings answers and questions to the stream that they belong on, and filters
//! what the server says by the same rules as every other path does. Never decides who may what, and never sends a call twice.
//!
//! The table here finds a session by its id, bounds how many there are, and forgets those that are over.

mod actor;
mod asking;
mod calls;
mod crossing;
mod hear;
mod link;
mod listening;
mod log;
pub(crate) mod splice;
pub mod stream;
mod streams;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hashbrown::HashMap;
use mcp_gateway::proto::config::v1::Transport;
use mcp_gateway::proto::node::v1::Via;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bridge::legacy_server::{Greeting, Persona};
use crate::config::{self, Timeouts};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::pipeline::authenticate::{Authenticated, Principal};
use crate::pipeline::limit::Seat;
use crate::pipeline::trail::Trail;
use crate::relay::sessions::place_of;
use crate::relay::{Lost, Standing};
use crate::tasks::OnExit;
use crate::transport::scan::Message;
use crate::transport::{ClientTransport, Era, Version};
use crate::upstream::link::{Reach, Way};

use actor::Actor;
pub(crate) use actor::error as refusal;
pub(crate) use crossing::{Across, Continued};
pub(crate) use listening::Listen;
pub(crate) use splice::{at, number, splice};
use stream::{End, EventId, Tap};

/// Commands that may wait for a session.
const MAILBOX: usize = 32;
/// How long is waited for a session to be over.
const PARTING: Duration = Duration::from_secs(2);
/// Parts of the table.
const SHARDS: usize = 16;

/// What sessions need of the process.
pub struct Surroundings {
    pub live: Arc<Live>,
    pub metrics: Arc<Metrics>,
    pub reach: Reach,
    /// Cancelled when the process is about to stop.
    pub draining: CancellationToken,
    pub timeouts: Timeouts,
    pub limits: config::Limits,
    pub sessions: config::Sessions,
    pub transports: config::Transports,
}

/// Every owned session of the process.
pub struct Sessions {
    around: Arc<Surroundings>,
    shards: [RwLock<HashMap<Uuid, Handle>>; SHARDS],
    counts: Mutex<HashMap<Whose, usize>>,
    /// The gateway's own sessions with a server on behalf of a caller who has none.
    of_callers: Mutex<HashMap<Caller, Arc<OfCaller>>>,
}

/// A caller, on one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Caller {
    org_id: Arc<str>,
    subject: Box<str>,
    via: Via,
    server_id: Arc<str>,
    persona: Option<Persona>,
}

/// The first is shared; held by whoever opens it, so that nobody else does. There are others where requests need one each.
pub(crate) type OfCaller = tokio::sync::Mutex<Vec<Handle>>;

/// Whom a session counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Node,
    Transport(ClientTransport),
    Organization(Arc<str>),
    /// Organisation and subject.
    Principal(Arc<str>, Box<str>),
    /// Server and transport of its clients.
    Server(Arc<str>, ClientTransport),
}

/// Why no session is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this node has as many sessions as it takes")]
    Node,
    #[error("the organisation has as many sessions as it may")]
    Organization,
    #[error("the principal has as many sessions as it may")]
    Principal,
    #[error("the server has as many sessions over this transport as its settings allow")]
    Server,
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub struct Over;

/// What a session is asked to do.
pub(crate) enum Command {
    /// Send a request, and answer it on `tap`, or on the session's own stream.
    Call {
        message: Box<Message>,
        record: Option<Box<(Trail, Seat)>>,
        tap: Option<Tap>,
        /// Who sends it, as it has just proved: the session's answers are filtered for that one from now on.
        caller: Option<Arc<Principal>>,
    },
    /// Connect with the server, if that is not so; false: it cannot be reached.
    Connect {
        reply: oneshot::Sender<bool>,
    },
    /// Carry a modern client's request across.
    Cross(Box<Across>),
    /// Keep a stream of changes for a modern client.
    Listen(Box<Listen>),
    /// Tell of changes on the stream that the request with this id in the records opened, except for what the server refused.
    Agree {
        request: Uuid,
        refused: HashSet<String>,
    },
    /// Send a notification, or the answer to a question of the server's.
    Tell {
        message: Box<Message>,
    },
    /// Have a stream for what answers no request; or take up another one again, after an event.
    Attach {
        tap: Tap,
        after: Option<EventId>,
    },
    /// Say something of the gateway's own to the client.
    Say {
        message: Bytes,
    },
    /// Give up the request with this id in the records: its client hung up, and has no other way to say so.
    HungUp {
        request: Uuid,
    },
    /// Ask a socket's client for a sign of life.
    Ping,
    /// Tell what was said after an event.
    Replay {
        after: EventId,
        reply: oneshot::Sender<Vec<(EventId, Bytes)>>,
    },
    End(End),
}

/// A session, as everybody but itself has it.
#[derive(Clone)]
pub struct Handle {
    pub id: Uuid,
    pub facts: Arc<Facts>,
    to: mpsc::Sender<Command>,
}

/// What is known of a session from outside.
pub struct Facts {
    pub org_id: Arc<str>,
    pub server_id: Arc<str>,
    pub server_slug: Arc<str>,
    pub subject: Box<str>,
    pub client: ClientTransport,
    pub server_transport: Transport,
    /// What the server speaks, once that is known.
    pub server_era: OnceLock<Era>,
    /// Whether messages pass as they are, numbers apart: client and server are both of the modern era.
    pub is_untouched: AtomicBool,
    /// Where the server is, without anything secret.
    pub place: String,
    pub opened: SystemTime,
    /// What client and server agreed on.
    pub version: OnceLock<Version>,
    /// How the server answered `initialize`, where modern clients have to be told.
    pub greeting: OnceLock<Greeting>,
    /// Streams that clients read.
    pub streams: AtomicU32,
    /// Whether one of them is for what answers no request.
    pub listening: AtomicBool,
    /// Whether a request has the session to itself.
    claimed: AtomicBool,
    /// Cancelled when the request is over that the session was opened for, and nobody else may have it.
    spent: CancellationToken,
}

/// A session to oneself, as long as this is kept.
pub(crate) struct Claim {
    facts: Arc<Facts>,
    /// Whether nobody may have the session afterwards.
    is_last: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_last {
            self.facts.spent.cancel();
        } else {
            self.facts.claimed.store(false, Ordering::Release);
        }
    }
}

impl Facts {
    /// Whether the client hears what answers no request.
    pub fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }
}

/// How a session treats its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    pub client: ClientTransport,
    /// Whether streams that break can be taken up again.
    pub resumable: bool,
    /// Whether the client can be asked and told anything beside the answers to its requests.
    pub listens: bool,
    /// Whether the session ends with its stream.
    pub lives_with_stream: bool,
    /// Of the requests of modern clients that share the session: what they all say of themselves. None: its client is of the legacy era.
    pub modern: Option<Persona>,
    /// How long it may be unused.
    pub idle: Duration,
}

/// Counts that are given back when the session is over.
struct Counted {
    sessions: Arc<Sessions>,
    id: Uuid,
    whose: Vec<Whose>,
}

impl Sessions {
    pub fn new(around: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            around: Arc::new(around),
            shards: Default::default(),
            counts: Mutex::default(),
            of_callers: Mutex::default(),
        })
    }

    /// Opens a session of the caller's with a server.
    pub fn open(self: &Arc<Self>, caller: &Authenticated, way: Way, manners: Manners) -> Result<Handle, Refused> {
        let id = Uuid::new_v4();
        let counted = self.count(id, caller, &manners)?;
        let standing = self.standing(caller)?;
        let (to, mailbox) = mpsc::channel(MAILBOX);
        let facts = Arc::new(Facts {
            org_id: caller.org().id.clone(),
            server_id: caller.server().id.clone(),
            server_slug: caller.server().slug.clone(),
            subject: subject(caller.principal()),
            client: manners.client,
            server_transport: way.transport,
            server_era: OnceLock::new(),
            is_untouched: AtomicBool::new(false),
            place: place_of(&way),
            opened: SystemTime::now(),
            version: OnceLock::new(),
            greeting: OnceLock::new(),
            streams: AtomicU32::new(0),
            listening: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            spent: CancellationToken::new(),
        });
        let handle = Handle { id, facts: facts.clone(), to };
        self.shard(id).write().unwrap_or_else(PoisonError::into_inner).insert(id, handle.clone());
        let actor = Actor::new(id, self.around.clone(), standing, way, (manners, facts));
        self.around.reach.tasks.spawn("session", OnExit::Ignore, async move {
            let _counted = counted;
            actor.run(mailbox).await;
        });
        Ok(handle)
    }

    /// The place of the gateway's own sessions on behalf of a caller; modern callers share them if they say the same of themselves.
    pub(crate) fn of_caller(&self, caller: &Authenticated, persona: Option<Persona>) -> Arc<OfCaller> {
        let key = Caller {
            org_id: caller.org().id.clone(),
            subject: subject(caller.principal()),
            via: caller.principal().via,
            server_id: caller.server().id.clone(),
            persona,
        };
        let mut places = self.of_callers.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever comes anew clears away what nobody uses any more.
        if !places.contains_key(&key) {
            places.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|sessions| sessions.iter().any(|it| !it.is_over()))
            });
        }
        places.entry(key).or_default().clone()
    }

    /// What a caller is judged by from now on.
    pub(crate) fn standing(&self, caller: &Authenticated) -> Result<Standing, Lost> {
        let (live, principal) = (self.around.live.clone(), caller.principal().clone());
        Standing::register(live, principal, caller.org().clone(), caller.server().clone())
    }

    /// A session by its id.
    pub fn find(&self, id: Uuid) -> Option<Handle> {
        self.shard(id).read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All sessions for which `wanted` holds.
    pub fn select(&self, wanted: impl Fn(&Facts) -> bool) -> Vec<Handle> {
        let shards = self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
        shards.flat_map(|shard| shard.values().filter(|handle| wanted(&handle.facts)).cloned().collect::<Vec<_>>()).collect()
    }

    /// What links to servers are made with.
    pub(crate) fn reach(&self) -> &Reach {
        &self.around.reach
    }

    pub(crate) fn settings(&self) -> &config::Sessions {
        &self.around.sessions
    }

    fn shard(&self, id: Uuid) -> &RwLock<HashMap<Uuid, Handle>> {
        &self.shards[usize::from(id.as_bytes()[0]) % SHARDS]
    }

    fn count(self: &Arc<Self>, id: Uuid, caller: &Authenticated, manners: &Manners) -> Result<Counted, Refused> {
        let (org, bounds) = (caller.org().id.clone(), &self.around.sessions);
        let settings = caller.server().client_transports.settings(manners.client.into());
        let of_server = settings.max_connections.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let wanted = [
            (Whose::Node, bounds.max, Refused::Node),
            (Whose::Transport(manners.client), self.around.transports.of(manners.client).max_sessions, Refused::Node),
            (Whose::Organization(org.clone()), bounds.max_per_organization, Refused::Organization),
            (Whose::Principal(org, subject(caller.principal())), bounds.max_per_principal, Refused::Principal),
            (Whose::Server(caller.server().id.clone(), manners.client), of_server, Refused::Server),
        ];
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, refused)) = wanted.iter().find(|(whose, most, _)| counts.get(whose).is_some_and(|count| count >= most))
        {
            return Err(*refused);
        }
        let whose: Vec<_> = wanted.into_iter().map(|(whose, _, _)| whose).collect();
        whose.iter().for_each(|whose| *counts.entry(whose.clone()).or_default() += 1);
        self.around.metrics.sessions.inc();
        Ok(Counted { sessions: self.clone(), id, whose })
    }
}

/// By whom sessions are counted: callers without a credential are one.
fn subject(principal: &Principal) -> Box<str> {
    principal.subject.as_str().into()
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sessions.around.metrics.sessions.dec();
        self.sessions.shard(self.id).write().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        let mut counts = self.sessions.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for whose in &self.whose {
            if let Some(count) = counts.get_mut(whose) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(whose);
                }
            }
        }
    }
}

impl Handle {
    /// Asks the session for something; waits while others are before it.
    pub(crate) async fn ask(&self, command: Command) -> Result<(), Over> {
        self.to.send(command).await.map_err(|_over| Over)
    }

    /// The session, for one request alone; `None`: another one has it.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let taken = self.facts.claimed.swap(true, Ordering::Acquire);
        (!taken).then(|| Claim { facts: self.facts.clone(), is_last: false })
    }

    /// The session, for one request alone, with which it ends.
    pub(crate) fn spend(&self) -> Claim {
        Claim { facts: self.facts.clone(), is_last: true }
    }

    /// Whether messages pass as they are: there is nothing to translate.
    pub fn is_untouched(&self) -> bool {
        self.facts.is_untouched.load(Ordering::Relaxed)
    }

    /// Connects the session with its server; false: it cannot be reached.
    pub(crate) async fn connect(&self) -> bool {
        let (reply, connected) = oneshot::channel();
        self.ask(Command::Connect { reply }).await.is_ok() && connected.await.unwrap_or(false)
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        self.to.is_closed()
    }

    /// Ends the session; it may be over already. Whoever comes afterwards is told that there is none, unless the session is busy with a
    /// server that takes nothing.
    pub async fn end(&self, why: End) {
        if self.ask(Command::End(why)).await.is_ok() {
            let _busy = timeout(PARTING, self.to.closed()).await;
        }
    }

    /// Streams that clients read now.
    pub fn streams(&self) -> u32 {
        self.facts.streams.load(Ordering::Relaxed)
    }
}
