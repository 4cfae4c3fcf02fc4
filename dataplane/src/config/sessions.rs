//! Sessions that live in this node, and the transports that clients come over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;
use crate::transport::ClientTransport;

/// Bounds of owned sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Sessions {
    /// On this node.
    pub max: usize,
    /// Of one organisation.
    pub max_per_organization: usize,
    /// Of one principal; callers without a credential are one.
    pub max_per_principal: usize,
    /// What is remembered of a session's messages, for streams that are taken up again.
    #[serde(with = "units::bytes")]
    pub replay_bytes: u64,
    /// Messages that may wait for a client on one stream.
    pub queue_messages: usize,
    /// Bytes of messages that may wait for a client on one stream; one message always fits.
    #[serde(with = "units::bytes")]
    pub queue_bytes: u64,
    /// How long writing to a client may take before its connection is closed.
    #[serde(with = "units::duration")]
    pub write: Duration,
}

/// What each of the transports does for clients; servers may have settings of their own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Transports {
    pub streamable_http: Transport,
    pub http_sse: Transport,
    pub websocket: Transport,
    pub json_rpc: Transport,
}

/// One transport.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Transport {
    /// Whether it is served at all.
    pub enabled: bool,
    /// How long an owned session may be unused.
    #[serde(with = "units::duration")]
    pub session_idle: Duration,
    /// Owned sessions of clients of this transport, on this node.
    pub max_sessions: usize,
    /// Between two signs of life on a silent stream or socket.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_per_organization: 5_000,
            max_per_principal: 1_000,
            replay_bytes: 256 << 10,
            queue_messages: 256,
            queue_bytes: 4 << 20,
            write: Duration::from_secs(30),
        }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self { enabled: true, session_idle: Duration::from_mins(30), max_sessions: 10_000, keep_alive: Duration::from_secs(15) }
    }
}

impl Sessions {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let at_least = [
            ("max", self.max),
            ("max_per_organization", self.max_per_organization),
            ("max_per_principal", self.max_per_principal),
            ("queue_messages", self.queue_messages),
        ];
        problems.extend(
            at_least.iter().filter(|(_, value)| *value == 0).map(|(key, _)| format!("sessions.{key}: must be at least 1")),
        );
        if self.write.is_zero() {
            problems.push("sessions.write: must be more than 0".into());
        }
    }
}

impl Transports {
    /// The settings of one of them.
    pub fn of(&self, transport: ClientTransport) -> &Transport {
        match transport {
            ClientTransport::StreamableHttp => &self.streamable_http,
            ClientTransport::HttpSse => &self.http_sse,
            ClientTransport::WebSocket => &self.websocket,
            ClientTransport::JsonRpc => &self.json_rpc,
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let all = [
            ("streamable_http", &self.streamable_http),
            ("http_sse", &self.http_sse),
            ("websocket", &self.websocket),
            ("json_rpc", &self.json_rpc),
        ];
        for (name, transport) in all {
            for (key, value) in [("session_idle", transport.session_idle), ("keep_alive", transport.keep_alive)] {
                if value.is_zero() {
                    problems.push(format!("transports.{name}.{key}: must be more than 0"));
                }
            }
            if transport.max_sessions == 0 {
                problems.push(format!("transports.{name}.max_sessions: must be at least 1; enabled: false switches it off"));
            }
        }
    }
}
