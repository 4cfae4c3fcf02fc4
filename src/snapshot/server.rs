//! What a server's configuration must satisfy, and its URLs. Pure; called by [`super::validate`] and, for URLs, by whoever takes one.
//! Never repeats a URL that it refuses: it may hold a secret.

use http::Uri;

use super::validate::{is_slug, is_uuid, known};
use super::{Problem, client, stdio};
use crate::proto::config::v1::{Era, LegacySessions, Server, Transport};

const MAX_BODY_BYTES: u32 = 64 << 20;

/// URLs of all transports but one.
const HTTP: (&[&str], &str) = (&["http", "https"], "http or https");
const WEBSOCKET: (&[&str], &str) = (&["ws", "wss"], "ws or wss");

/// Everything that is wrong with a server alone.
#[must_use]
pub fn check_server(server: &Server) -> Vec<Problem> {
    let mut problems = Vec::new();
    check(server, &mut problems);
    problems
}

pub(super) fn check(server: &Server, problems: &mut Vec<Problem>) {
    let resource = format!("server {}", server.slug);
    if !is_uuid(&server.id) {
        problems.push(Problem::InvalidId { resource: resource.clone(), field: "id", value: server.id.clone() });
    }
    if !is_slug(&server.slug) {
        problems.push(Problem::InvalidSlug { resource: resource.clone(), field: "slug", value: server.slug.clone() });
    }
    known::<Era>(&resource, "era", server.era, problems);
    known::<Transport>(&resource, "transport", server.transport, problems);
    known::<LegacySessions>(&resource, "legacy_sessions", server.legacy_sessions, problems);
    check_place(server, problems);
    client::check(&server.slug, &server.client_transports, problems);
    if server.max_body_bytes > MAX_BODY_BYTES {
        problems.push(Problem::BodyLimit { server: server.slug.clone(), found: server.max_body_bytes });
    }
}

/// Where it is: a process on the node, or endpoints.
fn check_place(server: &Server, problems: &mut Vec<Problem>) {
    let slug = || server.slug.clone();
    let mut wrong = |field: &str, expected: &str| {
        let (field, expected) = (field.to_owned(), expected.to_owned());
        problems.push(Problem::InvalidServer { server: slug(), field, expected });
    };
    let is_stdio = server.transport == i32::from(Transport::Stdio);
    match &server.stdio {
        None if is_stdio => wrong("stdio", "expected what to start, for TRANSPORT_STDIO"),
        Some(_) if !is_stdio => wrong("stdio", "expected nothing, for any transport but TRANSPORT_STDIO"),
        Some(_) | None => {}
    }
    if is_stdio && !server.endpoints.is_empty() {
        wrong("endpoints", "expected none, for TRANSPORT_STDIO");
    }
    if let Some(given) = &server.stdio {
        stdio::check(&server.slug, given, problems);
    }
    if is_stdio {
        return;
    }
    if server.endpoints.is_empty() {
        problems.push(Problem::NoEndpoint { server: slug() });
    }
    for (index, endpoint) in server.endpoints.iter().enumerate() {
        if let Err(reason) = parse_endpoint(&endpoint.url, server.transport()) {
            problems.push(Problem::InvalidUrl { server: slug(), index, reason });
        }
    }
}

/// The URL of an endpoint: an absolute one of the transport's scheme, without user info or fragment; or why it is none, without repeating it.
pub fn parse_endpoint(url: &str, transport: Transport) -> Result<Uri, String> {
    let (schemes, named) = match transport {
        Transport::Websocket => WEBSOCKET,
        Transport::Unspecified | Transport::StreamableHttp | Transport::HttpSse | Transport::Stdio | Transport::JsonRpc => HTTP,
    };
    absolute(url, schemes, named)
        .map_err(|reason| format!("{reason}; expected an absolute {named} URL without user info or fragment"))
}

/// An absolute http or https URL without user info or fragment; or why it is none, without repeating it.
pub fn parse_url(url: &str) -> Result<Uri, String> {
    absolute(url, HTTP.0, HTTP.1)
}

fn absolute(url: &str, schemes: &[&str], named: &str) -> Result<Uri, String> {
    if url.contains('#') {
        return Err("it has a fragment".to_owned());
    }
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    if !uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) {
        return Err(format!("its scheme is not {named}"));
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err("it has user info".to_owned()),
        Some(authority) if !authority.host().is_empty() => Ok(uri),
        Some(_) | None => Err("it has no host".to_owned()),
    }
}

/// Whether a URL is one of a WebSocket, as far as its scheme tells. Schemes have no case (RFC 3986 section 3.1).
#[must_use]
pub fn is_websocket_url(url: &str) -> bool {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    WEBSOCKET.0.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests;
