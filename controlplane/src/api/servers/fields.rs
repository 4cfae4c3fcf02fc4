//! A server as the admin API writes it, to and from the row; what is expected of each field, all violations at once.

use mcp_gateway::document::credential_header;
use mcp_gateway::proto::{
    admin::v1 as admin,
    config::v1::{self as config, Era, Transport},
};
use mcp_gateway::secret::secret_parameter;
use mcp_gateway::snapshot::parse_url;
use uuid::Uuid;

use super::super::{aip, error::Error};
use crate::{
    domain::{Credential, Endpoint, Meta, Server, bundle, document, rules::Rules},
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
        stdio: None,
        client_transports: Vec::new(),
        endpoint_states: Vec::new(), // no part of the configuration: `endpoints` adds them
        uid,
    }
}

/// The server as history keeps it. In place of its credential's value stands since when it is this one.
pub fn document(org: &str, server: &Server) -> serde_json::Value {
    let mut message = message(org, server);
    let set_at = server.credential.as_ref().and_then(|credential| credential.set_at);
    if let (Some(shown), Some(at)) = (&mut message.upstream_credential, set_at) {
        shown.value = format!("set {}", at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
    }
    document::of(&message)
}

/// Takes the named fields over from a request.
pub fn apply(server: &mut Server, given: &admin::Server, fields: &[&str], custody: &Custody) -> Result<(), Error> {
    let mut rules = Rules::default();
    for field in fields {
        match *field {
            "display_name" => {
                rules.display_name("server.display_name", &given.display_name);
                server.display_name.clone_from(&given.display_name);
            }
            "transport" => server.transport = transport(given.transport, &mut rules),
            "era" => {
                rules.known::<Era>("server.era", given.era);
                server.era = given.era;
            }
            "endpoints" => server.endpoints = endpoints(&given.endpoints, &mut rules),
            "allow_anonymous" => server.allow_anonymous = given.allow_anonymous,
            "disabled" => server.disabled = given.disabled,
            "upstream_credential" => {
                let stored = server.credential.take();
                server.credential = credential(server.id, given.upstream_credential.as_ref(), stored, custody, &mut rules)?;
            }
            "call_timeout" => server.call_timeout_ms = call_timeout(given.call_timeout.as_ref(), &mut rules),
            "max_body_bytes" => {
                let expected = format!("expected at most {LARGEST_BODY}, found {}", given.max_body_bytes);
                rules.expect(given.max_body_bytes <= LARGEST_BODY, "server.max_body_bytes", expected);
                server.max_body_bytes = given.max_body_bytes.cast_signed();
            }
            other => return Err(Error::invalid("update_mask", format!("{other:?} cannot be changed"))),
        }
    }
    rules.check().map_err(Error::Invalid)
}

fn transport(given: i32, rules: &mut Rules) -> i32 {
    rules.known::<Transport>("server.transport", given);
    if given == i32::from(Transport::Unspecified) { Transport::StreamableHttp.into() } else { given }
}

/// Each URL is one, and none that should be sealed: looked at before it is written anywhere, because what is rolled back stays on disks for a
/// while.
fn endpoints(given: &[config::Endpoint], rules: &mut Rules) -> Vec<Endpoint> {
    let expected = format!("expected at most {MOST_ENDPOINTS}, found {}", given.len());
    rules.expect(given.len() <= MOST_ENDPOINTS, "server.endpoints", expected);
    for (index, endpoint) in given.iter().enumerate().take(MOST_ENDPOINTS) {
        let fits = endpoint.url.len() <= LONGEST_URL && !endpoint.url.chars().any(char::is_control);
        let expected = format!("expected at most {LONGEST_URL} bytes and no control characters");
        rules.expect(fits, &format!("server.endpoints[{index}].url"), expected);
        let secret = secret_parameter(&endpoint.url);
        let expected = format!(
            "expected no parameter {:?}, which is named like a secret: URLs are shown, kept and logged; upstream_credential is sealed",
            secret.unwrap_or_default()
        );
        rules.expect(secret.is_none(), &format!("server.endpoints[{index}].url"), expected);
        if let (true, true, Err(reason)) = (fits, secret.is_none(), parse_url(&endpoint.url)) {
            let expected = format!("{reason}; expected an absolute http or https URL without user info or fragment");
            rules.expect(false, &format!("server.endpoints[{index}].url"), expected);
        }
    }
    given.iter().map(|endpoint| Endpoint { url: endpoint.url.clone(), weight: endpoint.weight }).collect()
}

/// What is to be stored: without a value in the request, the stored one under the header that the request names.
fn credential(
    server: Uuid,
    given: Option<&admin::UpstreamCredential>,
    stored: Option<Credential>,
    custody: &Custody,
    rules: &mut Rules,
) -> Result<Option<Credential>, Error> {
    const FIELD: &str = "server.upstream_credential.value";
    let Some(given) = given else { return Ok(None) };
    let header = header(&given.header, rules);
    if given.value.is_empty() {
        rules.expect(stored.is_some(), FIELD, "expected the header's value: none is stored");
        return Ok(stored.map(|stored| Credential { header, ..stored }));
    }
    let printable = given.value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && given.value.trim() == given.value;
    let expected = format!("expected at most {LONGEST_VALUE} printable ASCII characters without spaces around them");
    rules.expect(printable && given.value.len() <= LONGEST_VALUE, FIELD, expected); // never what was found
    let wrapped = custody.seal(&bundle::credential_context(&server.to_string()), given.value.as_bytes())?;
    Ok(Some(Credential { header, wrapped, set_at: None }))
}

/// The header's name in lower case.
fn header(given: &str, rules: &mut Rules) -> String {
    match credential_header(given) {
        Ok(name) => name,
        Err(expected) => {
            rules.expect(false, "server.upstream_credential.header", expected);
            String::new()
        }
    }
}

fn call_timeout(given: Option<&prost_types::Duration>, rules: &mut Rules) -> i32 {
    let Some(given) = given else { return 0 };
    let whole = given.nanos % 1_000_000 == 0;
    let millis = given.seconds.checked_mul(1000).and_then(|millis| millis.checked_add(i64::from(given.nanos / 1_000_000)));
    let millis = millis.filter(|millis| whole && (1..=LONGEST_CALL_MS).contains(millis));
    rules.expect(millis.is_some(), "server.call_timeout", "expected 1 ms to 1 h in whole milliseconds, or nothing for 60 s");
    millis.and_then(|millis| i32::try_from(millis).ok()).unwrap_or_default()
}
