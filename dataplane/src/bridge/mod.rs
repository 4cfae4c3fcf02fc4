//! How a client's messages get across to a server: the one place that chooses. Two ways lead across within an era, [`Plan::Forward`] and
//! [`Plan::Relay`]; [`Plan::ToLegacy`] leads from one into the other, and what it has to translate is in [`legacy_server`]. A legacy client of a
//! modern server gets the documented error. Choosing knows transports and eras, never a message.

pub mod legacy_server;

use mcp_gateway::proto::config::v1::{Era as Pinned, Transport};
use mcp_gateway::snapshot::Server;

use crate::pipeline::decode::Decoded;
use crate::pipeline::denial::RouteDenial;
use crate::transport::{ClientTransport, Era};

/// A way across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Streamable HTTP on both sides, in one era: request by request, and nothing is kept here. Sessions are sealed.
    Forward,
    /// The legacy era on both sides, over any transports: messages pass through a session that lives in a node.
    Relay,
    /// A modern client of a legacy server: each request by itself, in sessions that the gateway has with the server.
    ToLegacy,
}

/// The way from `call` to `server`, whose transport is `transport`.
pub fn plan(call: &Decoded, server: &Server, transport: Transport) -> Result<Plan, RouteDenial> {
    match (call.era(), server.era) {
        (Era::Modern, Pinned::Legacy) if call.client() == ClientTransport::StreamableHttp => return Ok(Plan::ToLegacy),
        (Era::Modern, Pinned::Legacy) => return Err(too_new(call)),
        (Era::Legacy, Pinned::Modern) => return Err(RouteDenial::ClientTooOld),
        (_, Pinned::Unspecified) | (Era::Legacy, Pinned::Legacy) | (Era::Modern, Pinned::Modern) => {}
    }
    match (call.client(), transport, call.era()) {
        (ClientTransport::StreamableHttp, Transport::StreamableHttp, _) => Ok(Plan::Forward),
        (_, _, Era::Legacy) => Ok(Plan::Relay),
        (_, _, Era::Modern) => Err(too_new(call)),
    }
}

fn too_new(call: &Decoded) -> RouteDenial {
    RouteDenial::ClientTooNew { requested: call.version().map_or("", |version| version.as_str()).to_owned() }
}

/// The transport's name in records.
pub fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Unspecified => "unspecified",
        Transport::StreamableHttp => "streamable-http",
        Transport::HttpSse => "http-sse",
        Transport::Websocket => "websocket",
        Transport::Stdio => "stdio",
        Transport::JsonRpc => "json-rpc",
    }
}
