//! A legacy server's answer in modern words: the client's id, the members that every result has now, the codes that changed.

use bytes::Bytes;

use super::{MAX_DEPTH, codes};
use crate::owned::splice;
use crate::transport::scan::ScanError;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer, Span};

/// The key of who answers.
pub(super) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// What an answer is dressed in.
#[derive(Debug, Clone, Copy)]
pub struct Dress<'a> {
    /// The request's id, as the client wrote it.
    pub id: &'a str,
    /// The method that is answered.
    pub method: &'a str,
    /// Who answers, as JSON.
    pub server_info: Option<&'a str>,
}

/// Where the parts of an answer are.
#[derive(Default)]
struct Parts {
    /// After the opening brace.
    start: usize,
    id: Option<Span>,
    code: Option<Span>,
    result: Option<Members>,
}

/// Where the parts of an object are.
#[derive(Default)]
struct Members {
    /// After the opening brace.
    start: usize,
    is_empty: bool,
    result_type: Option<Span>,
    ttl: Option<Span>,
    scope: Option<Span>,
    meta: Option<Meta>,
}

enum Meta {
    /// With a place for another member.
    Object {
        start: usize,
        is_empty: bool,
        has_info: bool,
    },
    Other(Span),
}

/// The answer as a modern client expects it; `None`: it cannot be read.
pub fn translated(message: &Bytes, dress: &Dress<'_>) -> Option<Bytes> {
    let text = std::str::from_utf8(message).ok()?;
    let parts = parts(text).ok()?;
    let mut places: Vec<(Span, String)> = Vec::with_capacity(6);
    match parts.id {
        Some(id) => places.push((id, dress.id.to_owned())),
        // An error without an id: the client would not know what it is about.
        None => places.push((Span::new(parts.start, parts.start), format!(r#""id":{},"#, dress.id))),
    }
    if let Some(code) = parts.code {
        let was = text[code.range()].parse().unwrap_or(0);
        places.push((code, codes::modern(was).to_string()));
    }
    if let Some(result) = &parts.result {
        dressed(result, dress, &mut places);
    }
    places.sort_by_key(|(span, _)| span.start);
    let places: Vec<_> = places.iter().map(|(span, text)| (*span, &**text)).collect();
    Some(splice::splice(message, &places))
}

/// What a result lacks.
fn dressed(result: &Members, dress: &Dress<'_>, places: &mut Vec<(Span, String)>) {
    let mut missing = Vec::with_capacity(4);
    let mut member = |found: Option<Span>, key: &str, value: &str| match found {
        Some(span) => places.push((span, value.to_owned())),
        None => missing.push(format!(r#""{key}":{value}"#)),
    };
    member(result.result_type, "resultType", r#""complete""#);
    if is_cacheable(dress.method) {
        // Nothing says for how long, or that the next session would be told the same.
        member(result.ttl, "ttlMs", "0");
        member(result.scope, "cacheScope", r#""private""#);
    }
    if let Some(info) = dress.server_info {
        let info = format!(r#""{SERVER_INFO}":{info}"#);
        match result.meta {
            None => missing.push(format!(r#""_meta":{{{info}}}"#)),
            Some(Meta::Object { has_info: true, .. }) => {}
            Some(Meta::Object { start, is_empty, .. }) => places.push((Span::new(start, start), before(info, is_empty))),
            Some(Meta::Other(span)) => places.push((span, format!("{{{info}}}"))),
        }
    }
    if !missing.is_empty() {
        places.push((Span::new(result.start, result.start), before(missing.join(","), result.is_empty)));
    }
}

/// With a comma where something follows.
fn before(mut members: String, is_last: bool) -> String {
    if !is_last {
        members.push(',');
    }
    members
}

/// Results that say how long they hold (2026-07-28, caching).
fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read" | "server/discover"
    )
}

fn parts(text: &str) -> Result<Parts, ScanError> {
    let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
    let mut parts = Parts::default();
    lexer.skip_whitespace();
    parts.start = lexer.pos() + 1;
    lexer.object(|lexer, key| {
        match (&*key.text, lexer.peek()?) {
            ("id", _) => parts.id = Some(lexer.value()?),
            ("result", Kind::Object) => parts.result = Some(members(lexer)?),
            ("error", Kind::Object) => lexer.object(|lexer, key| {
                let value = lexer.value()?;
                parts.code = if key.text == "code" { Some(value) } else { parts.code };
                Ok(())
            })?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    Ok(parts)
}

fn members(lexer: &mut Lexer<'_>) -> Result<Members, ScanError> {
    let mut found = Members { start: lexer.pos() + 1, is_empty: true, ..Members::default() };
    lexer.object(|lexer, key| {
        found.is_empty = false;
        match (&*key.text, lexer.peek()?) {
            ("resultType", _) => found.result_type = Some(lexer.value()?),
            ("ttlMs", _) => found.ttl = Some(lexer.value()?),
            ("cacheScope", _) => found.scope = Some(lexer.value()?),
            ("_meta", Kind::Object) => found.meta = Some(meta(lexer)?),
            ("_meta", _) => found.meta = Some(Meta::Other(lexer.value()?)),
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    Ok(found)
}

fn meta(lexer: &mut Lexer<'_>) -> Result<Meta, ScanError> {
    let (start, mut is_empty, mut has_info) = (lexer.pos() + 1, true, false);
    lexer.object(|lexer, key| {
        is_empty = false;
        has_info |= key.text == SERVER_INFO;
        lexer.value().map(drop)
    })?;
    Ok(Meta::Object { start, is_empty, has_info })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dressed(method: &str, message: &str) -> String {
        let dress = Dress { id: "\"q\"", method, server_info: Some(r#"{"name":"s"}"#) };
        let bytes = translated(&message.to_owned().into(), &dress).unwrap();
        let _json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_result_gets_what_it_lacks_and_keeps_every_other_byte() {
        let cases = [
            (
                "tools/call",
                r#"{"jsonrpc":"2.0", "id":7,"result":{ "content":[ 1.0 ]} }"#,
                r#"{"jsonrpc":"2.0", "id":"q","result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}, "content":[ 1.0 ]} }"#,
            ),
            (
                "resources/read",
                r#"{"id":7,"result":{},"jsonrpc":"2.0"}"#,
                r#"{"id":"q","result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}},"jsonrpc":"2.0"}"#,
            ),
            (
                "tools/list",
                r#"{"id":"7","result":{"tools":[],"cacheScope":"public","_meta":{"a":1}}}"#,
                r#"{"id":"q","result":{"resultType":"complete","ttlMs":0,"tools":[],"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"},"a":1}}}"#,
            ),
            (
                "prompts/get",
                r#"{"id":7,"result":{"resultType":"task","ttlMs":9,"_meta":null}}"#,
                r#"{"id":"q","result":{"resultType":"complete","ttlMs":9,"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}}"#,
            ),
            (
                "tools/call",
                r#"{"id":7,"result":{"_meta":{ },"resultType":"complete"}}"#,
                r#"{"id":"q","result":{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"} },"resultType":"complete"}}"#,
            ),
        ];
        for (method, message, expected) in cases {
            assert_eq!(dressed(method, message), expected);
        }
    }

    #[test]
    fn errors_keep_their_words_and_lose_codes_that_are_no_more() {
        let gone = r#"{"id":7,"error":{"code":-32002,"message":"gone","data":{"code":-32002}}}"#;
        assert_eq!(
            dressed("resources/read", gone),
            r#"{"id":"q","error":{"code":-32602,"message":"gone","data":{"code":-32002}}}"#
        );
        let nameless = r#"{"jsonrpc":"2.0","error":{"message":"x","code":-32601}}"#;
        assert_eq!(dressed("x", nameless), r#"{"id":"q","jsonrpc":"2.0","error":{"message":"x","code":-32601}}"#);
        assert_eq!(dressed("x", r#"{"id":null,"error":{"code":1}}"#), r#"{"id":"q","error":{"code":1}}"#);
        assert!(translated(&"[]".into(), &Dress { id: "1", method: "x", server_info: None }).is_none());
    }
}
