//! Servers, tools and sessions that are not there, or not the caller's.

use mcpgw_tests::fleet::Call;
use serde_json::json;

use super::{Bench, Case, SECOND, refused};

const NO_SERVER: (u16, i64) = (404, -31404);
const NO_SESSION: (u16, i64) = (404, -31404);
/// What a server of either era says of a tool that it does not have.
const NO_TOOL: (u16, i64) = (200, -32602);

pub fn cases(bench: &Bench) -> Vec<Case> {
    let call = |url: &str, key: &str, tool: &str| Call::tool(url, key, tool, &json!({}));
    let at = |path: &str| call(&bench.fleet.node.url(path), &bench.key, "tool_0");
    let nowhere = bench.fleet.node.url("/servers/0190a000-0000-7000-8000-0000000000bf/mcp");
    let session = |key: &str, session: &str| bench.in_session(&bench.url(), key, session);
    let mut forged = bench.session.clone();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'Q' } else { 'A' });
    let resource = Call::modern(&bench.url(), &bench.key, "resources/read", Some("test://x"), json!({ "uri": "test://x" }));
    let prompt = Call::modern(&bench.url(), &bench.key, "prompts/get", Some("x"), json!({ "name": "x" }));
    vec![
        refused("an unknown id", call(&nowhere, &bench.key, "tool_0"), NO_SERVER, "authenticate.unknown_server"),
        refused("an unknown id, asked by nobody", call(&nowhere, "", "tool_0"), (401, -31401), "authenticate.missing"),
        refused(
            "an unknown slug",
            call(&bench.fleet.url("nothing"), &bench.key, "tool_0"),
            NO_SERVER,
            "authenticate.unknown_server",
        ),
        refused("a server of others", call(&bench.url(), &bench.stranger, "tool_0"), NO_SERVER, "authenticate.unknown_server"),
        refused("no endpoint", at("/o/acme/servers/backend/mcp/"), NO_SERVER, "target.no_endpoint"),
        refused("an encoded path", at("/o/acme/servers/b%61ckend/mcp"), NO_SERVER, "target.no_endpoint"),
        refused("an unknown tool", call(&bench.url(), &bench.key, "no_such_tool"), NO_TOOL, "authorize.not_granted"),
        refused("a tool for others", call(&bench.url(), &bench.key, "tool_1"), NO_TOOL, "authorize.not_granted"),
        refused("a tool in another case", call(&bench.url(), &bench.key, "TOOL_0"), NO_TOOL, "authorize.not_granted"),
        refused(
            "a server without a rule",
            call(&bench.fleet.url(SECOND), &bench.colleague, "tool_1"),
            NO_TOOL,
            "authorize.not_granted",
        ),
        refused("a resource without a rule", resource, NO_TOOL, "authorize.not_granted"),
        refused("a prompt without a rule", prompt, NO_TOOL, "authorize.not_granted"),
        refused("an invented session", session(&bench.key, "0123456789abcdef"), NO_SESSION, "route.no_session"),
        refused("a forged session", session(&bench.key, &forged), NO_SESSION, "route.no_session"),
        refused("a session of somebody else", session(&bench.colleague, &bench.session), NO_SESSION, "route.no_session"),
        refused(
            "a session of another server",
            bench.in_session(&bench.fleet.url(SECOND), &bench.key, &bench.session),
            NO_SESSION,
            "route.no_session",
        ),
    ]
}
