//! Sizes, counts and deadlines of requests and connections, with safe defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;

/// A control plane keeps a retired session key this long and no longer.
const LONGEST_SESSION: Duration = Duration::from_hours(30 * 24);

/// Sizes and counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// All request headers together. 16 KiB for ordinary ones plus room for an `Mcp-Name` that carries a long URI.
    #[serde(with = "units::bytes")]
    pub header_bytes: u64,
    /// Request header fields.
    pub header_fields: usize,
    /// Path and query of a request.
    #[serde(with = "units::bytes")]
    pub uri_bytes: u64,
    /// A request body, where the server sets no limit of its own.
    #[serde(with = "units::bytes")]
    pub body_bytes: u64,
    /// A request body, whatever a server allows.
    #[serde(with = "units::bytes")]
    pub body_bytes_max: u64,
    /// What of a request body has to arrive per second on average, once `timeouts.body_grace` is over. Keeps clients that
    /// send a byte now and then (slowloris) from holding a connection for all of `timeouts.body`.
    #[serde(with = "units::bytes")]
    pub body_bytes_per_second: u64,
    /// Levels of arrays and objects in a request body.
    pub json_depth: usize,
    /// Messages in a batch (2025-03-26 sessions only).
    pub batch_messages: usize,
    /// One event of a relayed stream.
    #[serde(with = "units::bytes")]
    pub sse_event_bytes: u64,
    /// A list answer that is buffered to be filtered.
    #[serde(with = "units::bytes")]
    pub list_bytes: u64,
    /// The body of an error answer of a server.
    #[serde(with = "units::bytes")]
    pub error_bytes: u64,
    /// Open connections on all listeners.
    pub connections: usize,
    /// Open connections from one address.
    pub connections_per_ip: usize,
    /// Concurrent HTTP/2 streams per connection.
    pub h2_streams: u32,
    /// Calls that one server has in flight.
    pub in_flight_per_server: usize,
    /// Calls that one organisation has in flight on all its servers, and apart from them as many streams that it has open:
    /// one organisation cannot take the room of the others.
    pub in_flight_per_organization: usize,
    /// Credentials that do not hold or are missing, and refusals by policy of callers without one, that an address may cause in a minute
    /// (of IPv6 a network of 64 bits); and refusals by policy that a principal may cause. After that they get 429, and credentials that have
    /// not held here before are not looked at; what is allowed goes on. Many users may share an address.
    pub failures_per_address: u32,
    /// Verified tokens that are remembered.
    pub verified_tokens: u64,
    /// Counts of rate limits that are kept, about 250 bytes each, or 500 where nodes share them: one for each limit and each user, server or endpoint that it tells apart.
    /// Past that, unknown callers are refused and the count that was not used for longest gives way to anybody else's.
    pub rate_counts: usize,
}

/// Deadlines.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// TLS handshake with a client.
    #[serde(with = "units::duration")]
    pub tls_handshake: Duration,
    /// From the first byte of a request to the end of its headers.
    #[serde(with = "units::duration")]
    pub headers: Duration,
    /// From the end of the headers to the end of the body.
    #[serde(with = "units::duration")]
    pub body: Duration,
    /// From the end of the headers until a body has to keep up `limits.body_bytes_per_second`.
    #[serde(with = "units::duration")]
    pub body_grace: Duration,
    /// A connection without a request.
    #[serde(with = "units::duration")]
    pub idle: Duration,
    /// Connecting to a server, TLS included.
    #[serde(with = "units::duration")]
    pub connect: Duration,
    /// A stream that answers a request and brings nothing.
    #[serde(with = "units::duration")]
    pub stream_idle: Duration,
    /// Any stream.
    #[serde(with = "units::duration")]
    pub stream_max: Duration,
    /// Between comments on an otherwise silent stream.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    /// How long a stopping process waits for its calls.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// How long a sealed session lives.
    #[serde(with = "units::duration")]
    pub session: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 10,
            header_fields: 100,
            uri_bytes: 8 << 10,
            body_bytes: 4 << 20,
            body_bytes_max: 64 << 20,
            body_bytes_per_second: 1000,
            json_depth: 64,
            batch_messages: 100,
            sse_event_bytes: 1 << 20,
            list_bytes: 8 << 20,
            error_bytes: 64 << 10,
            connections: 20_000,
            connections_per_ip: 256,
            h2_streams: 100,
            in_flight_per_server: 256,
            in_flight_per_organization: 1000,
            failures_per_address: 60,
            verified_tokens: 100_000,
            rate_counts: 100_000,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            body: Duration::from_secs(30),
            body_grace: Duration::from_secs(5),
            idle: Duration::from_secs(75),
            connect: Duration::from_secs(2),
            stream_idle: Duration::from_mins(5),
            stream_max: Duration::from_hours(24),
            keep_alive: Duration::from_secs(15),
            drain: Duration::from_mins(2),
            session: Duration::from_hours(24),
        }
    }
}

impl Limits {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let at_least = [
            ("header_bytes", self.header_bytes, 8 << 10),
            ("uri_bytes", self.uri_bytes, 256),
            ("body_bytes", self.body_bytes, 1 << 10),
            ("body_bytes_per_second", self.body_bytes_per_second, 1),
            ("json_depth", self.json_depth as u64, 8),
            ("sse_event_bytes", self.sse_event_bytes, 1 << 10),
            ("list_bytes", self.list_bytes, 1 << 10),
            ("rate_counts", self.rate_counts as u64, 1),
            ("failures_per_address", self.failures_per_address.into(), 1),
            ("connections", self.connections as u64, 1),
            ("connections_per_ip", self.connections_per_ip as u64, 1),
            ("in_flight_per_server", self.in_flight_per_server as u64, 1),
            ("in_flight_per_organization", self.in_flight_per_organization as u64, 1),
        ];
        for (key, value, least) in at_least {
            if value < least {
                problems.push(format!("limits.{key}: {value} is less than {least}"));
            }
        }
        if self.body_bytes > self.body_bytes_max {
            problems.push("limits.body_bytes: more than limits.body_bytes_max".into());
        }
    }
}

impl Timeouts {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let all = [
            ("tls_handshake", self.tls_handshake),
            ("headers", self.headers),
            ("body", self.body),
            ("body_grace", self.body_grace),
            ("idle", self.idle),
            ("connect", self.connect),
            ("stream_idle", self.stream_idle),
            ("stream_max", self.stream_max),
            ("keep_alive", self.keep_alive),
            ("drain", self.drain),
            ("session", self.session),
        ];
        for (key, value) in all {
            if value.is_zero() {
                problems.push(format!("timeouts.{key}: must be more than 0"));
            }
        }
        if self.session > LONGEST_SESSION {
            problems
                .push("timeouts.session: must be at most 30 days: a session key that was rotated away is kept no longer".into());
        }
    }
}
