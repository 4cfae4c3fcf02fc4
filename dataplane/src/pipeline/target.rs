//! Stage one: which server is meant, and may this Host and Origin ask at all. Known before the caller is, because the
//! challenge, the issuers and the anonymous flag are the server's.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use ipnet::IpNet;
use mcp_gateway::snapshot::{Org, Server, Snapshot};

use super::denial::TargetDenial;
use super::trail::Trail;
use crate::config::{Config, Limits, Transports};
use crate::listener::Upgradable;
use crate::origin::Hosts;
use crate::relay::Body;
use crate::target::{self, Endpoint, Target};
use crate::transport::ClientTransport;

/// Proxies between a client and this node that are believed, at most.
const MOST_HOPS: usize = 32;

/// Where a request goes.
#[derive(Clone)]
pub enum Place {
    /// To a server that can be called.
    Server { org: Arc<Org>, server: Arc<Server> },
    /// To a server that is not there: asks for a credential all the same, so that nobody learns which ids exist.
    Unknown,
}

/// A request for an MCP endpoint. Only [`resolve`] makes one.
pub struct Targeted {
    parts: Parts,
    body: Incoming,
    place: Place,
    endpoint: Endpoint,
}

/// A connection that can become a socket.
pub struct Upgrade {
    pub connection: OnUpgrade,
    /// Held for as long as the socket is open.
    pub kept: Upgradable,
}

/// What decides who may knock: hosts, origins, proxies, and how large a head may be.
pub struct Doors {
    hosts: Hosts,
    trusted_proxies: Vec<IpNet>,
    transports: Transports,
    uri_bytes: usize,
    header_bytes: usize,
}

/// Resolves the target of `request` and checks Host and Origin against it.
pub fn resolve(
    request: Request<Incoming>,
    config: &Snapshot,
    doors: &Doors,
    trail: &mut Trail,
) -> Result<Targeted, TargetDenial> {
    trail.configuration(config);
    let (parts, body) = request.into_parts();
    let target = doors.admit(&parts.uri, &parts.headers, config)?;
    let endpoint = target.endpoint();
    let client = transport_of(endpoint).filter(|client| doors.transports.of(*client).enabled).ok_or(TargetDenial::NoEndpoint)?;
    let place = match target {
        Target::Server { org, server, .. } if server.client_transports.settings(client.into()).enabled => {
            trail.target(&org, &server);
            Place::Server { org, server }
        }
        Target::Unknown { .. } => Place::Unknown,
        Target::Server { .. } | Target::Federated { .. } => return Err(TargetDenial::NoEndpoint),
    };
    Ok(Targeted { parts, body, place, endpoint })
}

/// Which transport an endpoint belongs to; none: it is no transport's.
fn transport_of(endpoint: Endpoint) -> Option<ClientTransport> {
    match endpoint {
        Endpoint::Mcp => Some(ClientTransport::StreamableHttp),
        Endpoint::Sse | Endpoint::SseEvents => Some(ClientTransport::HttpSse),
        Endpoint::WebSocket | Endpoint::WebSocketTicket => Some(ClientTransport::WebSocket),
        Endpoint::Rpc | Endpoint::RpcBatch | Endpoint::RpcIntrospection => Some(ClientTransport::JsonRpc),
        Endpoint::McpStatus | Endpoint::McpCapabilities => None,
    }
}

impl Targeted {
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// What becomes of the connection if it is upgraded.
    pub fn take_upgrade(&mut self) -> Option<Upgrade> {
        let extensions = &mut self.parts.extensions;
        Some(Upgrade { connection: extensions.remove()?, kept: extensions.remove()? })
    }

    pub fn into_parts(self) -> (Parts, Incoming, Place) {
        (self.parts, self.body, self.place)
    }
}

impl Place {
    /// The largest body that is read for it.
    pub fn max_body_bytes(&self, limits: &Limits) -> usize {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        match self {
            Self::Server { server, .. } => server.max_body_bytes.min(size(limits.body_bytes_max)),
            Self::Unknown => size(limits.body_bytes),
        }
    }
}

