//! What is expected of a document beside what its compiled form has to satisfy: the parts that only the written form has.

use std::collections::BTreeSet;

use http::HeaderName;

use super::Fault;
use crate::proto::admin::v1::{DocumentKey, OrganizationDocument, Role, Server};
use crate::proto::config::v1::Transport;
use crate::snapshot::{is_websocket_url, variable_name, variable_value};

const LONGEST_CALL_MS: i64 = 3_600_000;
const LONGEST_HEADER: usize = 200;

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

/// The name of a header that may carry a credential, in lower case; or what is expected instead.
pub fn credential_header(given: &str) -> Result<String, String> {
    let name = HeaderName::try_from(given).or(Err("expected the name of a header, such as authorization"))?;
    let name = name.as_str();
    let reserved = RESERVED.contains(&name) || ["content-", "mcp-", "mcpgw-"].iter().any(|prefix| name.starts_with(prefix));
    if reserved || name.len() > LONGEST_HEADER {
        return Err(format!("{name:?} cannot carry a credential; expected a header such as authorization"));
    }
    Ok(name.to_owned())
}

/// The name under which a server is given its credential: a header's, or a variable's where it is a process; or what is expected instead.
pub fn credential_name(server: &Server, given: &str) -> Result<String, String> {
    if transport_of(server) == Transport::Stdio {
        let taken = server.stdio.iter().flat_map(|stdio| &stdio.environment).any(|variable| variable.name == given);
        let named = if taken { Err("expected a variable that stdio.environment does not have") } else { variable_name(given) };
        return named.map(|()| given.to_owned()).map_err(str::to_owned);
    }
    credential_header(given)
}

/// Whether a server can be given this value as its credential; or what is expected instead, without saying what was found.
pub fn credential_value(server: &Server, name: &str, value: &str) -> Result<(), &'static str> {
    if transport_of(server) == Transport::Stdio {
        return variable_value(name, value);
    }
    http::HeaderValue::try_from(value).map(drop).or(Err("expected a header's value: printable characters on one line"))
}

/// The transport that a server has: the one it names, or the one that follows from what else it says. A value that is none stays what it is
/// for [`crate::snapshot::check_org`] to refuse, and counts as left out here.
#[must_use]
pub fn transport_of(server: &Server) -> Transport {
    match server.transport() {
        Transport::Unspecified if server.stdio.is_some() => Transport::Stdio,
        Transport::Unspecified if server.endpoints.iter().any(|endpoint| is_websocket_url(&endpoint.url)) => Transport::Websocket,
        named => named,
    }
}

/// The 32 bytes in `DocumentKey.secret_sha256`; none: it is not their hex.
#[must_use]
pub fn secret_sha256(text: &str) -> Option<[u8; 32]> {
    let lower = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    lower.then(|| hex::decode(text).ok()?.try_into().ok()).flatten()
}

/// `Server.call_timeout` in milliseconds, 0 for none; none: it is not one that can be kept.
pub(super) fn call_timeout_ms(server: &Server) -> Option<u32> {
    let Some(given) = &server.call_timeout else { return Some(0) };
    let whole = given.nanos % 1_000_000 == 0;
    let millis = given.seconds.checked_mul(1000).and_then(|millis| millis.checked_add(i64::from(given.nanos / 1_000_000)));
    let millis = millis.filter(|millis| whole && (1..=LONGEST_CALL_MS).contains(millis));
    millis.and_then(|millis| u32::try_from(millis).ok())
}

/// Everything that can be told of a document alone. What [`super::compile`] or the control plane's own rules tell is not repeated here.
#[must_use]
pub fn check(document: &OrganizationDocument) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut expect = |holds: bool, path: String, expected: &str| {
        if !holds {
            faults.push(Fault::new(path, expected));
        }
    };
    for (slug, server) in &document.servers {
        let expected = "expected 1 ms to 1 h in whole milliseconds, such as 1.5s, or nothing for 60s";
        expect(call_timeout_ms(server).is_some(), format!("servers.{slug}.call_timeout"), expected);
        if let Some(credential) = &server.upstream_credential
            && let Err(expected) = credential_name(server, &credential.header)
        {
            expect(false, format!("servers.{slug}.upstream_credential.header"), &expected);
        }
    }
    let mut emails = BTreeSet::new();
    for (email, member) in &document.members {
        expect(emails.insert(email.to_lowercase()), format!("members.{email}"), "is there twice, in two spellings");
        expect(is_email(email), format!("members.{email}"), "expected an email address as the name of the entry");
        let known = Role::try_from(member.role).is_ok_and(|role| role != Role::Unspecified);
        expect(known, format!("members.{email}.role"), "expected a role, such as member");
    }
    for (id, key) in &document.api_keys {
        check_key(id, key, &mut expect);
    }
    faults
}

fn check_key(id: &str, key: &DocumentKey, expect: &mut impl FnMut(bool, String, &str)) {
    let base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    let at = |field: &str| format!("api_keys.{id}.{field}");
    let named = id.len() == 16 && id.bytes().all(base32);
    expect(named, format!("api_keys.{id}"), "expected a key id as the name of the entry: 16 characters of a-z and 2-7");
    let fits = key.secret_sha256.is_empty() || secret_sha256(&key.secret_sha256).is_some();
    expect(fits, at("secret_sha256"), "expected the SHA-256 of the key's secret part: 64 characters of lower-case hex");
    if key.user.is_empty() {
        return;
    }
    expect(is_email(&key.user), at("user"), "expected the email address of a member of the organisation");
    let expected = "expected nothing: a key of a user has what the user's membership gives";
    expect(key.policy_roles.is_empty(), at("policy_roles"), expected);
    expect(key.groups.is_empty(), at("groups"), expected);
}

/// An email address, as far as one can tell without sending mail.
fn is_email(text: &str) -> bool {
    let plain = text.len() <= 254 && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && text.split_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'))
}
