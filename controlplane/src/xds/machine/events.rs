//! What goes into a stream's machine and what comes out of it, beside responses.

use std::sync::Arc;

use mcp_gateway::{proto::envoy::service::discovery::v3::DeltaDiscoveryRequest, snapshot::Version};

use crate::publish::scope::{Beside, Scope};

/// Who is at the other end, as its certificate says, and who we are.
#[derive(Clone, Debug)]
pub struct Parties {
    /// A UUID.
    pub node_id: String,
    pub pool: String,
    /// The identifier of this replica, for debugging.
    pub replica: String,
    /// Unique per stream: no nonce of another stream is ever taken for one of this.
    pub stream: String,
}

/// What happens to a stream.
#[derive(Debug)]
pub enum Event {
    /// The node said something.
    Request(Box<DeltaDiscoveryRequest>),
    /// The pool's configuration changed.
    Published(Arc<Scope>),
    /// Revocations or peers changed.
    Beside(Arc<Beside>),
}

/// What follows from an event, beside responses (see [`Machine::next_response`]).
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// The node runs this version now.
    Applied { version: Version },
    /// The node refused a response.
    Refused(Refusal),
    /// The stream ends.
    Close(Fault),
}

/// A response that the node refused, or applied in part.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub type_url: String,
    /// The scope's version that the response belonged to.
    pub version: Version,
    /// The resources in the response.
    pub names: Vec<String>,
    /// google.rpc.Code as the node gave it; OK on a manifest: applied, except for what the message names.
    pub code: i32,
    /// What the node says is wrong.
    pub message: String,
}

/// Why a stream must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the first request of a stream must carry the node")]
    NoNode,
    #[error("node {claimed} asked with the certificate of node {certified}")]
    OtherNode { claimed: String, certified: String },
    #[error("pool {claimed} asked for with a certificate of pool {certified}")]
    OtherPool { claimed: String, certified: String },
    #[error("the node id changed within a stream, from {bound} to {claimed}")]
    NodeChanged { bound: String, claimed: String },
    #[error("a request must name its resource type")]
    NoType,
    #[error("what the node holds is not known by the digest it gave: it has to state names and versions")]
    UnknownDigest,
    #[error("the stream holds too much: {what}")]
    Excessive { what: &'static str },
}
