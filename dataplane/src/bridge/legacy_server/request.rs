//! A modern client's message in a legacy server's words: without what only the modern era has, under the session's own number.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{MAX_DEPTH, RESERVED, kept};
use crate::owned::splice;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer, Span};
use crate::transport::scan::{Message, ScanError};

/// Members of `params` that repeat a request with answers; no server of the legacy era knows them.
const OF_RETRIES: [&str; 2] = ["inputResponses", "requestState"];

/// `message` as a legacy server understands it. `number` takes the place of id and progress token, where there are any.
pub fn translated(message: &Message, number: Option<u64>) -> Bytes {
    let digits = number.map(|number| number.to_string()).unwrap_or_default();
    let offset = message.span().range().start;
    let body = message.body();
    let text = |span: Span| std::str::from_utf8(&body[span.range()]).unwrap_or("{}");
    let mut places: Vec<(Span, String)> = Vec::with_capacity(2);
    if let Some(id) = message.id_span() {
        places.push((id.before(offset), digits.clone()));
    }
    let changed = match message.params_span() {
        Some(params) if message.is_retry() => Some((params, without(text(params), &OF_RETRIES, &digits))),
        Some(_) | None => message.meta_span().map(|span| (span, meta(text(span), &digits))),
    };
    places.extend(changed.map(|(span, text)| (span.before(offset), text)));
    places.sort_unstable_by_key(|(span, _)| span.start);
    let places: Vec<_> = places.iter().map(|(span, text)| (*span, &**text)).collect();
    splice::splice(&message.bytes(), &places)
}

