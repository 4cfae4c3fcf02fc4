//! A server as the admin API writes it, to and from the row; what is expected of each field, all violations at once.

use http::HeaderName;
use mcp_gateway::proto::{
    admin::v1 as admin,
    config::v1::{self as config, Era, Transport},
};
use uuid::Uuid;

use super::super::{aip, error::Error, text};
use crate::{
    domain::{Credential, Endpoint, Meta, Server, Violation, bundle},
    keys::Custody,
};

/// What a change may name.
pub const ALL: [&str; 9] = [
    "display_name",
    "transport",
    "era",
    "endpoints",
    "allow_anonymous",
    "disabled",
    "upstream_credential",
    "call_timeout",
    "max_body_bytes",
];

const MOST_ENDPOINTS: usize = 64;
const LONGEST_URL: usize = 2048;
/// As large as the headers that a server may be expected to read.
const LONGEST_VALUE: usize = 8192;
const LONGEST_CALL_MS: i64 = 3_600_000;
const LARGEST_BODY: u32 = 64 << 20;

/// Headers that are the connection's or the protocol's, not a credential's. Beside these: `content-*`, `mcp-*` and `mcpgw-*`.
const RESERVED: [&str; 16] = [
    "accept",
    "accept-encoding",
    "connection",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A server of which nothing is said yet.
pub fn new(org_id: Uuid, slug: &str) -> Server {
    Server {
        id: Uuid::now_v7(),
        org_id,
        slug: slug.into(),
        display_name: String::new(),
        transport: Transport::StreamableHttp.into(),
        era: Era::Unspecified.into(),
        endpoints: Vec::new(),
        allow_anonymous: false,
        disabled: false,
        credential: None,
        call_timeout_ms: 0,
        max_body_bytes: 0,
        meta: Meta::default(),
    }
}

/// `organizations/{org}/servers/{slug}`.
pub fn name(org: &str, slug: &str) -> String {
    format!("organizations/{org}/servers/{slug}")
}

/// The server as callers see it: its credential without the value.
pub fn message(org: &str, server: &Server) -> admin::Server {
    let uid = server.id.to_string();
    let credential = server.credential.as_ref();
    let millis = i64::from(server.call_timeout_ms);
    admin::Server {
        name: name(org, &server.slug),
        display_name: server.display_name.clone(),
        transport: server.transport,
        era: server.era,
        endpoints: server.endpoints.iter().map(|e| config::Endpoint { url: e.url.clone(), weight: e.weight }).collect(),
        allow_anonymous: server.allow_anonymous,
        disabled: server.disabled,
        upstream_credential: credential
            .map(|credential| admin::UpstreamCredential { header: credential.header.clone(), value: String::new() }),
        call_timeout: (millis > 0).then(|| prost_types::Duration {
            seconds: millis / 1000,
            nanos: i32::try_from(millis % 1000).unwrap_or_default() * 1_000_000,
        }),
        max_body_bytes: server.max_body_bytes.unsigned_abs(),
        endpoint_path: format!("/servers/{uid}/mcp"),
        etag: aip::etag(&uid, &server.meta),
        create_time: Some(aip::timestamp(server.meta.created_at)),
        update_time: Some(aip::timestamp(server.meta.updated_at)),
        config_version: server.meta.config_version.unsigned_abs(),
        uid,
    }
}

/// Takes the named fields over from a request.
pub fn apply(server: &mut Server, given: &admin::Server, fields: &[&str], custody: &Custody) -> Result<(), Error> {
    let mut violations = Vec::new();
    let found = &mut violations;
    for field in fields {
        match *field {
            "display_name" => server.display_name = text::display_name("server.display_name", &given.display_name, found),
            "transport" => server.transport = transport(given.transport, found),
            "era" => server.era = text::known::<Era>("server.era", given.era, found),
            "endpoints" => server.endpoints = endpoints(&given.endpoints, found),
            "allow_anonymous" => server.allow_anonymous = given.allow_anonymous,
            "disabled" => server.disabled = given.disabled,
            "upstream_credential" => {
                let stored = server.credential.take();
                server.credential = credential(server.id, given.upstream_credential.as_ref(), stored, custody, found)?;
            }
            "call_timeout" => server.call_timeout_ms = call_timeout(given.call_timeout.as_ref(), found),
            "max_body_bytes" => server.max_body_bytes = max_body_bytes(given.max_body_bytes, found),
            other => found.push(Violation::new("update_mask", format!("{other:?} cannot be changed"))),
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

fn transport(given: i32, found: &mut Vec<Violation>) -> i32 {
    match text::known::<Transport>("server.transport", given, found) {
        0 => Transport::StreamableHttp.into(),
        known => known,
    }
}

/// Whether each URL is one is judged where nodes judge it; here only how much there is of them.
fn endpoints(given: &[config::Endpoint], found: &mut Vec<Violation>) -> Vec<Endpoint> {
    if given.len() > MOST_ENDPOINTS {
        found.push(Violation::new("server.endpoints", format!("expected at most {MOST_ENDPOINTS}, found {}", given.len())));
        return Vec::new();
    }
    for (index, endpoint) in given.iter().enumerate() {
        let expected = match endpoint.url.as_str() {
            url if url.len() > LONGEST_URL => format!("expected at most {LONGEST_URL} bytes, found {}", url.len()),
            url if url.chars().any(char::is_control) => "expected no control characters".into(),
            _ => continue,
        };
        found.push(Violation::new(format!("server.endpoints[{index}].url"), expected));
    }
    given.iter().map(|endpoint| Endpoint { url: endpoint.url.clone(), weight: endpoint.weight }).collect()
}

/// What is to be stored: without a value in the request, the stored one under the header that the request names.
fn credential(
    server: Uuid,
    given: Option<&admin::UpstreamCredential>,
    stored: Option<Credential>,
    custody: &Custody,
    found: &mut Vec<Violation>,
) -> Result<Option<Credential>, Error> {
    let Some(given) = given else { return Ok(None) };
    let header = header(&given.header, found);
    if given.value.is_empty() {
        let Some(stored) = stored else {
            found.push(Violation::new("server.upstream_credential.value", "expected the header's value: none is stored"));
            return Ok(None);
        };
        return Ok(Some(Credential { header, wrapped: stored.wrapped }));
    }
    let printable = given.value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && given.value.trim() == given.value;
    if !printable || given.value.len() > LONGEST_VALUE {
        let expected = format!("expected at most {LONGEST_VALUE} printable ASCII characters without spaces around them");
        found.push(Violation::new("server.upstream_credential.value", expected)); // never what was found
        return Ok(None);
    }
    let wrapped = custody.seal(&bundle::credential_context(&server.to_string()), given.value.as_bytes())?;
    Ok(Some(Credential { header, wrapped }))
}

/// The header's name in lower case.
fn header(given: &str, found: &mut Vec<Violation>) -> String {
    const FIELD: &str = "server.upstream_credential.header";
    let Ok(name) = HeaderName::try_from(given) else {
        found.push(Violation::new(FIELD, "expected the name of a header, such as authorization"));
        return String::new();
    };
    let reserved =
        RESERVED.contains(&name.as_str()) || ["content-", "mcp-", "mcpgw-"].iter().any(|p| name.as_str().starts_with(p));
    if reserved || name.as_str().len() > 200 {
        found.push(Violation::new(
            FIELD,
            format!("{:?} cannot carry a credential; expected one such as authorization", name.as_str()),
        ));
    }
    name.as_str().to_owned()
}

fn call_timeout(given: Option<&prost_types::Duration>, found: &mut Vec<Violation>) -> i32 {
    let Some(given) = given else { return 0 };
    let whole = given.nanos % 1_000_000 == 0;
    let millis = given.seconds.checked_mul(1000).and_then(|millis| millis.checked_add(i64::from(given.nanos / 1_000_000)));
    match millis.filter(|millis| whole && (1..=LONGEST_CALL_MS).contains(millis)).and_then(|millis| i32::try_from(millis).ok()) {
        Some(millis) => millis,
        None => {
            found.push(Violation::new("server.call_timeout", "expected 1 ms to 1 h in whole milliseconds, or nothing for 60 s"));
            0
        }
    }
}

fn max_body_bytes(given: u32, found: &mut Vec<Violation>) -> i32 {
    if given > LARGEST_BODY {
        found.push(Violation::new("server.max_body_bytes", format!("expected at most {LARGEST_BODY}, found {given}")));
    }
    i32::try_from(given).unwrap_or_default()
}
