//! How a client's messages get across to a server: the one place that chooses. Two ways lead across, [`Plan::Forward`] and
//! [`Plan::Relay`]. Knows transports and eras, never a message; the adapters between the eras are below.

pub mod legacy_client;

use mcp_gateway::proto::config::v1::Transport;

use crate::pipeline::decode::Decoded;
use crate::pipeline::denial::RouteDenial;
use crate::transport::{ClientTransport, Era};

/// A way across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Streamable HTTP on both sides, in one era: request by request, and nothing is kept here. Sessions are sealed.
    Forward,
    /// A client of the legacy era over any transport: messages pass through a session that lives in a node. A server of the modern
    /// era has a [`legacy_client`] in front of it, so that the session does not know.
    Relay,
}

/// The way from `call` to a server, over its transport and in the era in which it is spoken to.
pub fn plan(call: &Decoded, transport: Transport, era: Era) -> Result<Plan, RouteDenial> {
    match (call.client(), call.era(), transport, era) {
        (ClientTransport::StreamableHttp, Era::Legacy, Transport::StreamableHttp, Era::Legacy)
        | (_, Era::Modern, Transport::StreamableHttp, Era::Modern) => Ok(Plan::Forward),
        (_, Era::Legacy, _, _) => Ok(Plan::Relay),
        (_, Era::Modern, _, _) => {
            Err(RouteDenial::ClientTooNew { requested: call.version().map_or("", |version| version.as_str()).to_owned() })
        }
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