/// `_meta` without what is the modern protocol's own, with `token` in place of the progress token.
fn meta(text: &str, token: &str) -> String {
    let members = kept(text, |key, value| match key {
        "progressToken" => Some(format!(r#""progressToken":{token}"#)),
        key if key.starts_with(RESERVED) => None,
        _ => Some(value.to_owned()),
    });
    format!("{{{}}}", members.join(","))
}

/// `params` without some members, and with their `_meta` as [`meta`] has it.
fn without(text: &str, dropped: &[&str], token: &str) -> String {
    let members = kept(text, |key, member| match key {
        key if dropped.contains(&key) => None,
        "_meta" => Some(format!(r#""_meta":{}"#, meta(value_of(member), token))),
        _ => Some(member.to_owned()),
    });
    format!("{{{}}}", members.join(","))
}

/// The value of a member that is written with its key.
fn value_of(member: &str) -> &str {
    let mut lexer = Lexer::new(member, MAX_DEPTH, Duplicates::WhereRead);
    let _key = lexer.value();
    member[lexer.pos()..].trim_start().strip_prefix(':').unwrap_or("{}").trim_start()
}

/// What makes a request a repetition of another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// `requestState`; none: the client was given none, or lost it.
    pub state: Option<String>,
    /// `inputResponses`: results by key, as the client wrote them.
    pub answers: Vec<(String, Bytes)>,
}

impl Retry {
    /// What `message` repeats; `None`: nothing.
    pub fn of(message: &Message) -> Option<Self> {
        let params = message.params_span().filter(|_| message.is_retry())?;
        let start = params.range().start;
        let text = std::str::from_utf8(&message.body()[params.range()]).ok()?;
        let mut retry = Self::default();
        let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
        let read: Result<(), ScanError> = lexer.object(|lexer, key| match (&*key.text, lexer.peek()?) {
            ("requestState", Kind::String) => {
                retry.state = Some(lexer.string()?.text.into_owned());
                Ok(())
            }
            ("inputResponses", Kind::Object) => lexer.object(|lexer, key| {
                let is_result = lexer.peek()? == Kind::Object;
                let value = lexer.value()?.range();
                if is_result {
                    let bytes = message.body().slice(start + value.start..start + value.end);
                    retry.answers.push((key.text.to_string(), bytes));
                }
                Ok(())
            }),
            _ => lexer.value().map(drop),
        });
        read.ok().map(|()| retry)
    }
}

/// What a request asks for, whatever its id, its `_meta` and the answers that it brings: a repetition has the same.
pub fn digest(message: &Message) -> [u8; 32] {
    let params = message.params_span().map_or("{}".as_bytes(), |span| &message.body()[span.range()]);
    let mut params: Map<String, Value> = serde_json::from_slice(params).unwrap_or_default();
    for member in OF_RETRIES.into_iter().chain(["_meta"]) {
        params.remove(member);
    }
    let mut context = Context::new(&SHA256);
    context.update(message.method().unwrap_or_default().as_bytes());
    context.update(b"\0");
    context.update(canonical(params.into()).to_string().as_bytes());
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// With the members of every object in one order.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(key, value)| (key, canonical(value))).collect();
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(elements) => elements.into_iter().map(canonical).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::transport::message as read;
    use crate::transport::scan::{Limits, Scanned, scan};

    pub fn message(text: &str) -> Message {
        match scan(&Bytes::from(text.to_owned()), &Limits::default()).unwrap() {
            Scanned::One(message) => message,
            Scanned::Batch(_) => panic!("one message"),
        }
    }

    fn text(message: &Message, number: Option<u64>) -> String {
        let bytes = translated(message, number);
        let _legacy = read(&bytes, &Limits::default()).unwrap_or_else(|_| panic!("{bytes:?}"));
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn what_is_the_modern_eras_own_is_left_out_and_the_rest_stays_byte_for_byte() {
        let request = message(
            r#" {"id" : "x","params":{"name":"t", "arguments":{"n":1.0,"_meta":{"io.modelcontextprotocol/a":1}},"_meta" : { "io.modelcontextprotocol/protocolVersion":"2026-07-28", "traceparent":"00-1", "io.modelcontextprotocol/clientCapabilities":{"roots":{}},"com.example/mine": [1, 2] ,"progressToken":"p"} },"jsonrpc":"2.0","method":"tools/call"} "#,
        );
        let expected = r#"{"id" : 7,"params":{"name":"t", "arguments":{"n":1.0,"_meta":{"io.modelcontextprotocol/a":1}},"_meta" : {"traceparent":"00-1","com.example/mine": [1, 2],"progressToken":7} },"jsonrpc":"2.0","method":"tools/call"}"#;
        assert_eq!(text(&request, Some(7)), expected);
    }

    #[test]
    fn answers_and_state_of_a_repetition_do_not_reach_the_server() {
        let retry = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"requestState":"s","name":"t","_meta":{"io.modelcontextprotocol/logLevel":"info","progressToken":"p","k":1},"inputResponses":{"q1":{"action":"accept"},"q2":7}}}"#;
        let expected =
            r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"t","_meta":{"progressToken":9,"k":1}}}"#;
        let retry = message(retry);
        assert_eq!(text(&retry, Some(9)), expected);
        let found = Retry::of(&retry).unwrap();
        assert_eq!(found.state.as_deref(), Some("s"));
        assert_eq!(found.answers, [("q1".to_owned(), Bytes::from(r#"{"action":"accept"}"#))], "a result is an object");
        assert_eq!(Retry::of(&message(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#)), None);
    }

    #[test]
    fn notifications_and_requests_without_params_pass() {
        let note = r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert_eq!(text(&message(note), None), r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{}}}"#);
        let bare = r#"{"jsonrpc":"2.0","id":"a","method":"tools/list"}"#;
        assert_eq!(text(&message(bare), Some(3)), r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#);
    }

    #[test]
    fn a_repetition_is_known_by_what_it_asks_for() {
        let request = |method: &str, params: &str| {
            digest(&message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)))
        };
        let first = request("tools/call", r#"{"name":"t","arguments":{"a":1,"b":[{"x":1,"y":2}]},"_meta":{"progressToken":1}}"#);
        let again = r#"{ "arguments":{"b":[{"y":2, "x":1}],"a":1},"name":"t","inputResponses":{},"requestState":"s","_meta":{"progressToken":2}}"#;
        assert_eq!(first, request("tools/call", again));
        for (method, params) in [
            ("prompts/get", again.to_owned()),
            ("tools/call", again.replace("\"t\"", "\"u\"")),
            ("tools/call", again.replace("\"a\":1", "\"a\":2")),
            ("tools/call", again.replace("\"a\":1", "\"a\":1,\"c\":null")),
        ] {
            assert_ne!(first, request(method, &params), "{method} {params}");
        }
    }
}
