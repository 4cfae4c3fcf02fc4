//! A server as the admin API writes it, to and from the row; what is expected of each field, all violations at once.

use mcp_gateway::document::credential_header;
use mcp_gateway::proto::{
    admin::v1 as admin,
    config::v1::{self as config, Era, LegacySessions, Transport},
};
use mcp_gateway::snapshot::{variable_name, variable_value};
use uuid::Uuid;

use super::{
    super::{aip, error::Error},
    place,
};
use crate::{
    domain::{ClientTransportSettings, Credential, Endpoint, Meta, Server, Stdio, bundle, document, rules::Rules},
    keys::Custody,
};

/// What a change may name.
pub const ALL: [&str; 12] = [
    "display_name",
    "transport",
    "era",
    "endpoints",
    "allow_anonymous",
    "disabled",
    "upstream_credential",
    "call_timeout",
    "max_body_bytes",
    "stdio",
    "client_transports",
    "legacy_sessions",
];

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
        transport: Transport::Unspecified.into(),
        era: Era::Unspecified.into(),
        endpoints: Vec::new(),
        allow_anonymous: false,
        disabled: false,
        credential: None,
        call_timeout_ms: 0,
        max_body_bytes: 0,
        stdio: None,
        client_transports: Vec::new(),
        legacy_sessions: LegacySessions::Unspecified.into(),
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
        stdio: server.stdio.clone().map(config::Stdio::from),
        client_transports: server.client_transports.iter().cloned().map(config::ClientTransportSettings::from).collect(),
        legacy_sessions: server.legacy_sessions,
        endpoint_states: Vec::new(), // no part of the configuration: `endpoints` adds them
        found_out: Vec::new(),       // nor these
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
            "transport" => {
                rules.known::<Transport>("server.transport", given.transport);
                server.transport = given.transport;
            }
            "era" => {
                rules.known::<Era>("server.era", given.era);
                server.era = given.era;
            }
            "legacy_sessions" => {
                rules.known::<LegacySessions>("server.legacy_sessions", given.legacy_sessions);
                server.legacy_sessions = given.legacy_sessions;
            }
            "endpoints" => server.endpoints = endpoints(&given.endpoints),
            "stdio" => server.stdio = stdio(given.stdio.as_ref()),
            "client_transports" => server.client_transports = client_transports(&given.client_transports),
            "allow_anonymous" => server.allow_anonymous = given.allow_anonymous,
            "disabled" => server.disabled = given.disabled,
            "upstream_credential" => {} // below: what it is depends on what the server is
            "call_timeout" => server.call_timeout_ms = call_timeout(given.call_timeout.as_ref(), &mut rules),
            "max_body_bytes" => {
                let expected = format!("expected at most {LARGEST_BODY}, found {}", given.max_body_bytes);
                rules.expect(given.max_body_bytes <= LARGEST_BODY, "server.max_body_bytes", expected);
                server.max_body_bytes = given.max_body_bytes.cast_signed();
            }
            other => return Err(Error::invalid("update_mask", format!("{other:?} cannot be changed"))),
        }
    }
    place::settle(server, fields, &mut rules);
    if fields.contains(&"upstream_credential") {
        server.credential = credential(server, given.upstream_credential.as_ref(), custody, &mut rules)?;
    } else if let Some(stored) = &server.credential {
        header(server, &stored.header, &mut rules);
    }
    rules.check().map_err(Error::Invalid)
}

fn endpoints(given: &[config::Endpoint]) -> Vec<Endpoint> {
    given.iter().map(|endpoint| Endpoint { url: endpoint.url.clone(), weight: endpoint.weight }).collect()
}

/// In the order of a bundle.
fn stdio(given: Option<&config::Stdio>) -> Option<Stdio> {
    let mut stdio = Stdio::from(given?.clone());
    stdio.environment.sort_by(|a, b| a.name.cmp(&b.name));
    Some(stdio)
}

/// In the order of a bundle.
fn client_transports(given: &[config::ClientTransportSettings]) -> Vec<ClientTransportSettings> {
    let mut settings: Vec<_> = given.iter().cloned().map(ClientTransportSettings::from).collect();
    settings.sort_by_key(|settings| settings.transport);
    settings
}

/// What is to be stored: without a value in the request, the stored one under the name that the request has.
fn credential(
    server: &Server,
    given: Option<&admin::UpstreamCredential>,
    custody: &Custody,
    rules: &mut Rules,
) -> Result<Option<Credential>, Error> {
    const FIELD: &str = "server.upstream_credential.value";
    let Some(given) = given else { return Ok(None) };
    let header = header(server, &given.header, rules);
    if given.value.is_empty() {
        rules.expect(server.credential.is_some(), FIELD, "expected the value: none is stored");
        return Ok(server.credential.clone().map(|stored| Credential { header, ..stored }));
    }
    // Never what was found.
    if place::is_process(server) {
        if let Err(expected) = variable_value(&header, &given.value) {
            rules.expect(false, FIELD, expected);
        }
    } else {
        let printable = given.value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && given.value.trim() == given.value;
        let expected = format!("expected at most {LONGEST_VALUE} printable ASCII characters without spaces around them");
        rules.expect(printable && given.value.len() <= LONGEST_VALUE, FIELD, expected);
    }
    let wrapped = custody.seal(&bundle::credential_context(&server.id.to_string()), given.value.as_bytes())?;
    Ok(Some(Credential { header, wrapped, set_at: None }))
}

/// The name of a process' variable, or of a header in lower case.
fn header(server: &Server, given: &str, rules: &mut Rules) -> String {
    const FIELD: &str = "server.upstream_credential.header";
    let named = if place::is_process(server) {
        let taken = server.stdio.iter().flat_map(|stdio| &stdio.environment).any(|variable| variable.name == given);
        rules.expect(!taken, FIELD, "expected a variable that server.stdio.environment does not have");
        variable_name(given).map(|()| given.to_owned()).map_err(str::to_owned)
    } else {
        credential_header(given)
    };
    named.unwrap_or_else(|expected| {
        rules.expect(false, FIELD, expected);
        String::new()
    })
}

fn call_timeout(given: Option<&prost_types::Duration>, rules: &mut Rules) -> i32 {
    let Some(given) = given else { return 0 };
    let whole = given.nanos % 1_000_000 == 0;
    let millis = given.seconds.checked_mul(1000).and_then(|millis| millis.checked_add(i64::from(given.nanos / 1_000_000)));
    let millis = millis.filter(|millis| whole && (1..=LONGEST_CALL_MS).contains(millis));
    rules.expect(millis.is_some(), "server.call_timeout", "expected 1 ms to 1 h in whole milliseconds, or nothing for 60 s");
    millis.and_then(|millis| i32::try_from(millis).ok()).unwrap_or_default()
}
