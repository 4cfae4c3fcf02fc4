use super::*;
use bytes::Bytes;

pub(super) fn scan_text(text: &str) -> Result<Scanned, ScanError> {
    scan(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
}

fn one(text: &str) -> Message {
    match scan_text(text) {
        Ok(Scanned::One(message)) => message,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn finds_every_part_of_a_modern_tool_call() {
    let text = r#" {"jsonrpc":"2.0","id":"a\n1","method":"tools\/call","params":{"name":"e\u0063ho","arguments":{"x":[1,{"y":null}]},
        "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c"},
        "io.modelcontextprotocol/clientCapabilities":{},"progressToken":12345678901234567890123,"traceparent":"00-1-2-01"}}} "#;
    let message = one(text);
    assert_eq!(message.kind(), Kind::Request);
    assert_eq!(message.id(), Some(r#""a\n1""#));
    assert_eq!(message.method(), Some("tools/call"));
    assert_eq!(message.name(), Some("echo"));
    assert_eq!(message.arguments(), Some(r#"{"x":[1,{"y":null}]}"#));
    assert_eq!(message.meta_version(), Some("2026-07-28"));
    assert!(message.has_client_info());
    assert_eq!(message.client_capabilities_span().map(|span| &text[span.range()]), Some("{}"));
    assert_eq!(message.progress_token(), Some("12345678901234567890123"));
    assert_eq!(message.traceparent(), Some("00-1-2-01"));
    assert_eq!(message.bytes(), text.trim());
    assert_eq!(message.body(), text);
}

#[test]
fn finds_the_parts_that_other_methods_have() {
    let read = one(r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"repo://a/b","cursor":"c"}}"#);
    assert_eq!((read.uri(), read.cursor()), (Some("repo://a/b"), Some("\"c\"")));
    let prompt = r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}"#;
    assert_eq!(one(prompt).reference(), Some(Reference::Prompt("p")));
    let resource =
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"uri":"r:{x}","type":"ref/resource"}}}"#;
    assert_eq!(one(resource).reference(), Some(Reference::Resource("r:{x}")));
    let initialize = one(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#);
    assert_eq!(initialize.initialize_version(), Some("2025-06-18"));
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["a:1","a:\u0032"]}}}"#;
    assert_eq!(one(listen).resource_subscriptions().collect::<Vec<_>>(), ["a:1", "a:2"]);
    let retry = one(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","requestState":"s"}}"#);
    assert!(retry.is_retry());
    let cancelled = one(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
    assert_eq!((cancelled.kind(), cancelled.cancelled_id()), (Kind::Notification, Some("7")));
    let task = one(r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t"}}"#);
    assert_eq!(task.task_id(), Some("t"));
}

#[test]
fn tells_the_four_kinds_apart() {
    assert_eq!(one(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#).kind(), Kind::Request);
    assert_eq!(one(r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":null}"#).kind(), Kind::Notification);
    assert_eq!(one(r#"{"jsonrpc":"2.0","id":-4,"result":{}}"#).kind(), Kind::Response);
    assert_eq!(one(r#"{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":""}}"#).kind(), Kind::ErrorResponse);
    assert_eq!(one(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#).id(), None);
}

#[test]
fn splits_a_batch_into_messages_of_one_body() {
    let text = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"} , {"jsonrpc":"2.0","method":"n"}]"#;
    let Ok(Scanned::Batch(messages)) = scan_text(text) else { panic!("not a batch") };
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].bytes(), r#"{"jsonrpc":"2.0","method":"n"}"#);
    assert_eq!(messages[0].id(), Some("1"));
}

/// Each hostile body, the reason it must be refused for, and the JSON-RPC code of the answer.
#[rustfmt::skip]
const HOSTILE: &[(&str, &str, i32)] = &[
    // what CVE-2026-27896 and its relatives look like
    (r#"{"jsonrpc":"2.0","id":1,"Method":"tools/call"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"METHOD":"tools/call","method":"ping"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping","paramſ":{"name":"rm"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{"name":"rm"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping","Params":{}}"#, "folded_key", -32600),
    (r#"{"JSONRPC":"2.0","id":1,"method":"ping"}"#, "folded_key", -32600),
    (r#"{"j\u017fonrpc":"2.0","id":1,"method":"ping"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","ID":1,"method":"ping"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","ıd":1,"method":"ping"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"ｍethod":"ping"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"RESULT":{},"method":"ping"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"Error":{},"method":"ping"}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"Name":"rm","name":"ls"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"NAME":"rm"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"Arguments":{},"name":"x"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"argumentſ":{},"name":"x"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"URI":"a:b"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_Meta":{}}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"tasKId":"t"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"protocolversion":"1"}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progresstoken":1}}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/ProtocolVersion":"1"}}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/clientInf\u00BA":{}}}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"Traceparent":""}}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"ref":{"Type":"ref/prompt","name":"p"}}}"#, "folded_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"notifications":{"ResourceSubscriptions":["a:b"]}}}"#, "folded_key", -32600),
    // the same key twice, plainly or through escapes, at any level
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","m\u0065thod":"tools/call"}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","name":"b"}}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"a":1,"a":2}}}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":[[{"\ud83d\ude00":1,"😀":2}]]}}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1,"a":1}}}"#, "duplicate_key", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"z":{"a0":0,"a1":0,"a2":0,"a3":0,"a4":0,"a5":0,"a6":0,"a7":0,"a8":0,"a9":0,"b0":0,"b1":0,"b2":0,"b3":0,"b4":0,"b5":0,"b6":0,"a3":0}}}"#, "duplicate_key", -32600),
    // strings that parsers end or read differently
    ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\\u0000\":\"x\",\"method\":\"y\"}", "nul", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list\u0000"}"#, "nul", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ls\u0000rm"}}"#, "nul", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#, "lone_surrogate", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"\udc00"}"#, "lone_surrogate", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"\ud800\u0041"}"#, "lone_surrogate", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"\ud83d x"}"#, "lone_surrogate", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"\udead":1}}}"#, "lone_surrogate", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"\x41"}"#, "bad_escape", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"\u00g1"}"#, "bad_escape", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"\u+041"}"#, "bad_escape", -32700),
    ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}", "control_character", -32700),
    ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\0b\"}", "control_character", -32700),
    // syntax that laxer parsers let pass
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#, "syntax", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}}"#, "trailing_bytes", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}"#, "trailing_bytes", -32700),
    ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\0", "trailing_bytes", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} // hi"#, "trailing_bytes", -32700),
    (r#"{"jsonrpc":"2.0",/* hi */"id":1,"method":"ping"}"#, "syntax", -32700),
    (r#"{'jsonrpc':"2.0","id":1,"method":"ping"}"#, "syntax", -32700),
    (r#"{jsonrpc:"2.0","id":1,"method":"ping"}"#, "syntax", -32700),
    ("{\u{a0}\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", "syntax", -32700),
    ("\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", "byte_order_mark", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping""#, "syntax", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"pi"#, "syntax", -32700),
    (r#"{"jsonrpc" "2.0"}"#, "syntax", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}"#, "syntax", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":Infinity}}"#, "syntax", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":tru}}"#, "syntax", -32700),
    ("", "empty", -32700),
    (" \n\t ", "empty", -32700),
    // numbers
    (r#"{"jsonrpc":"2.0","id":01,"method":"ping"}"#, "bad_number", -32700),
    (r#"{"jsonrpc":"2.0","id":1.,"method":"ping"}"#, "bad_number", -32700),
    (r#"{"jsonrpc":"2.0","id":0x1,"method":"ping"}"#, "bad_number", -32700),
    (r#"{"jsonrpc":"2.0","id":1_0,"method":"ping"}"#, "bad_number", -32700),
    (r#"{"jsonrpc":"2.0","id":+1,"method":"ping"}"#, "syntax", -32700),
    (r#"{"jsonrpc":"2.0","id":.5,"method":"ping"}"#, "syntax", -32700),
    (r#"{"jsonrpc":"2.0","id":--1,"method":"ping"}"#, "bad_number", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1e999}}"#, "bad_number", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":-1E+400}}"#, "bad_number", -32700),
    // envelopes that are not JSON-RPC 2.0 as MCP narrows it
    (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1e2,"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, "bad_member", -32600),
    (r#"{"id":1,"method":"ping"}"#, "missing_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1}"#, "missing_member", -32600),
    (r#"{"jsonrpc":"2.0","result":{}}"#, "missing_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"]}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":"y"}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":[]}}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"notifications":{"resourceSubscriptions":[1]}}}"#, "bad_member", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "ambiguous", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "ambiguous", -32600),
    (r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, "bad_member", -32600),
    (r#""ping""#, "not_a_message", -32600),
    ("42", "not_a_message", -32600),
    ("null", "not_a_message", -32600),
    ("[]", "empty_batch", -32600),
    ("[1]", "not_a_message", -32600),
    (r#"[[{"jsonrpc":"2.0","id":1,"method":"ping"}]]"#, "not_a_message", -32600),
    (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"id":2,"Method":"ping"}]"#, "folded_key", -32600),
];

#[test]
fn refuses_every_hostile_body_for_its_reason() {
    assert!(HOSTILE.len() >= 60, "the table shrank to {}", HOSTILE.len());
    for (text, reason, code) in HOSTILE {
        match scan_text(text) {
            Ok(scanned) => panic!("accepted {text:?} as {scanned:?}"),
            Err(error) => assert_eq!((error.reason(), error.code()), (*reason, *code), "{text:?}: {error}"),
        }
    }
}

#[test]
fn names_the_byte_where_it_went_wrong() {
    for (text, at) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, 37),
        (r#"{"jsonrpc":"2.0","id":1,"Method":"a"}"#, 24),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#, 22),
        (r#"{"jsonrpc":"2.0"} x"#, 18),
    ] {
        let error = scan_text(text).expect_err(text).to_string();
        if text.ends_with('x') {
            assert!(error.contains("byte 0"), "the envelope is judged first: {error}");
        } else {
            assert!(error.contains(&at.to_string()), "{text}: {error}");
        }
    }
}

#[test]
fn refuses_bytes_that_are_not_utf8() {
    for bytes in
        [&b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}"[..], b"{\"\xc0\x80\":1}", b"\xed\xa0\x80", b"\xfe\xff\0{"]
    {
        let error = scan(&Bytes::copy_from_slice(bytes), &Limits::default()).expect_err("invalid UTF-8");
        assert_eq!((error.reason(), error.code()), ("not_utf8", -32700));
    }
}

#[test]
fn depth_is_limited_exactly() {
    let nested = |depth: usize| {
        let arguments = format!("{}{}", "[".repeat(depth - 2), "]".repeat(depth - 2));
        scan_text(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"arguments":{arguments}}}}}"#))
    };
    assert!(nested(64).is_ok());
    assert!(matches!(nested(65), Err(ScanError::TooDeep { limit: 64, .. })));
    assert!(matches!(nested(100_000), Err(ScanError::TooDeep { .. })));
    assert!(matches!(scan_text(&"{\"a\":".repeat(100_000)), Err(ScanError::TooDeep { .. })));
}

#[test]
fn size_and_batch_length_are_limited_exactly() {
    let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let limits = |bytes| Limits { bytes, ..Limits::default() };
    assert!(scan(&body, &limits(body.len())).is_ok());
    assert_eq!(scan(&body, &limits(body.len() - 1)).expect_err("too large"), ScanError::TooLarge { limit: body.len() - 1 });
    let batch = |length: usize| scan_text(&format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"n"}"#; length].join(",")));
    assert!(batch(100).is_ok());
    assert_eq!(batch(101).expect_err("too long"), ScanError::BatchTooLong { limit: 100 });
}

#[test]
fn a_huge_object_of_distinct_keys_is_accepted_and_one_repetition_is_found() {
    let object = |last: &str| {
        let keys: Vec<String> = (0..100_000).map(|i| format!("\"k{i}\":0")).collect();
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"arguments":{{{},"{last}":1}}}}}}"#, keys.join(","))
    };
    assert!(scan_text(&object("other")).is_ok());
    assert!(matches!(scan_text(&object("k7")), Err(ScanError::DuplicateKey { .. })));
}

#[test]
fn keys_that_merely_contain_protocol_words_are_fine() {
    for params in [
        r#"{"arguments":{"Name":1,"METHOD":2,"paramſ":3}}"#,
        r#"{"names":1,"x-name":2,"имя":3}"#,
        r#"{"_meta":{"com.example/Name":1,"X":2}}"#,
        r#"{"Jsonrpc":1}"#,
    ] {
        one(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{params},"x-extra":1}}"#));
    }
}
