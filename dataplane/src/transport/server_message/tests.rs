use super::*;

fn one(text: &str) -> ServerMessage<'_> {
    let mut messages = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(messages.len(), 1, "{text}");
    messages.remove(0)
}

fn facts(text: &str) -> Facts<'_> {
    match one(text) {
        ServerMessage::Result { facts, .. } => facts,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn the_top_level_tells_what_a_message_is() {
    assert_eq!(
        one(r#"{"jsonrpc":"2.0","id":"s1","method":"sampling\/createMessage","params":{}}"#),
        ServerMessage::Request { id: "\"s1\"", method: "sampling/createMessage".into() }
    );
    assert_eq!(
        one(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"method":"x","id":1}}"#),
        ServerMessage::Notification { method: "notifications/progress".into() }
    );
    assert_eq!(
        one(r#"{"id":1,"result":{"content":[{"isError":true}]}}"#),
        ServerMessage::Result { id: "1", facts: Facts { content: Some(r#"[{"isError":true}]"#), ..Facts::default() } }
    );
    assert_eq!(
        one(r#"{"id":null,"error":{"code":-32700,"message":"x"}}"#),
        ServerMessage::Error { id: None, code: -32700, words: Some(r#""x""#) }
    );
    assert_eq!(
        one(r#"{"id":2,"error":{"message":"x"}}"#),
        ServerMessage::Error { id: Some("2"), code: 0, words: Some(r#""x""#) }
    );
    assert_eq!(one(r#"{"id":2,"error":{"code":1e3}}"#), ServerMessage::Error { id: Some("2"), code: 0, words: None });
}

#[test]
fn results_tell_what_records_and_decisions_need() {
    assert!(facts(r#"{"id":1,"result":{"content":[],"isError": true}}"#).is_error);
    assert!(!facts(r#"{"id":1,"result":{"isError":false,"structuredContent":{"isError":true}}}"#).is_error);
    let initialize = facts(r#"{"id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#);
    assert_eq!(initialize.protocol_version.as_deref(), Some("2025-06-18"));
    let text = r#"{"id":1,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{"method":"x"}},"b":{"params":{},"method":"roots/list"}},"requestState":"s"}}"#;
    let asked: Vec<String> = one(text).asked().map(str::to_owned).collect();
    assert_eq!(asked, ["elicitation/create", "roots/list"]);
}

#[test]
fn only_what_asks_something_is_asked() {
    let asked = |text| one(text).asked().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(asked(r#"{"id":1,"method":"roots/list"}"#), ["roots/list"]);
    assert!(asked(r#"{"method":"notifications/message"}"#).is_empty());
    assert!(asked(r#"{"id":1,"error":{"code":1}}"#).is_empty());
    assert!(asked(r#"{"id":1,"result":{}}"#).is_empty());
}

#[test]
fn batches_are_read_message_by_message() {
    let messages = read(br#"[{"id":1,"result":{}},{"id":2,"method":"sampling/createMessage"}]"#).unwrap();
    assert_eq!(messages.iter().flat_map(ServerMessage::asked).collect::<Vec<_>>(), ["sampling/createMessage"]);
    assert!(messages[0].is_response() && !messages[1].is_response());
}

#[test]
fn what_a_client_could_read_differently_is_an_error() {
    for (text, reason) in [
        (r#"{"id":1,"method":"ping","method":"sampling/createMessage"}"#, "duplicate_key"),
        (r#"{"id":1,"result":{},"Method":"sampling/createMessage"}"#, "folded_key"),
        (r#"{"id":1,"method":"ping","result":{}}"#, "ambiguous"),
        (r#"{"id":1,"method":["sampling/createMessage"]}"#, "bad_member"),
        (r#"{"id":1}"#, "missing_member"),
        (r#"{"result":{}}"#, "missing_member"),
        (r#"{"id":1,"result":{"inputRequests":{"a":{"Method":"roots/list"}}}}"#, "folded_key"),
        (r#"{"id":1,"result":{"inputRequests":{"a":{"params":{}}}}}"#, "missing_member"),
        (r#"{"id":1,"result":{"inputRequests":{"a":[1]}}}"#, "bad_member"),
        (r#"{"id":1,"result":{"inputRequests":{},"inputRequests":{"a":{"method":"roots/list"}}}}"#, "duplicate_key"),
        (r#"{"id":1,"result":{}} {"id":2,"method":"roots/list"}"#, "trailing_bytes"),
        (r#"{"id":1,"result":{}"#, "syntax"),
        ("<html>", "syntax"),
        ("7", "not_a_message"),
        (" ", "empty"),
    ] {
        assert_eq!(read(text.as_bytes()).expect_err(text).reason(), reason, "{text}");
    }
    assert!(read(b"{\"id\":\"\xff\",\"result\":{}}").is_err());
}
