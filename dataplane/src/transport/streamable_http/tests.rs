#![allow(clippy::type_complexity, reason = "tables read best with their types in place")]

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};

use super::*;
use crate::transport::scan::{Limits, scan};

const MODERN: &str = "2026-07-28";

fn scanned(body: &str) -> Scanned {
    scan(&Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// A modern request of `method` with `params`, whose `_meta` says `version`.
fn modern_body(method: &str, params: &str, version: &str) -> String {
    let comma = if params.is_empty() { "" } else { "," };
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{comma}"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

fn legacy_body(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#)
}

fn judge(body: &str, headers: &[(&str, &str)]) -> Result<Post, Refusal> {
    post(&map(headers), &scanned(body))
}

/// Status and code of the refusal.
fn refusal(body: &str, headers: &[(&str, &str)]) -> (u16, i32) {
    match judge(body, headers) {
        Ok(post) => panic!("accepted {body} with {headers:?} as {post:?}"),
        Err(refusal) => (refusal.status().as_u16(), refusal.code()),
    }
}

/// The headers of a modern `tools/call` of `name`, with one of them replaced, doubled or (`None`) left out.
fn call_headers<'a>(header: &'a str, values: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "Café")];
    headers.retain(|(name, _)| *name != header);
    headers.extend(values.iter().map(|value| (header, *value)));
    headers
}

