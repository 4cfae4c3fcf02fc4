//! Every way to refuse a request: an enum per stage, so that a stage can only fail in its own ways. What each looks like
//! on the wire, in records and in metrics is one table, in [`wire`].
//!
//! Never says more than a caller may know: causes are
//! logged where they happen. Codes of our own are -31000 minus the HTTP status, outside the range JSON-RPC reserves.

mod wire;

use std::sync::Arc;

use http::StatusCode;

use super::authenticate::{TokenError, ticket};
use crate::audit::SpoolError;
use crate::limits::{Micros, Room};
use crate::operate::Unreachable;
use crate::origin;
use crate::owned::Refused as Crowded;
use crate::relay::Lost;
use crate::transport::{Era, Refusal};
use crate::upstream::Fault;

pub use wire::Wire;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Denial {
    #[error(transparent)]
    Target(#[from] TargetDenial),
    #[error(transparent)]
    Decode(#[from] DecodeDenial),
    #[error(transparent)]
    Authenticate(#[from] AuthenticateDenial),
    #[error(transparent)]
    Authorize(#[from] AuthorizeDenial),
    #[error(transparent)]
    Limit(#[from] LimitDenial),
    #[error(transparent)]
    Route(#[from] RouteDenial),
    #[error(transparent)]
    Record(#[from] RecordDenial),
    #[error(transparent)]
    Upstream(#[from] Fault),
    #[error(transparent)]
    Relay(#[from] RelayDenial),
    #[error(transparent)]
    Operate(#[from] OperateDenial),
    #[error("a request panicked")]
    Panicked,
}

/// Before it is known which server is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetDenial {
    #[error("no configuration has arrived yet")]
    NotReady,
    #[error("the URI is too long")]
    UriTooLong,
    #[error("the request carries more headers than are accepted")]
    HeadersTooLarge,
    #[error("a header name contains an underscore")]
    BadHeader,
    #[error(transparent)]
    Door(#[from] origin::Refusal),
    #[error("no endpoint has this path")]
    NoEndpoint,
    #[error("the endpoint does not have this method")]
    Method { allow: &'static str },
}

/// While the request is being read and understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeDenial {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body broke off")]
    Broken,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// While the caller is being recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateDenial {
    #[error("more than one credential was sent")]
    Ambiguous,
    #[error("no credential was sent")]
    Missing,
    #[error("the credential is none of ours")]
    Unusable,
    #[error("no such ticket: it was used, has expired, or is for another server")]
    Ticket,
    #[error("no such API key, or another secret")]
    WrongKey,
    #[error("the API key has expired")]
    ExpiredKey,
    #[error("the credential was revoked")]
    Revoked,
    #[error("the token is refused: {0}")]
    Token(TokenError),
    #[error("no such server in the caller's organisation")]
    UnknownServer,
}

/// What a caller may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Tool,
    Prompt,
    Resource,
}

/// When the policy says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeDenial {
    #[error("no rule allows this name")]
    NotGranted { thing: Thing, name: String, era: Era },
    #[error("no rule allows the name in this notification")]
    Notification,
    #[error("no rule allows anything on this server")]
    Nothing { anonymous: bool },
}

/// When there is no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitDenial {
    #[error("too many calls of this server are in flight")]
    InFlight,
    #[error("too many calls of this organisation are in flight")]
    Organization,
    #[error("the limit {} is used up", .room.name)]
    Spent { room: Room, wait: Micros },
    #[error("as many calls as the limit {name} allows are in flight")]
    Concurrent { name: Arc<str>, most: u32 },
    #[error("too many counts are kept to begin one for an unknown caller")]
    Crowded,
    #[error("the counts of the limit {name} are out of reach, and it says that nothing is admitted then")]
    Away { name: Arc<str> },
    #[error("too much from this address or of this principal was refused lately")]
    Failures { wait: Micros },
}

/// When the call cannot be carried to the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteDenial {
    #[error("the session is unknown, expired or somebody else's")]
    NoSession,
    #[error("the call that the request continues is lost")]
    ContinuationLost,
    #[error("the request continues nothing of the caller's: {0}")]
    Continuation(&'static str),
    #[error("the client did not open what the server wants opened first")]
    NotOpened,
    #[error("sessions cannot be opened: no session key in the configuration")]
    NoSessionKey,
    #[error("the server's transport is not served yet")]
    Transport,
    #[error("every endpoint of the server is drained")]
    Drained,
    #[error("the server's credential is not in the configuration")]
    NoCredential,
    #[error("the caller lost the stream before it began: {0}")]
    Lost(#[from] Lost),
    #[error("no session can be opened: {0}")]
    Sessions(Crowded),
    #[error(transparent)]
    Tickets(#[from] ticket::Crowded),
}

/// When an order about connections is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateDenial {
    #[error("the caller is no operator of the organisation")]
    NotOperator,
    #[error("the order is for an organisation that the caller's credential is not for")]
    Organization,
    #[error("no such {0} of the organisation's on any node")]
    NotFound(&'static str),
    /// It may be there all the same.
    #[error("no such {what} on any node that answered, and {} did not", .silent.len())]
    Unclear { what: &'static str, silent: Vec<Unreachable> },
    #[error("the order cannot be read: {0}")]
    Bad(&'static str),
    #[error("the order is larger than {limit} bytes")]
    TooLarge { limit: usize },
}

/// When the call cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("the call cannot be recorded: {0}")]
pub struct RecordDenial(pub SpoolError);

/// When the server's answer cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub enum RelayDenial {
    #[error("the server answered with status {0}, which is not passed on")]
    Status(StatusCode),
    #[error("the server answered in an encoding that was not asked for")]
    Encoding,
    #[error("the server answered with a content type that is not MCP's")]
    ContentType,
    #[error("the answer is larger than {limit} bytes and has to be held")]
    TooLarge { limit: u64 },
    #[error("the answer cannot be read strictly")]
    Unreadable,
    #[error("the answer is to another request")]
    AnotherAnswer,
    #[error("the answer broke off")]
    Broken,
    #[error("the answer to initialize cannot be used")]
    BadInitialize,
}

impl From<Crowded> for RouteDenial {
    fn from(crowded: Crowded) -> Self {
        match crowded {
            Crowded::Lost(lost) => Self::Lost(lost),
            Crowded::Node | Crowded::Organization | Crowded::Principal | Crowded::Server => Self::Sessions(crowded),
        }
    }
}

impl Denial {
    /// Whether the refusal says something about who may do what: such records are class audit.
    pub fn is_about_identity(&self) -> bool {
        matches!(self, Self::Authenticate(_) | Self::Authorize(_) | Self::Operate(OperateDenial::NotOperator))
    }
}
