//! How a client's messages get across to a server: the one place that chooses. Within an era [`Plan::Forward`] and [`Plan::Relay`] lead
//! across; what has to be translated between eras is in [`legacy_client`] and [`legacy_server`]. Choosing knows transports and eras,
//! never a message.

pub mod legacy_client;
pub mod legacy_server;

use mcp_gateway::proto::config::v1::Transport;

use crate::pipeline::decode::Decoded;
use crate::transport::{ClientTransport, Era};

/// A way across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Streamable HTTP on both sides, in one era: request by request, and nothing is kept here. Sessions are sealed.
    Forward,
    /// A client of the legacy era over any transport: messages pass through a session that lives in a node. A server of the modern
    /// era has a [`legacy_client`] in front of it, so that the session does not know.
    Relay,
    /// A modern client of a legacy server: each request by itself, in sessions that the gateway has with the server.
    ToLegacy,
}

/// The way from `call` to a server, over its transport and in the era in which it is spoken to.
pub fn plan(call: &Decoded, transport: Transport, era: Era) -> Plan {
    match (call.client(), call.era(), transport, era) {
        (ClientTransport::StreamableHttp, Era::Legacy, Transport::StreamableHttp, Era::Legacy)
        | (_, Era::Modern, Transport::StreamableHttp, Era::Modern) => Plan::Forward,
        (_, Era::Legacy, _, _) => Plan::Relay,
        (_, Era::Modern, _, _) => Plan::ToLegacy,
    }
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
