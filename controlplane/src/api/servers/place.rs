//! How a server is reached, as a whole: which transport follows from what a request says, and what no row may hold.
//!
//! Looked at before it is written anywhere, because what is rolled back stays on disks for a while. Never says what was found of a value.

use mcp_gateway::proto::config::v1::Transport;
use mcp_gateway::secret::{is_secret_variable, secret_argument, secret_parameter};
use mcp_gateway::snapshot::{is_websocket_url, parse_endpoint};

use crate::domain::{Endpoint, Server, Stdio, bundle, rules::Rules};

const MOST_ENDPOINTS: usize = 64;
const LONGEST_URL: usize = 2048;
/// What a change of any of these may break.
const FIELDS: [&str; 4] = ["transport", "endpoints", "stdio", "client_transports"];

/// Completes and judges what `fields` changed.
pub fn settle(server: &mut Server, fields: &[&str], rules: &mut Rules) {
    if !fields.iter().any(|field| FIELDS.contains(field)) {
        return;
    }
    if server.transport == i32::from(Transport::Unspecified) {
        server.transport = following(server).into();
    }
    if fields.iter().any(|field| ["transport", "endpoints"].contains(field)) {
        endpoints(&server.endpoints, server.transport, rules);
    }
    if let Some(stdio) = server.stdio.as_ref().filter(|_| fields.contains(&"stdio")) {
        secrets(stdio, rules);
    }
    for violation in bundle::unreachable(server) {
        rules.expect(false, &violation.field, violation.expected);
    }
}

/// Whether it is a process on the nodes.
pub fn is_process(server: &Server) -> bool {
    server.transport == i32::from(Transport::Stdio)
}

/// The transport that follows from the rest. What is neither a process nor a socket is for nodes to find out.
fn following(server: &Server) -> Transport {
    if server.stdio.is_some() {
        Transport::Stdio
    } else if server.endpoints.iter().any(|endpoint| is_websocket_url(&endpoint.url)) {
        Transport::Websocket
    } else {
        Transport::Unspecified
    }
}

/// Each URL is one, and none that should be sealed.
fn endpoints(given: &[Endpoint], transport: i32, rules: &mut Rules) {
    let transport = Transport::try_from(transport).unwrap_or_default(); // one that is unknown was told already
    let expected = format!("expected at most {MOST_ENDPOINTS}, found {}", given.len());
    rules.expect(given.len() <= MOST_ENDPOINTS, "server.endpoints", expected);
    for (index, endpoint) in given.iter().enumerate().take(MOST_ENDPOINTS) {
        let field = format!("server.endpoints[{index}].url");
        let fits = endpoint.url.len() <= LONGEST_URL && !endpoint.url.chars().any(char::is_control);
        rules.expect(fits, &field, format!("expected at most {LONGEST_URL} bytes and no control characters"));
        let secret = secret_parameter(&endpoint.url);
        let expected = format!(
            "expected no parameter {:?}, which is named like a secret: URLs are shown, kept and logged; upstream_credential is sealed",
            secret.unwrap_or_default()
        );
        rules.expect(secret.is_none(), &field, expected);
        if let (true, true, Err(expected)) = (fits, secret.is_none(), parse_endpoint(&endpoint.url, transport)) {
            rules.expect(false, &field, expected);
        }
    }
}

/// What is secret is sealed, and this is not.
fn secrets(given: &Stdio, rules: &mut Rules) {
    const REMEDY: &str = "named like a secret: commands and environments are shown, kept and logged; upstream_credential is sealed and \
                          becomes the variable that its header names";
    for (index, argument) in given.command.iter().enumerate() {
        if let Some(name) = secret_argument(argument) {
            rules.expect(false, &format!("server.stdio.command[{index}]"), format!("expected no {name:?}, which is {REMEDY}"));
        }
    }
    for (index, variable) in given.environment.iter().enumerate() {
        let secret = is_secret_variable(&variable.name, &variable.value);
        let expected = format!("expected no variable {:?}, which is {REMEDY}", variable.name);
        rules.expect(!secret, &format!("server.stdio.environment[{index}]"), expected);
    }
}
