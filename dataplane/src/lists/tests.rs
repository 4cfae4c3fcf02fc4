use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const MAX: usize = 1 << 20;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Filters with a predicate that allows names containing `ok`.
fn filtered(text: &str) -> Result<Filtered, Error> {
    filter(&bytes(text), MAX, |_, name| name.contains("ok"))
}

fn changed(text: &str) -> String {
    match filtered(text) {
        Ok(Filtered::Changed { message, .. }) => String::from_utf8(message.to_vec()).unwrap(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn hides_exactly_what_may_not_be_used_and_touches_nothing_else() {
    let list = r#" {"jsonrpc":"2.0", "id":7,"result":{"nextCursor" : "c" ,"tools":[ {"name":"ok1","x":[1, 2]} , {"name":"no"},{ "description":"{\"name\":\"ok\"}","name":"ok2"} ],"_meta":{"a":  1}}}"#;
    let expected = r#" {"jsonrpc":"2.0", "id":7,"result":{"nextCursor" : "c" ,"tools":[{"name":"ok1","x":[1, 2]},{ "description":"{\"name\":\"ok\"}","name":"ok2"}],"_meta":{"a":  1}}}"#;
    assert_eq!(changed(list), expected);
}

#[test]
fn each_kind_is_judged_by_its_own_name() {
    let list = r#"{"result":{"tools":[{"name":"t","uri":"x"}],"prompts":[{"name":"p"}],"resources":[{"uri":"r:1","name":"n"}],"resourceTemplates":[{"uriTemplate":"r:{x}","name":"n"}]}}"#;
    let mut seen = Vec::new();
    let outcome = filter(&bytes(list), MAX, |kind, name| {
        seen.push((kind, name.to_owned()));
        true
    });
    assert_eq!(outcome, Ok(Filtered::Unchanged));
    let expected = [(Kind::Tool, "t"), (Kind::Prompt, "p"), (Kind::Resource, "r:1"), (Kind::ResourceTemplate, "r:{x}")];
    assert_eq!(seen, expected.map(|(kind, name)| (kind, name.to_owned())));
}

#[test]
fn a_page_may_become_empty_but_keeps_its_cursor() {
    let page = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"no"}],"nextCursor":"2"}}"#;
    assert_eq!(changed(page), r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"nextCursor":"2"}}"#);
}

