//! What stages tell the trail: plain facts, made elsewhere and written here.

use bytes::Bytes;
use mcp_gateway::proto::node::v1::Outcome;

use crate::relay::outcome::Answered;
use crate::transport::Era;

/// The stages whose time is recorded, in the pipeline's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Target,
    Decode,
    Authenticate,
    Authorize,
    Limit,
    Route,
}

/// How a call ended, as far as its answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub outcome: Outcome,
    /// JSON-RPC error code sent to the client; 0: none.
    pub error_code: i32,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// SSE events relayed.
    pub events: u32,
    /// What the error's message looks like; 0: none was seen.
    pub shape: u64,
}

impl Ending {
    /// Of an answer; what was sent of it is not counted yet.
    pub const fn of(answered: Answered) -> Self {
        let Answered { outcome, code, shape } = answered;
        Self { outcome, error_code: code, bytes: 0, events: 0, shape }
    }
}

/// What [`super::Trail::asked`] records of a message.
#[derive(Debug, Default)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub name: &'a str,
    /// Whether the name is the URI of a resource: those hold secrets.
    pub is_uri: bool,
    pub request_bytes: u64,
    pub arguments_digest: Bytes,
}

/// Where a call goes.
#[derive(Clone, Copy)]
pub struct Going<'a> {
    /// The transport of the server, as in records.
    pub transport: &'a str,
    pub era: Era,
    /// Which server that is, without anything secret.
    pub place: &'a (dyn std::fmt::Display + Sync),
}
