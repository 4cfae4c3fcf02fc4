//! Client messages: what the scan accepts reads the same in serde_json, its parts are whole JSON values, and it is accepted again
//! when somebody else writes it.

use bytes::Bytes;
use serde_json::Value;

use crate::transport::scan::lexer::Span;
use crate::transport::scan::{self, Limits, Message, Scanned};
use crate::transport::{message, messages};

/// Small, so that the limits are met.
const LIMITS: Limits = Limits { bytes: 16 << 10, depth: 64, batch: 8 };

/// A body as a client posts it.
pub fn scan(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let scanned = scan::scan(&body, &LIMITS);
    if message(&body, &LIMITS).is_ok() {
        assert!(matches!(scanned, Ok(Scanned::One(_))), "one message is what the scan says is one");
    }
    assert!(messages(&body, &LIMITS).is_err() || scanned.is_ok(), "nothing passes that the scan refuses");
    let Ok(scanned) = scanned else { return };
    let all: Value = serde_json::from_slice(data).expect("what is accepted is JSON to others");
    let each = match (&scanned, &all) {
        (Scanned::One(_), one) => std::slice::from_ref(one),
        (Scanned::Batch(_), Value::Array(each)) => each,
        (Scanned::Batch(_), other) => panic!("a batch is an array to others: {other}"),
    };
    assert_eq!(each.len(), scanned.messages().len());
    assert!((1..=LIMITS.batch).contains(&each.len()));
    for (message, value) in scanned.messages().iter().zip(each) {
        assert_eq!(json(&message.bytes()), *value, "a message's own bytes are the message");
        parts_are_what_others_read(message, value);
        accepted_when_written_again(message, value);
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("a part is whole")
}

fn parts_are_what_others_read(message: &Message, value: &Value) {
    let at = |path: &[&str]| path.iter().try_fold(value, |value, key| value.get(key)).filter(|value| !value.is_null());
    let text = |path: &[&str]| at(path).and_then(Value::as_str);
    let part = |span: Option<Span>| span.map(|span| json(&message.body()[span.range()])).filter(|part| !part.is_null());
    assert_eq!(message.method(), text(&["method"]));
    assert_eq!(message.name(), text(&["params", "name"]));
    assert_eq!(message.uri(), text(&["params", "uri"]));
    assert_eq!(message.task_id(), text(&["params", "taskId"]));
    assert_eq!(message.initialize_version(), text(&["params", "protocolVersion"]));
    assert_eq!(message.meta_version(), text(&["params", "_meta", "io.modelcontextprotocol/protocolVersion"]));
    assert_eq!(message.traceparent(), text(&["params", "_meta", "traceparent"]));
    assert_eq!(part(message.id_span()).as_ref(), at(&["id"]));
    assert_eq!(part(message.params_span()).as_ref(), at(&["params"]));
    assert_eq!(part(message.arguments_span()).as_ref(), at(&["params", "arguments"]));
    assert_eq!(part(message.cancelled_id_span()).as_ref(), at(&["params", "requestId"]));
    assert_eq!(part(message.meta_span()).as_ref(), at(&["params", "_meta"]));
    assert_eq!(part(message.progress_token_span()).as_ref(), at(&["params", "_meta", "progressToken"]));
    let capabilities = at(&["params", "_meta", "io.modelcontextprotocol/clientCapabilities"]);
    assert_eq!(part(message.client_capabilities_span()).as_ref(), capabilities.filter(|value| value.is_object()));
    let listened: Vec<&str> = message.resource_subscriptions().collect();
    let wanted = at(&["params", "notifications", "resourceSubscriptions"]).and_then(Value::as_array);
    assert_eq!(listened, wanted.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>());
}

/// serde_json keeps no integer beyond 64 bits, and what it writes may be longer than what it read.
fn accepted_when_written_again(message: &Message, value: &Value) {
    let again = Bytes::from(value.to_string());
    if value.get("id").is_some_and(Value::is_f64) || again.len() > LIMITS.bytes {
        return;
    }
    let again = match scan::scan(&again, &LIMITS) {
        Ok(Scanned::One(again)) => again,
        other => panic!("written again it is {other:?}: {}", String::from_utf8_lossy(&again)),
    };
    assert_eq!(again.kind(), message.kind());
    assert_eq!((again.method(), again.name(), again.uri()), (message.method(), message.name(), message.uri()));
    assert_eq!(again.id().map(|id| json(id.as_bytes())), message.id().map(|id| json(id.as_bytes())));
}