#[test]
fn each_mirrored_header_must_agree_with_the_body() {
    // "Café" is not ASCII, so the name travels in the sentinel.
    let name = "=?base64?Q2Fmw6k=?=";
    let body = modern_body("tools/call", r#""name":"Café","arguments":{}"#, MODERN);
    let mismatch = Err((400, -32020));
    #[rustfmt::skip]
    let table: &[(&str, &[&str], Result<(), (u16, i32)>)] = &[
        // MCP-Protocol-Version: missing, different, case, base64, doubled
        ("mcp-protocol-version", &[], mismatch),
        ("mcp-protocol-version", &["2025-11-25"], mismatch),
        ("mcp-protocol-version", &["2099-01-01"], mismatch),
        ("mcp-protocol-version", &["2026-07-28 x"], mismatch),
        ("mcp-protocol-version", &["=?base64?MjAyNi0wNy0yOA==?="], mismatch),
        ("mcp-protocol-version", &[" 2026-07-28\t"], Ok(())),
        // Mcp-Method
        ("mcp-method", &[], mismatch),
        ("mcp-method", &["tools/list"], mismatch),
        ("mcp-method", &["Tools/Call"], mismatch),
        ("mcp-method", &["tools/call,tools/call"], mismatch),
        ("mcp-method", &["=?base64?dG9vbHMvY2FsbA==?="], mismatch),
        ("mcp-method", &["tools/call", "tools/call"], mismatch),
        ("mcp-method", &["t\u{f6}ols/call"], mismatch),
        ("mcp-method", &["  tools/call "], Ok(())),
        // Mcp-Name
        ("mcp-name", &[], mismatch),
        ("mcp-name", &["Cafe"], mismatch),
        ("mcp-name", &["=?base64?Q2Fmw4k=?="], mismatch),
        ("mcp-name", &["=?base64?Y2Fmw6k=?="], mismatch),
        ("mcp-name", &["Café"], mismatch),
        ("mcp-name", &["=?base64?Q2Fmw6k?="], mismatch),
        ("mcp-name", &["=?base64?Q2Fm!!!w6k=?="], mismatch),
        ("mcp-name", &["=?Base64?Q2Fmw6k=?="], mismatch),
        ("mcp-name", &["=?base64?Q2Fmw6k="], mismatch),
        ("mcp-name", &["=?base64?/////w==?="], mismatch),
        ("mcp-name", &[name, name], mismatch),
        ("mcp-name", &["=?base64?Q2Fmw6k=?=  "], Ok(())),
        // Mcp-Param-* that we do not know are not ours to judge, but not twice
        ("mcp-param-x", &["anything"], Ok(())),
        ("mcp-param-x", &["=?base64?!?="], Ok(())),
        ("mcp-param-x", &["a", "a"], mismatch),
    ];
    for (header, values, expected) in table {
        let mut headers = call_headers(header, values);
        if *header != "mcp-name" {
            headers.retain(|(name, _)| *name != "mcp-name");
            headers.push(("mcp-name", name));
        }
        let got = judge(&body, &headers).map(drop).map_err(|refusal| (refusal.status().as_u16(), refusal.code()));
        assert_eq!(got, *expected, "{header} {values:?}");
    }
}

#[test]
fn a_doubled_protocol_header_is_refused_before_the_body_is_read() {
    for header in ["mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name", "last-event-id", "content-type"] {
        let headers = map(&[
            ("accept", "*/*"),
            ("content-type", "application/json"),
            (header, "application/json"),
            (header, "application/json"),
        ]);
        let refusal = head(&Method::POST, &headers).expect_err(header);
        assert_eq!((refusal.status().as_u16(), refusal.code()), (400, -32600), "{header}");
    }
}

#[test]
fn plain_names_are_literal_and_names_that_look_encoded_are_not() {
    let call = |name: &str| modern_body("tools/call", &format!(r#""name":"{name}""#), MODERN);
    assert!(
        judge(&call("echo"), &[("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "echo")]).is_ok()
    );
    let literal = "=?base64?SGVsbG8=";
    assert!(
        judge(&call(literal), &[("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", literal)]).is_ok()
    );
    let sentinel =
        [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=")];
    assert!(judge(&call("=?base64?literal?="), &sentinel).is_ok());
}

#[test]
fn the_source_of_mcp_name_depends_on_the_method() {
    #[rustfmt::skip]
    let table = [
        ("prompts/get", r#""name":"p""#, Some("p"), Ok(())),
        ("prompts/get", r#""name":"p""#, None, Err(-32020)),
        ("resources/read", r#""uri":"a:b""#, Some("a:b"), Ok(())),
        ("resources/read", r#""uri":"a:b","name":"x""#, Some("x"), Err(-32020)),
        ("resources/read", r#""uri":"a:b""#, None, Err(-32020)),
        ("tasks/get", r#""taskId":"t""#, Some("t"), Ok(())),
        ("tasks/update", r#""taskId":"t""#, None, Err(-32020)),
        ("tasks/cancel", r#""taskId":"t""#, Some("u"), Err(-32020)),
        ("tools/list", "", None, Ok(())),
        ("tools/list", "", Some("x"), Err(-32020)),
        ("com.example/x", r#""name":"n""#, Some("n"), Ok(())),
        ("com.example/x", r#""name":"n""#, Some("m"), Err(-32020)),
        ("com.example/x", r#""name":"n""#, None, Ok(())),
        // nothing to mirror: the missing member is what is wrong
        ("tools/call", r#""name":7"#, None, Err(-32602)),
        ("tools/call", "", None, Err(-32602)),
        ("tools/call", "", Some("echo"), Err(-32020)),
    ];
    for (method, params, name, expected) in table {
        let mut headers = vec![("mcp-protocol-version", MODERN), ("mcp-method", method)];
        headers.extend(name.map(|name| ("mcp-name", name)));
        let got = judge(&modern_body(method, params, MODERN), &headers).map(drop).map_err(|refusal| refusal.code());
        assert_eq!(got, expected, "{method} {params} {name:?}");
    }
}

#[test]
fn modern_requests_need_their_meta() {
    let discover = |meta: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{{meta}}}}}"#);
    let headers = [("mcp-protocol-version", MODERN), ("mcp-method", "server/discover")];
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    #[rustfmt::skip]
    let table = [
        (discover(""), Err((400, -32602))),
        (discover(r#""_meta":null"#), Err((400, -32602))),
        (discover(r#""_meta":{}"#), Err((400, -32602))),
        (discover(&format!(r#""_meta":{{{capabilities}}}"#)), Err((400, -32602))),
        (discover(&format!(r#""_meta":{{{version}}}"#)), Err((400, -32602))),
        (discover(&format!(r#""_meta":{{{version},"io.modelcontextprotocol/clientCapabilities":[]}}"#)), Err((400, -32602))),
        (discover(&format!(r#""_meta":{{"io.modelcontextprotocol/protocolVersion":7,{capabilities}}}"#)), Err((400, -32602))),
        // clientInfo is only a SHOULD
        (discover(&format!(r#""_meta":{{{version},{capabilities}}}"#)), Ok(())),
    ];
    for (body, expected) in table {
        let got = judge(&body, &headers).map(drop).map_err(|refusal| (refusal.status().as_u16(), refusal.code()));
        assert_eq!(got, expected, "{body}");
    }
}

#[test]
fn an_unsupported_version_is_answered_with_what_is_served() {
    let body = modern_body("server/discover", "", "v999.0.0");
    let headers = [("mcp-protocol-version", "v999.0.0"), ("mcp-method", "server/discover")];
    let refusal = judge(&body, &headers).expect_err("unsupported");
    assert_eq!((refusal.status().as_u16(), refusal.code()), (400, -32022));
    assert_eq!(refusal.data().unwrap(), serde_json::json!({"supported": ["2026-07-28"], "requested": "v999.0.0"}));
    // a legacy version has no self-contained requests
    let body = modern_body("server/discover", "", "2025-11-25");
    assert_eq!(self::refusal(&body, &[("mcp-protocol-version", "2025-11-25"), ("mcp-method", "server/discover")]), (400, -32022));
    // the version in the body alone is not enough
    assert_eq!(
        self::refusal(&modern_body("server/discover", "", "v999.0.0"), &[("mcp-protocol-version", MODERN)]),
        (400, -32020)
    );
}

#[test]
fn methods_that_modern_removed_are_not_found() {
    for method in ["initialize", "ping", "logging/setLevel"] {
        let headers = [("mcp-protocol-version", MODERN), ("mcp-method", method)];
        assert_eq!(refusal(&modern_body(method, "", MODERN), &headers), (404, -32601), "{method}");
    }
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        let headers = [("mcp-protocol-version", MODERN), ("mcp-method", method)];
        assert_eq!(refusal(&modern_body(method, "", MODERN), &headers), (404, -32601), "{method}");
    }
}

#[test]
fn modern_clients_send_no_responses_and_no_batches() {
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(refusal(response, &[("mcp-protocol-version", MODERN)]), (400, -32600));
    let batch = format!("[{0},{0}]", modern_body("tools/list", "", MODERN));
    assert_eq!(refusal(&batch, &[("mcp-protocol-version", MODERN), ("mcp-method", "tools/list")]), (400, -32600));
    assert_eq!(refusal(&batch, &[]), (400, -32600));
}

#[test]
fn modern_notifications_need_only_the_version_header() {
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    assert_eq!(judge(notification, &[("mcp-protocol-version", MODERN)]), Ok(Post::Modern { version: Version::V2026_07_28 }));
    assert_eq!(refusal(notification, &[("mcp-protocol-version", MODERN), ("mcp-method", "notifications/y")]), (400, -32020));
}

#[test]
fn the_era_is_told_from_body_then_version_header_then_modern_headers() {
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let list = legacy_body("tools/list");
    let in_session = |version| Ok(Post::Legacy { session: "s".into(), version, batch: false });
    #[rustfmt::skip]
    let table: &[(&str, &[(&str, &str)], Result<Post, (u16, i32)>)] = &[
        (initialize, &[], Ok(Post::Initialize)),
        (initialize, &[("mcp-protocol-version", "2025-11-25"), ("mcp-method", "initialize")], Ok(Post::Initialize)),
        (initialize, &[("mcp-protocol-version", "2024-11-05")], Ok(Post::Initialize)),
        (initialize, &[("mcp-session-id", "old")], Ok(Post::Initialize)),
        (initialize, &[("mcp-protocol-version", "2099-01-01")], Err((400, -32000))),
        // header says modern, body does not
        (initialize, &[("mcp-protocol-version", MODERN)], Err((400, -32602))),
        (&list, &[("mcp-protocol-version", MODERN)], Err((400, -32602))),
        (&list, &[("mcp-protocol-version", MODERN), ("mcp-session-id", "s")], Err((400, -32602))),
        (&list, &[("mcp-session-id", "s")], in_session(None)),
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-03-26")], in_session(Some(Version::V2025_03_26))),
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-06-18")], in_session(Some(Version::V2025_06_18))),
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-11-25")], in_session(Some(Version::V2025_11_25))),
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2024-11-05")], in_session(Some(Version::V2024_11_05))),
        // old versions ignore the modern headers
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-11-25"), ("mcp-method", "x")], in_session(Some(Version::V2025_11_25))),
        (&list, &[("mcp-session-id", "s"), ("mcp-method", "x")], in_session(None)),
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2000-01-01")], Err((400, -32000))),
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "invalid-protocol-version")], Err((400, -32000))),
        (&list, &[("mcp-session-id", "s"), ("mcp-protocol-version", "")], Err((400, -32000))),
        (&list, &[("mcp-protocol-version", "2025-11-25")], Err((400, -32000))),
        (&list, &[("mcp-protocol-version", "2099-01-01")], Err((400, -32022))),
        (&list, &[("mcp-method", "tools/list")], Err((400, -32602))),
        (&list, &[], Err((400, -32000))),
    ];
    for (body, headers, expected) in table {
        let got = judge(body, headers).map_err(|refusal| (refusal.status().as_u16(), refusal.code()));
        assert_eq!(got, *expected, "{body} {headers:?}");
    }
}

#[test]
fn a_session_header_means_nothing_to_a_modern_request() {
    let headers =
        [("mcp-protocol-version", MODERN), ("mcp-method", "tools/list"), ("mcp-session-id", "stale"), ("last-event-id", "7")];
    assert_eq!(judge(&modern_body("tools/list", "", MODERN), &headers), Ok(Post::Modern { version: Version::V2026_07_28 }));
}

#[test]
fn batches_exist_only_in_sessions_of_2025_03_26() {
    let batch = format!("[{0},{0}]", legacy_body("ping"));
    let post = judge(&batch, &[("mcp-session-id", "s")]).expect("undecided until the session is open");
    assert_eq!(post.in_session(Version::V2025_03_26), Ok(()));
    for version in [Version::V2024_11_05, Version::V2025_06_18, Version::V2025_11_25] {
        assert_eq!(post.in_session(version), Err(Refusal::Batch));
    }
    assert!(judge(&batch, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-03-26")]).is_ok());
    assert_eq!(refusal(&batch, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-06-18")]), (400, -32600));
    assert_eq!(refusal(&batch, &[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-11-25")]), (400, -32600));
    assert_eq!(refusal(&batch, &[]), (400, -32000));
    let with_initialize = format!("[{},{}]", legacy_body("ping"), legacy_body("initialize"));
    assert_eq!(refusal(&with_initialize, &[("mcp-session-id", "s")]), (400, -32600));
}

#[test]
fn posts_must_accept_both_kinds_of_answer() {
    let table = [
        (Some("application/json, text/event-stream"), None),
        (Some("text/event-stream;q=0.5 , Application/JSON"), None),
        (Some("*/*"), None),
        (Some("application/*, text/*"), None),
        (Some("application/json"), Some(406)),
        (Some("text/event-stream"), Some(406)),
        (Some("application/json, text/event-stream;q=0"), Some(406)),
        (Some("application/json, text/event-stream; q=0.000"), Some(406)),
        (Some("text/html"), Some(406)),
        (Some("application/jsonp, text/event-streams"), Some(406)),
        (None, Some(406)),
    ];
    for (accept, expected) in table {
        let mut headers = map(&[("content-type", "application/json")]);
        accept.map(|accept| headers.append(ACCEPT, HeaderValue::from_static(accept)));
        let got = head(&Method::POST, &headers).err().map(|refusal| refusal.status().as_u16());
        assert_eq!(got, expected, "{accept:?}");
    }
    let mut two_lines = map(&[("content-type", "application/json"), ("accept", "application/json")]);
    two_lines.append(ACCEPT, HeaderValue::from_static("text/event-stream"));
    assert_eq!(head(&Method::POST, &two_lines), Ok(Head::Post));
}

#[test]
fn posts_must_be_declared_as_plain_json() {
    let table = [
        (Some("application/json"), None),
        (Some("Application/JSON; charset=UTF-8"), None),
        (Some("application/json;charset=\"utf-8\""), None),
        (Some("application/json; charset=utf-16"), Some(415)),
        (Some("text/plain"), Some(415)),
        (Some("application/json-rpc"), Some(415)),
        (Some("application/x-www-form-urlencoded"), Some(415)),
        (Some(""), Some(415)),
        (None, Some(415)),
    ];
    for (content_type, expected) in table {
        let mut headers = map(&[("accept", "*/*")]);
        content_type.map(|content_type| headers.append(CONTENT_TYPE, HeaderValue::from_static(content_type)));
        let got = head(&Method::POST, &headers).err().map(|refusal| refusal.status().as_u16());
        assert_eq!(got, expected, "{content_type:?}");
    }
    let encoded = map(&[("accept", "*/*"), ("content-type", "application/json"), ("content-encoding", "gzip")]);
    assert_eq!(head(&Method::POST, &encoded), Err(Refusal::UnsupportedMediaType));
}

#[test]
fn get_and_delete_belong_to_legacy_sessions() {
    let stream = |last: Option<&str>| Ok(Head::Stream { session: "s".into(), last_event_id: last.map(Box::from), version: None });
    let accept = ("accept", "text/event-stream");
    assert_eq!(head(&Method::GET, &map(&[accept, ("mcp-session-id", "s")])), stream(None));
    assert_eq!(head(&Method::GET, &map(&[accept, ("mcp-session-id", "s"), ("last-event-id", "e7")])), stream(Some("e7")));
    assert_eq!(head(&Method::DELETE, &map(&[("mcp-session-id", "s")])), Ok(Head::End { session: "s".into(), version: None }));
    #[rustfmt::skip]
    let refused: &[(Method, &[(&str, &str)], u16)] = &[
        (Method::GET, &[("mcp-session-id", "s")], 406),
        (Method::GET, &[("accept", "application/json"), ("mcp-session-id", "s")], 406),
        (Method::GET, &[accept], 400),
        (Method::GET, &[accept, ("mcp-session-id", "s"), ("mcp-protocol-version", "2000-01-01")], 400),
        (Method::GET, &[accept, ("mcp-protocol-version", MODERN)], 405),
        (Method::DELETE, &[], 400),
        (Method::DELETE, &[("mcp-session-id", "s"), ("mcp-protocol-version", MODERN)], 405),
        (Method::PUT, &[("mcp-session-id", "s")], 405),
        (Method::PATCH, &[], 405),
        (Method::HEAD, &[], 405),
    ];
    for (method, headers, status) in refused {
        let refusal = head(method, &map(headers)).expect_err("refused");
        assert_eq!(refusal.status().as_u16(), *status, "{method} {headers:?}");
        assert_eq!(refusal.allow().is_some(), *status == 405);
    }
    assert_eq!(head(&Method::GET, &map(&[("mcp-protocol-version", MODERN)])).expect_err("modern").allow(), Some("POST"));
}

#[test]
fn only_checked_headers_travel() {
    let client = map(&[
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "x"),
        ("mcp-param-region", "eu"),
        ("mcp-session-id", "sealed"),
        ("authorization", "Bearer secret"),
        ("cookie", "a=b"),
        ("x-api-key", "secret"),
        ("accept", "*/*"),
        ("last-event-id", "7"),
    ]);
    let names = |era| {
        let mut out = HeaderMap::new();
        forward(era, &client, &mut out);
        let mut names: Vec<String> = out.keys().map(ToString::to_string).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(Era::Modern), "accept content-type mcp-method mcp-name mcp-param-region mcp-protocol-version");
    assert_eq!(names(Era::Legacy), "accept content-type last-event-id mcp-protocol-version");
}

#[test]
fn what_came_without_headers_gets_those_that_agree_with_it() {
    for (method, params, name) in [
        ("tools/call", r#""name":"größe""#, Some("=?base64?Z3LDtsOfZQ==?=")),
        ("resources/read", r#""uri":"docs://a b""#, Some("docs://a b")),
        ("tools/list", r#""name":"x""#, None),
        ("server/discover", "", None),
    ] {
        let body = modern_body(method, params, MODERN);
        let scanned = scanned(&body);
        let headers = mirrored(scanned.one().unwrap());
        assert_eq!(headers[METHOD], method);
        assert_eq!(headers.get(NAME).map(|value| value.to_str().unwrap()), name, "{method}");
        assert!(matches!(post(&headers, &scanned), Ok(Post::Modern { .. })), "{method}");
    }
}
