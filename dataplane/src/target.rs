//! From a path to what it addresses. Strict: one spelling per thing, compared byte for byte, so that no proxy before us
//! and no rule about paths can read it differently. Never decides who may; the pipeline's first stage calls it.

use std::sync::Arc;

use mcp_gateway::snapshot::{Org, Server, Snapshot, is_slug, is_uuid};

#[cfg(test)]
mod tests;

/// What the part of the path after the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `…/mcp`: Streamable HTTP.
    Mcp,
    /// `…/mcp/status`: the caller's own sessions and streams.
    McpStatus,
    /// `…/mcp/capabilities`: what this caller would get from discover.
    McpCapabilities,
    /// `…/sse`: the event stream of MCP 2024-11-05.
    Sse,
    /// `…/sse/events`: where clients of that transport post.
    SseEvents,
    /// `…/ws`: WebSocket.
    WebSocket,
    /// `…/ws/ticket`: what lets a client in that cannot send headers.
    WebSocketTicket,
    /// `…/rpc`: one JSON-RPC request, answered as JSON.
    Rpc,
    /// `…/rpc/batch`: several.
    RpcBatch,
    /// `…/rpc/introspection`: what the caller can reach.
    RpcIntrospection,
}

/// Which server a path names, before anything is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'p> {
    /// `/mcp…`: no single server, everything that the caller may use.
    Federated,
    /// `/servers/{id}/…`.
    Id(&'p str),
    /// `/o/{org}/servers/{slug}/…`.
    Slug {
        /// The organisation's slug.
        org: &'p str,
        /// The server's slug.
        server: &'p str,
    },
}

/// A path that is none of ours: 404, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such path")]
pub struct NotFound;

/// Where a request goes.
#[derive(Clone)]
pub enum Target {
    /// A server that exists and is enabled.
    Server {
        /// The server's organisation.
        org: Arc<Org>,
        /// The server.
        server: Arc<Server>,
        /// What of it.
        endpoint: Endpoint,
    },
    /// A well-formed address of a server that is not there. It demands authentication as if it were, and only an
    /// authenticated caller learns that it is not: unknown and forbidden look the same from outside.
    Unknown {
        /// What of it.
        endpoint: Endpoint,
    },
    /// All servers of the caller.
    Federated {
        /// What of them.
        endpoint: Endpoint,
    },
}

impl Target {
    /// What of the server is addressed.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Server { endpoint, .. } | Self::Unknown { endpoint } | Self::Federated { endpoint } => *endpoint,
        }
    }
}

/// Resolves a path (without query) against one configuration.
pub fn resolve(path: &str, snapshot: &Snapshot) -> Result<Target, NotFound> {
    let (address, endpoint) = parse(path)?;
    let found = match address {
        Address::Federated => return Ok(Target::Federated { endpoint }),
        Address::Id(id) => snapshot.server(id),
        Address::Slug { org, server } => snapshot.server_by_slug(org, server),
    };
    Ok(match found {
        Some((org, server)) => Target::Server { org: org.clone(), server: server.clone(), endpoint },
        None => Target::Unknown { endpoint },
    })
}

/// Splits a path. Anything but the exact spelling is [`NotFound`]: percent-encoding, `//`, `.` and `..`, `;`, a trailing
/// slash or dot, upper case, ids that are not canonical UUIDs.
pub fn parse(path: &str) -> Result<(Address<'_>, Endpoint), NotFound> {
    let path = path.strip_prefix('/').ok_or(NotFound)?;
    let (address, rest) = if let Some(rest) = path.strip_prefix("servers/") {
        let (id, rest) = rest.split_once('/').ok_or(NotFound)?;
        (Address::Id(valid(id, is_uuid)?), rest)
    } else if let Some(rest) = path.strip_prefix("o/") {
        let (org, rest) = rest.split_once('/').ok_or(NotFound)?;
        let rest = rest.strip_prefix("servers/").ok_or(NotFound)?;
        let (server, rest) = rest.split_once('/').ok_or(NotFound)?;
        (Address::Slug { org: valid(org, is_slug)?, server: valid(server, is_slug)? }, rest)
    } else {
        (Address::Federated, path)
    };
    let endpoint = match rest {
        "mcp" => Endpoint::Mcp,
        "mcp/status" => Endpoint::McpStatus,
        "mcp/capabilities" => Endpoint::McpCapabilities,
        "sse" => Endpoint::Sse,
        "sse/events" => Endpoint::SseEvents,
        "ws" => Endpoint::WebSocket,
        "ws/ticket" => Endpoint::WebSocketTicket,
        "rpc" => Endpoint::Rpc,
        "rpc/batch" => Endpoint::RpcBatch,
        "rpc/introspection" => Endpoint::RpcIntrospection,
        _ => return Err(NotFound),
    };
    Ok((address, endpoint))
}

fn valid(segment: &str, is_valid: impl Fn(&str) -> bool) -> Result<&str, NotFound> {
    if is_valid(segment) { Ok(segment) } else { Err(NotFound) }
}
