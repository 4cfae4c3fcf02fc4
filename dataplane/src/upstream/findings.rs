//! What this node found out about servers whose registrations do not say, to be told.

use std::time::SystemTime;

use mcp_gateway::proto::config::v1::{Era as Pinned, Transport};
use mcp_gateway::snapshot::Server;

use super::{Upstreams, era::Eras, link};

/// Cheap to clone.
#[derive(Clone)]
pub struct Findings {
    upstreams: Upstreams,
    /// Over connections that last.
    connections: link::Found,
}

/// How a server wants to be spoken to; what is none was not found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    pub transport: Option<Transport>,
    pub eras: Option<Eras>,
    pub at: SystemTime,
}

impl Findings {
    pub fn new(upstreams: Upstreams, connections: link::Found) -> Self {
        Self { upstreams, connections }
    }

    /// What was found out about a server as it is registered now; `None`: nothing.
    pub fn of(&self, server: &Server) -> Option<Finding> {
        let pools = &self.upstreams.0;
        let transport = server.endpoints.iter().find_map(|endpoint| pools.found.when(&endpoint.url));
        let transport = transport.filter(|_| server.transport == Transport::Unspecified);
        let eras = match transport {
            // The event stream is of one era only.
            Some((Transport::HttpSse, at)) => Some((Eras::Legacy, at)),
            Some(_) | None => {
                let asked = server.endpoints.iter().find_map(|endpoint| pools.eras.when(&endpoint.url));
                asked.or_else(|| self.connections.when(server))
            }
        };
        let eras = eras.filter(|_| server.era == Pinned::Unspecified);
        let at = transport.map(|(_, at)| at).max(eras.map(|(_, at)| at))?;
        Some(Finding { transport: transport.map(|(what, _)| what), eras: eras.map(|(what, _)| what), at })
    }
}
