//! Server messages: what is read is JSON to others and means the same to them; putting other ids in place keeps everything else.

use serde_json::Value;

use crate::owned::splice::{Places, at, places, splice};
use crate::transport::scan::lexer::Span;
use crate::transport::server_message::{ServerMessage, read};

/// What a session would put in: longer than most of what is there, and not the same kind of value.
const ID: &str = "\"fuzz-id\"";
const TOKEN: &str = "18446744073709551615";

/// A server's answer, or the data of an event.
pub fn server_message(data: &[u8]) {
    let Ok(messages) = read(data) else { return };
    let text = std::str::from_utf8(data).expect("what is read is text");
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        // It stops one level earlier.
        Err(error) if error.to_string().contains("recursion limit") => return,
        Err(error) => panic!("what is read is JSON to others: {error}: {text}"),
    };
    match &value {
        Value::Array(each) => {
            assert_eq!(each.len(), messages.len());
            messages.iter().zip(each).for_each(|(message, value)| same(message, value));
        }
        one => {
            assert_eq!(messages.len(), 1);
            same(&messages[0], one);
            if let Ok(places) = places(text) {
                others_in_place(text, &messages[0], &places);
            }
        }
    }
}

fn same(message: &ServerMessage<'_>, value: &Value) {
    let id = |written: &str| serde_json::from_str::<Value>(written).expect("an id is whole");
    let (its_id, its_method) = (value.get("id").filter(|id| !id.is_null()).cloned(), value.get("method").and_then(Value::as_str));
    match message {
        ServerMessage::Request { id: written, method } => {
            assert_eq!((Some(id(written)), Some(method.as_ref())), (its_id, its_method));
        }
        ServerMessage::Notification { method } => assert_eq!((None, Some(method.as_ref())), (its_id, its_method)),
        ServerMessage::Result { id: written, facts } => {
            assert_eq!((Some(id(written)), None), (its_id, its_method));
            let result = &value["result"];
            assert_eq!(facts.is_error, result.get("isError") == Some(&Value::Bool(true)));
            assert_eq!(facts.protocol_version.as_deref(), result.get("protocolVersion").and_then(Value::as_str));
            assert_eq!(facts.content.map(id).as_ref(), result.get("content"));
            let asked = result.get("inputRequests").and_then(Value::as_object).map_or(0, serde_json::Map::len);
            assert_eq!(facts.input_methods.len(), asked, "every request is judged");
        }
        ServerMessage::Error { id: written, code, words } => {
            assert_eq!((written.map(id), None), (its_id, its_method));
            let error = &value["error"];
            let expected = error.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
            assert_eq!(*code, expected.unwrap_or(0));
            assert_eq!(words.map(id), error.get("message").filter(|words| words.is_string()).cloned());
        }
    }
}

fn others_in_place(text: &str, message: &ServerMessage<'_>, places: &Places) {
    let id = places.id.filter(|id| at(text.as_bytes(), Some(*id)) != Some("null"));
    let mut put: Vec<(Span, &str)> = [(id, ID), (places.progress_token, TOKEN), (places.request_id, ID)]
        .into_iter()
        .filter_map(|(span, new)| Some((span?, new)))
        .collect();
    put.sort_by_key(|(span, _)| span.start);
    let spliced = splice(text.as_bytes(), &put);
    let again = read(&spliced).expect("it can be read as before");
    assert_eq!(again.len(), 1);
    assert_eq!(std::mem::discriminant(&again[0]), std::mem::discriminant(message), "it is what it was");
    let found = self::places(std::str::from_utf8(&spliced).expect("text")).expect("as before");
    let mut back = Vec::new();
    for (now, before, new) in [
        (found.id.filter(|_| id.is_some()), id, ID),
        (found.progress_token, places.progress_token, TOKEN),
        (found.request_id, places.request_id, ID),
    ] {
        assert_eq!(now.is_some(), before.is_some());
        let (Some(now), Some(before)) = (now, before) else { continue };
        assert_eq!(at(&spliced, Some(now)), Some(new), "what was put in is there");
        back.push((now, &text[before.range()]));
    }
    back.sort_by_key(|(span, _)| span.start);
    assert_eq!(splice(&spliced, &back), text, "nothing else changed");
}
