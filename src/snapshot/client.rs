//! What clients may use to reach a server: a switch and limits for each transport.
//! Pure; called by [`super::server`]. Says nothing of a node's defaults, which a zero stands for.

use std::time::Duration;

use super::Problem;
use crate::proto::config::v1::{ClientTransport, ClientTransportSettings};

const LONGEST_IDLE: u32 = 30 * 24 * 3600;
const LONGEST_KEEP_ALIVE: u32 = 3600;
const MOST_CONNECTIONS: u32 = 1_000_000;
const KINDS: usize = 5;

/// Settings of every client transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTransports([ClientSettings; KINDS]); // by the value of the enum

/// Settings of one client transport; what is `None` is the node's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Whether there are paths of this transport at all.
    pub enabled: bool,
    /// After how long without a message a session or socket is closed.
    pub session_idle: Option<Duration>,
    /// Sessions or sockets of the server per node.
    pub max_connections: Option<u32>,
    /// How often an idle stream or socket is given a sign of life.
    pub keep_alive: Option<Duration>,
}

impl ClientTransports {
    /// What applies to clients that come over `transport`.
    #[must_use]
    pub fn settings(&self, transport: ClientTransport) -> &ClientSettings {
        &self.0[place(transport)]
    }

    /// From what [`check`] found no fault with.
    pub(super) fn of(given: &[ClientTransportSettings]) -> Self {
        let seconds = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        let mut all = Self::default();
        for one in given {
            all.0[place(one.transport())] = ClientSettings {
                enabled: !one.disabled,
                session_idle: seconds(one.session_idle_seconds),
                max_connections: (one.max_connections > 0).then_some(one.max_connections),
                keep_alive: seconds(one.keep_alive_seconds),
            };
        }
        all
    }
}

impl Default for ClientTransports {
    /// Everything is on; what is no transport is off.
    fn default() -> Self {
        let on = ClientSettings { enabled: true, session_idle: None, max_connections: None, keep_alive: None };
        let mut all = Self(std::array::from_fn(|_| on.clone()));
        all.0[place(ClientTransport::Unspecified)].enabled = false;
        all
    }
}

const fn place(transport: ClientTransport) -> usize {
    match transport {
        ClientTransport::Unspecified => 0,
        ClientTransport::StreamableHttp => 1,
        ClientTransport::HttpSse => 2,
        ClientTransport::Websocket => 3,
        ClientTransport::JsonRpc => 4,
    }
}

pub(super) fn check(server: &str, given: &[ClientTransportSettings], problems: &mut Vec<Problem>) {
    let mut expect = |holds: bool, field: String, expected: &str| {
        if !holds {
            problems.push(Problem::InvalidServer { server: server.to_owned(), field, expected: expected.to_owned() });
        }
    };
    for (index, one) in given.iter().enumerate() {
        let at = |field: &str| format!("client_transports[{index}].{field}");
        let known = ClientTransport::try_from(one.transport).is_ok_and(|it| it != ClientTransport::Unspecified);
        expect(known, at("transport"), "expected STREAMABLE_HTTP, HTTP_SSE, WEBSOCKET or JSON_RPC");
        let idle = one.session_idle_seconds <= LONGEST_IDLE;
        expect(idle, at("session_idle_seconds"), "expected at most 2592000, or 0 for the node's default");
        let connections = one.max_connections <= MOST_CONNECTIONS;
        expect(connections, at("max_connections"), "expected at most 1000000, or 0 for the node's default");
        let alive = one.keep_alive_seconds <= LONGEST_KEEP_ALIVE;
        expect(alive, at("keep_alive_seconds"), "expected at most 3600, or 0 for the node's default");
        if one.transport == i32::from(ClientTransport::JsonRpc) {
            let expected = "expected 0: JSON_RPC has no sessions";
            expect(one.session_idle_seconds == 0, at("session_idle_seconds"), expected);
            expect(one.keep_alive_seconds == 0, at("keep_alive_seconds"), expected);
        }
    }
    for (index, pair) in given.windows(2).enumerate() {
        let expected = "expected settings sorted by transport, each transport once";
        expect(pair[0].transport < pair[1].transport, format!("client_transports[{}].transport", index + 1), expected);
    }
}
