//! What the scan accepts, serde_json accepts and reads the same; nothing makes it panic.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::tests::scan_text;
use super::*;

fn seen_by_serde(message: &Message, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("serde_json refuses {text:?}: {error}"));
    let id = message.id().map(|id| serde_json::from_str::<Value>(id).unwrap());
    assert_eq!(id.as_ref(), value.get("id").filter(|id| !id.is_null()), "{text}");
    assert_eq!(message.method(), value.get("method").and_then(Value::as_str), "{text}");
    let params = value.get("params");
    let param = |name: &str| params.and_then(|params| params.get(name));
    assert_eq!(message.name(), param("name").and_then(Value::as_str), "{text}");
    assert_eq!(message.uri(), param("uri").and_then(Value::as_str), "{text}");
    let arguments = message.arguments().map(|arguments| serde_json::from_str::<Value>(arguments).unwrap());
    assert_eq!(arguments.as_ref(), param("arguments"), "{text}");
    let version = param("_meta").and_then(|meta| meta.get("io.modelcontextprotocol/protocolVersion"));
    assert_eq!(message.meta_version(), version.and_then(Value::as_str), "{text}");
}

fn json_string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z_/.]{1,6}",
        1 => any::<char>().prop_map(String::from).prop_map(|c| serde_json::to_string(&c).unwrap().trim_matches('"').to_owned()),
        1 => "\\\\u[0-9a-fA-F]{4}",
        1 => "\\\\[bfnrt/\"\\\\]",
        1 => Just("\\ud83d\\ude00".to_owned()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        json_string(),
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "-?[0-9]{1,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((json_string(), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(members: Vec<(String, String)>) -> String {
    let members: Vec<String> = members.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn envelope() -> impl Strategy<Value = String> {
    let meta = prop::collection::vec(
        (
            prop_oneof![
                Just("\"io.modelcontextprotocol/protocolVersion\"".to_owned()),
                Just("\"progressToken\"".to_owned()),
                json_string()
            ],
            json_value(),
        ),
        0..3,
    );
    let param = prop_oneof![
        3 => Just("\"name\"".to_owned()),
        2 => Just("\"uri\"".to_owned()),
        2 => Just("\"arguments\"".to_owned()),
        1 => Just("\"n\\u0061me\"".to_owned()),
        1 => json_string(),
    ];
    let params = (prop::collection::vec((param, json_value()), 0..4), meta).prop_map(|(mut members, meta)| {
        members.push(("\"_meta\"".to_owned(), object(meta)));
        object(members)
    });
    let id = prop_oneof![any::<i64>().prop_map(|n| n.to_string()), json_string(), Just("null".to_owned()), "-?[0-9]{1,30}"];
    (id, prop_oneof![Just("\"tools/call\"".to_owned()), json_string()], params, prop::option::of((json_string(), json_value())))
        .prop_map(|(id, method, params, extra)| {
            let mut members = vec![
                ("\"jsonrpc\"".to_owned(), "\"2.0\"".to_owned()),
                ("\"id\"".to_owned(), id),
                ("\"method\"".to_owned(), method),
                ("\"params\"".to_owned(), params),
            ];
            members.extend(extra);
            object(members)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_reads_the_same_in_serde_json(text in envelope()) {
        if let Ok(Scanned::One(message)) = scan_text(&text) {
            seen_by_serde(&message, &text);
        }
    }

    #[test]
    fn one_changed_byte_never_panics_and_never_disagrees(text in envelope(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Scanned::One(message)) = scan(&Bytes::from(bytes.clone()), &Limits::default()) {
            seen_by_serde(&message, std::str::from_utf8(&bytes).unwrap());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _refused_or_not = scan(&Bytes::from(bytes), &Limits::default());
    }

    #[test]
    fn arbitrary_values_are_accepted_exactly_if_they_are_strict_json(value in json_value()) {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"arguments":{value}}}}}"#);
        match scan_text(&text) {
            Ok(_) => prop_assert!(serde_json::from_str::<Value>(&text).is_ok()),
            Err(ScanError::DuplicateKey { .. } | ScanError::LoneSurrogate { .. }) => {}
            Err(error) => prop_assert!(serde_json::from_str::<Value>(&text).is_err(), "{error}: {text}"),
        }
    }

    #[test]
    fn the_fast_string_path_finds_the_first_special_byte(prefix in "[a-z😀é]{0,40}", special in prop::sample::select(vec!['"', '\\', '\u{1f}', '\n']), rest in "[a-z\"\\\\\u{1}]{0,12}") {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{prefix}{special}{rest}"}}"#);
        let ours = scan_text(&text).is_ok();
        let theirs = serde_json::from_str::<Value>(&text).is_ok();
        prop_assert!(!ours || theirs);
        if special != '"' { prop_assert_eq!(ours, theirs); }
    }
}