impl Doors {
    pub fn new(config: &Config) -> Self {
        let loopback = config.listen.iter().all(|listen| listen.address.ip().is_loopback());
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            hosts: Hosts::new(&config.public_url, &config.allowed_hosts, loopback),
            trusted_proxies: config.trusted_proxies.clone(),
            transports: config.transports.clone(),
            uri_bytes: size(config.limits.uri_bytes),
            header_bytes: size(config.limits.header_bytes),
        }
    }

    /// Checks the head and resolves its path.
    pub fn admit(&self, uri: &Uri, headers: &HeaderMap, config: &Snapshot) -> Result<Target, TargetDenial> {
        self.check_size(uri, headers)?;
        let found = target::resolve(uri.path(), config);
        let origins = match &found {
            Ok(Target::Server { org, .. }) => org.allowed_origins.as_slice(),
            Ok(Target::Unknown { .. } | Target::Federated { .. }) | Err(_) => &[],
        };
        let origins = config.allowed_origins().iter().chain(origins).map(String::as_str);
        self.hosts.check(uri, headers, origins)?;
        found.map_err(|_no_such_path| TargetDenial::NoEndpoint)
    }

    /// As [`Doors::admit`], of what is about no server.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap, config: &Snapshot) -> Result<(), TargetDenial> {
        self.check_size(uri, headers)?;
        Ok(self.hosts.check(uri, headers, config.allowed_origins().iter().map(String::as_str))?)
    }

    fn check_size(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), TargetDenial> {
        if uri.path_and_query().is_some_and(|text| text.as_str().len() > self.uri_bytes) {
            return Err(TargetDenial::UriTooLong);
        }
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > self.header_bytes {
            return Err(TargetDenial::HeadersTooLarge);
        }
        // Some servers read `mcp_session_id` and `mcp-session-id` as the same header.
        if headers.keys().any(|name| name.as_str().contains('_')) {
            return Err(TargetDenial::BadHeader);
        }
        Ok(())
    }

    /// The client's address: the peer's, or what trusted proxies say it is.
    pub fn client_address(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let trusted = |address: IpAddr| self.trusted_proxies.iter().any(|network| network.contains(&address));
        let mut client = peer.to_canonical();
        if !trusted(client) {
            return client;
        }
        let fields = headers.get_all("x-forwarded-for").iter().rev();
        // From the right: everything left of the first stranger is hearsay, and so is everything left of what is no address.
        for hop in fields.flat_map(|field| field.to_str().unwrap_or("?").rsplit(',')).take(MOST_HOPS) {
            if !trusted(client) {
                break;
            }
            let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
            client = hop.to_canonical();
        }
        client
    }

    /// The Origin of `request`, if it has one that is allowed to read the answer.
    pub fn allowed_origin<B>(&self, request: &Request<B>, config: Option<&Snapshot>) -> Option<HeaderValue> {
        let origin = request.headers().get(header::ORIGIN)?;
        let org_origins = match target::resolve(request.uri().path(), config?) {
            Ok(Target::Server { org, .. }) => org.allowed_origins.clone(),
            Ok(Target::Unknown { .. } | Target::Federated { .. }) | Err(_) => Vec::new(),
        };
        let origins = config?.allowed_origins().iter().chain(&org_origins).map(String::as_str);
        self.hosts.check(request.uri(), request.headers(), origins).is_ok().then(|| origin.clone())
    }

    /// The answer to a browser that asks before it calls (CORS preflight); `None` for every other request.
    pub fn preflight<B>(&self, request: &Request<B>, origin: Option<&HeaderValue>) -> Option<Response<Body>> {
        const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
        const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
        let headers = request.headers();
        if request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(Body::whole(""));
        let Some(origin) = origin else {
            *response.status_mut() = StatusCode::FORBIDDEN;
            return Some(response);
        };
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        // The headers of MCP include `Mcp-Param-*`, which cannot be listed; cookies are never read.
        if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        answer.insert(header::VARY, HeaderValue::from_static("origin, access-control-request-headers"));
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_address_is_what_the_last_trusted_proxy_saw() {
        let trusted_proxies =
            ["10.0.0.0/8", "127.0.0.1/32", "2001:db8:ffff::/48"].map(|network| network.parse().unwrap()).to_vec();
        let doors = Doors::new(&Config { trusted_proxies, ..Config::default() });
        let cases: [(&str, &[&str], &str); 16] = [
            ("192.0.2.1", &["198.51.100.1"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2 , 10.0.0.3"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1:443"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1", "\u{e9}"], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("2001:db8:ffff::1", &["2001:db8::7"], "2001:db8::7"),
            ("2001:db8::7", &["198.51.100.1"], "2001:db8::7"),
        ];
        for (peer, fields, client) in cases {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("x-forwarded-for", HeaderValue::from_bytes(field.as_bytes()).unwrap());
            }
            let found = doors.client_address(&headers, peer.parse().unwrap());
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {fields:?}");
        }
        let mut endless = HeaderMap::new();
        endless.append(
            "x-forwarded-for",
            HeaderValue::try_from(["198.51.100.1"].into_iter().chain([", 10.0.0.9"; 500]).collect::<String>()).unwrap(),
        );
        assert_eq!(doors.client_address(&endless, [10, 0, 0, 1].into()), IpAddr::from([10, 0, 0, 9]));
    }
}
