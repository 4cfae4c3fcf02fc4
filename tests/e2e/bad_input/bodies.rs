//! Bodies that are not one well-formed message that every parser reads in the same way.

use mcpgw_tests::fleet::Call;
use serde_json::json;

use super::{Bench, Case, changed, refused, with_body};

const SYNTAX: (u16, i64) = (400, -32700);
const INVALID: (u16, i64) = (400, -32600);

pub fn cases(bench: &Bench) -> Vec<Case> {
    let meta = changed(|_| {})["params"]["_meta"].to_string();
    let message = |params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"tool_0",{params}"_meta":{meta}}}}}"#)
    };
    let deep = format!(r#""arguments":{}1{},"#, "[".repeat(100), "]".repeat(100));
    let texts: Vec<(&str, String, (u16, i64), &str)> = vec![
        ("an empty body", String::new(), SYNTAX, "decode.empty"),
        ("half an object", "{".into(), SYNTAX, "decode.syntax"),
        ("not JSON", "<call/>".into(), SYNTAX, "decode.syntax"),
        ("a trailing comma", message(r#""arguments":{"a":1,},"#), SYNTAX, "decode.syntax"),
        ("a byte order mark", format!("\u{feff}{}", message("")), SYNTAX, "decode.byte_order_mark"),
        ("a second message behind", format!("{0}{0}", message("")), SYNTAX, "decode.trailing_bytes"),
        ("half a surrogate pair", message(r#""arguments":{"a":"\ud800"},"#), SYNTAX, "decode.lone_surrogate"),
        ("a raw control character", message("\"arguments\":{\"a\":\"\u{1}\"},"), SYNTAX, "decode.control_character"),
        ("too deep", message(&deep), INVALID, "decode.too_deep"),
        ("a key twice", message(r#""name":"tool_1","#), INVALID, "decode.duplicate_key"),
        ("a key twice, once escaped", message(r#""n\u0061me":"tool_1","#), INVALID, "decode.duplicate_key"),
        ("a key twice in the arguments", message(r#""arguments":{"a":{"b":1,"b":2}},"#), INVALID, "decode.duplicate_key"),
        ("a key in another case", message(r#""Name":"tool_1","#), INVALID, "decode.folded_key"),
        ("a key with a long s", message("\"argument\u{17f}\":{},"), INVALID, "decode.folded_key"),
        ("a method in another case", message("").replacen("\"id\"", "\"METHOD\":\"x\",\"id\"", 1), INVALID, "decode.folded_key"),
        ("NUL in a name", message("").replacen("tool_0", r"tool_0\u0000", 1), INVALID, "decode.nul"),
        ("no message", "[1]".into(), INVALID, "decode.not_a_message"),
        ("another JSON-RPC", changed(|body| body["jsonrpc"] = json!("1.0")).to_string(), INVALID, "decode.bad_member"),
        ("a fraction as id", changed(|body| body["id"] = json!(1.5)).to_string(), INVALID, "decode.bad_member"),
        ("params in an array", changed(|body| body["params"] = json!([])).to_string(), INVALID, "decode.bad_member"),
        ("neither call nor answer", r#"{"jsonrpc":"2.0","id":1}"#.into(), INVALID, "decode.missing_member"),
        ("a batch", format!("[{}]", message("")), INVALID, "decode.batch"),
    ];
    let mut cases: Vec<Case> =
        texts.into_iter().map(|(what, text, answer, reason)| refused(what, with_body(bench, text), answer, reason)).collect();
    let not_utf8 =
        message("").replace("tool_0", "tool_~").into_bytes().into_iter().map(|byte| if byte == b'~' { 0xff } else { byte });
    cases.push(refused("not UTF-8", with_body(bench, not_utf8.collect::<Vec<u8>>()), SYNTAX, "decode.not_utf8"));
    let large = message(&format!(r#""arguments":{{"a":"{}"}},"#, "x".repeat(5 << 20)));
    cases.push(refused("too large", with_body(bench, large), (413, -31413), "decode.too_large"));
    let removed = Call::modern(&bench.url(), &bench.key, "ping", None, json!({}));
    cases.push(refused("a method that the version removed", removed, (404, -32601), "decode.removed_method"));
    let nameless = changed(|body| drop(body["params"].as_object_mut().unwrap().remove("name"))).to_string();
    let nameless = with_body(bench, nameless).without("mcp-name");
    cases.push(refused("no name", nameless, (400, -32602), "decode.invalid_params"));
    let silent = changed(|body| drop(body.as_object_mut().unwrap().remove("id"))).to_string();
    let silent = silent.replace("tool_0", "tool_1");
    let call = with_body(bench, silent).without("mcp-name");
    cases.push(refused("a forbidden call without an id", call, (403, -31403), "authorize.not_granted"));
    cases
}