#[test]
fn elements_without_a_name_are_hidden() {
    let list = r#"{"result":{"tools":[{"title":"ok"},"ok",null,{"name":7},["ok"],{"name":"ok"}]}}"#;
    assert_eq!(changed(list), r#"{"result":{"tools":[{"name":"ok"}]}}"#);
}

#[test]
fn escaped_keys_and_names_are_understood() {
    let list = r#"{"re\u0073ult":{"\u0074ools":[{"\u006eame":"\u006fk"},{"name":"n\u006f"}]}}"#;
    assert_eq!(changed(list), r#"{"re\u0073ult":{"\u0074ools":[{"\u006eame":"\u006fk"}]}}"#);
}

#[test]
fn modern_lists_become_private() {
    #[rustfmt::skip]
    let table = [
        (r#"{"result":{"tools":[],"resultType":"complete","ttlMs":5,"cacheScope":"public"}}"#, Some(r#"{"result":{"tools":[],"resultType":"complete","ttlMs":5,"cacheScope":"private"}}"#)),
        (r#"{"result":{"cacheScope" : "public", "tools":[{"name":"no"}]}}"#, Some(r#"{"result":{"cacheScope" : "private", "tools":[]}}"#)),
        (r#"{"result":{"tools":[],"ttlMs":5}}"#, Some(r#"{"result":{"cacheScope":"private","tools":[],"ttlMs":5}}"#)),
        (r#"{"result":{ "resultType":"complete","prompts":[{"name":"no"}]}}"#, Some(r#"{"result":{"cacheScope":"private", "resultType":"complete","prompts":[]}}"#)),
        (r#"{"result":{"tools":[],"cacheScope":7}}"#, Some(r#"{"result":{"tools":[],"cacheScope":"private"}}"#)),
        // what was judged for one principal is private even if it is no list
        (r#"{"result":{"contents":[],"cacheScope":"public"}}"#, Some(r#"{"result":{"contents":[],"cacheScope":"private"}}"#)),
        (r#"{"result":{"tools":[],"ttlMs":5,"cacheScope":"private"}}"#, None),
        (r#"{"result":{"tools":[]}}"#, None),
        (r#"{"result":{"content":[{"cacheScope":"public"}],"resultType":"complete"}}"#, None),
    ];
    for (list, expected) in table {
        match (filtered(list), expected) {
            (Ok(Filtered::Changed { message, .. }), Some(expected)) => assert_eq!(message, expected),
            (Ok(Filtered::Unchanged | Filtered::NotAList), None) => {}
            (other, _) => panic!("{list}: {other:?}"),
        }
    }
}

#[test]
fn everything_else_passes_untouched() {
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"\"tools\":[{\"name\":\"no\"}]"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"tools":[{"name":"no"}]}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":{"name":"no"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"capabilities":{"tools":{},"prompts":{}}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"tools":[{"name":"no"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":{"tools":[{"name":"no"}]}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":"tools"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":[{"tools":[{"name":"no"}]}]}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"text":"caf\u00e9 \u0041"}}"#,
        "",
        "not JSON at all",
    ] {
        assert_eq!(filtered(message), Ok(Filtered::NotAList), "{message}");
    }
}

#[test]
fn batches_are_filtered_message_by_message() {
    let batch = r#"[{"id":1,"result":{"tools":[{"name":"no"}]}}, {"id":2,"result":{"tools":[{"name":"ok"}]}}]"#;
    assert_eq!(changed(batch), r#"[{"id":1,"result":{"tools":[]}}, {"id":2,"result":{"tools":[{"name":"ok"}]}}]"#);
}

#[test]
fn what_clients_could_read_differently_does_not_pass() {
    for (list, reason) in [
        (r#"{"result":{"tools":[],"tools":[{"name":"no"}]}}"#, "duplicate_key"),
        (r#"{"result":{"tools":[{"name":"ok","name":"no"}]}}"#, "duplicate_key"),
        (r#"{"result":{"tools":[]},"result":{"tools":[{"name":"no"}]}}"#, "duplicate_key"),
        (r#"{"result":{"tools":[],"Tools":[{"name":"no"}]}}"#, "folded_key"),
        (r#"{"result":{},"Result":{"tools":[{"name":"no"}]}}"#, "folded_key"),
        (r#"{"result":{"tools":[{"name":"ok"},]}}"#, "syntax"),
        (r#"{"result":{"tools":[{"name":"ok"}]}"#, "syntax"),
        (r#"{"result":{"tools":[{"name":"ok"}]}} x"#, "trailing_bytes"),
        (r#"{"result":{"tools":[{"name":"\ud800"}]}}"#, "lone_surrogate"),
    ] {
        match filtered(list) {
            Err(Error::Invalid(error)) => assert_eq!(error.reason(), reason, "{list}"),
            other => panic!("{list}: {other:?}"),
        }
    }
    assert!(matches!(filter(&Bytes::from_static(b"{\"tools\":\"\xff\"}"), MAX, |_, _| true), Err(Error::Invalid(_))));
    let deep = format!(r#"{{"result":{{"tools":[{}{}]}}}}"#, "[".repeat(200), "]".repeat(200));
    assert!(matches!(filtered(&deep), Err(Error::Invalid(ScanError::TooDeep { .. }))));
}

#[test]
fn a_list_over_the_bound_is_an_error_and_anything_else_is_not() {
    let list = bytes(r#"{"result":{"tools":[{"name":"ok"}]}}"#);
    assert_eq!(filter(&list, list.len(), |_, _| true), Ok(Filtered::Unchanged));
    assert_eq!(filter(&list, list.len() - 1, |_, _| true), Err(Error::TooLarge { limit: list.len() - 1 }));
    assert_eq!(filter(&bytes(r#"{"result":{"content":"xxxxxxxx"}}"#), 3, |_, _| true), Ok(Filtered::NotAList));
}

fn element() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c", "\u{e9}", "a\"b", "x\\y", "r:1"]);
    prop_oneof![
        6 => (name, any::<bool>()).prop_map(|(name, extra)| {
            let mut element = json!({"name": name, "uri": name, "uriTemplate": name, "description": "tools [ ] , {"});
            if extra { element["inputSchema"] = json!({"properties": {"name": {"type": "string"}}}); }
            element
        }),
        1 => Just(json!({"title": "nameless"})),
        1 => Just(json!(5)),
    ]
}

fn result() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(element(), 0..6);
    let lists =
        prop::collection::btree_map(prop::sample::select(vec!["tools", "prompts", "resources", "resourceTemplates"]), list, 0..3);
    (lists, any::<Option<bool>>(), any::<bool>()).prop_map(|(lists, scope, cursor)| {
        let mut result = json!({});
        for (key, elements) in lists {
            result[key] = Value::Array(elements);
        }
        if cursor {
            result["nextCursor"] = json!("]}");
        }
        if let Some(public) = scope {
            result["ttlMs"] = json!(1);
            result["cacheScope"] = json!(if public { "public" } else { "private" });
        }
        json!({"jsonrpc": "2.0", "id": 1, "result": result})
    })
}

/// The same by parsing.
fn expected(mut message: Value, allowed: &dyn Fn(&str) -> bool) -> Value {
    let result = message["result"].as_object_mut().unwrap();
    for (key, name) in [("tools", "name"), ("prompts", "name"), ("resources", "uri"), ("resourceTemplates", "uriTemplate")] {
        if let Some(Value::Array(elements)) = result.get_mut(key) {
            elements.retain(|element| element.get(name).and_then(Value::as_str).is_some_and(allowed));
        }
    }
    if result.contains_key("cacheScope") {
        result.insert("cacheScope".into(), json!("private"));
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_visible_is_exactly_what_is_allowed(message in result(), pretty in any::<bool>(), mask in any::<u8>()) {
        let allowed = |name: &str| name.bytes().fold(mask, |hash, byte| hash.rotate_left(3) ^ byte) & 1 == 0;
        let text = if pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) }.unwrap();
        let after = match filter(&bytes(&text), MAX, |_, name| allowed(name)).unwrap() {
            Filtered::NotAList | Filtered::Unchanged => text.clone(),
            Filtered::Changed { message, .. } => String::from_utf8(message.to_vec()).unwrap(),
        };
        let after: Value = serde_json::from_str(&after).unwrap();
        prop_assert_eq!(after, expected(message, &allowed));
    }

    #[test]
    fn a_changed_byte_never_panics_and_never_shows_a_hidden_name(message in result(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = serde_json::to_vec(&message).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(Filtered::Changed { message, .. }) = filter(&Bytes::from(text), MAX, |_, _| false) {
            let after: Value = serde_json::from_slice(&message).unwrap();
            for list in ["tools", "prompts", "resources", "resourceTemplates"] {
                prop_assert!(after["result"][list].as_array().is_none_or(Vec::is_empty));
            }
        }
    }
}
