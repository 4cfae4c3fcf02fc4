//! Headers that are wrong, missing, there twice, or say something else than the body.

use http::Method;

use super::{Bench, Case, changed, refused, with_body};
use serde_json::json;

const MISMATCH: (u16, i64) = (400, -32020);
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

pub fn cases(bench: &Bench) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, other) in [("mcp-protocol-version", "2025-11-25"), ("mcp-method", "tools/list"), ("mcp-name", "tool_1")] {
        cases.push(refused(format!("no {name}"), bench.good().without(name), MISMATCH, "decode.header_mismatch"));
        let wrong = bench.good().without(name).header(name, other);
        cases.push(refused(format!("a wrong {name}"), wrong, MISMATCH, "decode.header_mismatch"));
        let doubled = bench.good().header(name, other);
        cases.push(refused(format!("{name} twice"), doubled, (400, -32600), "decode.bad_header"));
    }
    let name = |value: &str| bench.good().without("mcp-name").header("mcp-name", value);
    let upper = bench.good().without("mcp-method").header("mcp-method", "Tools/Call");
    let params = bench.good().header("mcp-param-a", "1").header("mcp-param-a", "2");
    let unknown = with_body(bench, changed(|body| body["params"]["_meta"][VERSION] = json!("2030-01-01")).to_string());
    let unknown = unknown.without("mcp-protocol-version").header("mcp-protocol-version", "2030-01-01");
    let no_meta = with_body(bench, changed(|body| drop(body["params"].as_object_mut().unwrap().remove("_meta"))).to_string());
    let media = |value: &str| bench.good().without("content-type").header("content-type", value);
    let accept = |value: &str| bench.good().without("accept").header("accept", value);
    let put = {
        let mut call = bench.good();
        call.method = Method::PUT;
        call
    };
    let modern_get = {
        let mut call = bench.good();
        call.method = Method::GET;
        call
    };
    let in_session = || bench.in_session(&bench.url(), &bench.key, &bench.session);
    let legacy_unknown = in_session().without("mcp-protocol-version").header("mcp-protocol-version", "2019-01-01");
    cases.extend([
        refused("a name in bad Base64", name("=?base64?%%?="), MISMATCH, "decode.header_mismatch"),
        refused("a name that is another in Base64", name("=?base64?dG9vbF8x?="), MISMATCH, "decode.header_mismatch"),
        refused("a method in another case", upper, MISMATCH, "decode.header_mismatch"),
        refused("a mirrored parameter twice", params, MISMATCH, "decode.header_mismatch"),
        refused("an unknown version", unknown, (400, -32022), "decode.unsupported_version"),
        refused("an unknown version in a session", legacy_unknown, (400, -32000), "decode.unsupported_version"),
        refused("no version in the body", no_meta, (400, -32602), "decode.missing_meta"),
        refused("another media type", media("text/plain"), (415, -32000), "decode.unsupported_media_type"),
        refused(
            "another character set",
            media("application/json; charset=utf-16"),
            (415, -32000),
            "decode.unsupported_media_type",
        ),
        refused("an encoding", bench.good().header("content-encoding", "gzip"), (415, -32000), "decode.unsupported_media_type"),
        refused("no stream accepted", accept("application/json"), (406, -32000), "decode.not_acceptable"),
        refused("no session", in_session().without("mcp-session-id"), (400, -32000), "decode.missing_session"),
        refused("two sessions", in_session().header("mcp-session-id", "x"), (400, -32600), "decode.bad_header"),
        refused("PUT", put, (405, -32000), "decode.method_not_allowed"),
        refused("GET without sessions", modern_get, (405, -32000), "decode.method_not_allowed"),
        refused("a foreign host", bench.good().header("host", "evil.test"), (403, -31403), "target.host_not_served"),
        refused(
            "a foreign origin",
            bench.good().header("origin", "https://evil.test"),
            (403, -31403),
            "target.origin_not_allowed",
        ),
        refused("an underscore", bench.good().header("mcp_session_id", "x"), (400, -31400), "target.bad_header"),
    ]);
    cases
}
