//! Requests of legacy clients as modern servers take them: each with everything in it that a session would have remembered
//! (2026-07-28 basic, `_meta`), and a number of the bridge's own for id. Every other byte stays.

use std::fmt::Write as _;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::tasks::EXTENSION;
use crate::owned::splice;
use crate::transport::Version;
use crate::transport::header::METHOD;
use crate::transport::scan::{Message, Span};

/// What the keys of the protocol itself begin with.
const RESERVED: &str = "io.modelcontextprotocol/";

/// Whom the bridge speaks for.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// As the client said it of itself.
    info: Value,
    capabilities: Map<String, Value>,
    /// What was agreed on with the client.
    pub version: Version,
    level: Option<String>,
    /// All of it, as members of `_meta`.
    meta: String,
    /// The same, of a client that knows tasks.
    meta_with_tasks: String,
}

impl Client {
    /// Reads an `initialize`. A version that is unknown or newer than what has sessions becomes the last one that has.
    pub fn of(opening: &Message) -> Self {
        let params: Value = opening
            .params_span()
            .map_or(Value::Null, |span| serde_json::from_slice(&opening.body()[span.range()]).unwrap_or_default());
        let asked = opening.initialize_version().and_then(Version::parse).unwrap_or(Version::V2025_11_25);
        let mut capabilities = params.get("capabilities").and_then(Value::as_object).cloned().unwrap_or_default();
        // Tasks of 2025-11-25 are others than those of today.
        capabilities.remove("tasks");
        let info = params.get("clientInfo").filter(|info| info.is_object()).cloned();
        let info = info.unwrap_or_else(|| json!({ "name": "mcpgw", "version": env!("CARGO_PKG_VERSION") }));
        let mut client = Self {
            info,
            capabilities,
            version: asked.min(Version::V2025_11_25),
            level: None,
            meta: String::new(),
            meta_with_tasks: String::new(),
        };
        client.compose();
        client
    }

    /// From now on log messages of this level and above are wanted.
    pub fn log_from(&mut self, level: String) {
        self.level = Some(level);
        self.compose();
    }

    /// Whether the client can be asked this.
    pub fn can(&self, method: &str, params: &Value) -> bool {
        match method {
            "elicitation/create" => self.capabilities.get("elicitation").is_some_and(|elicitation| {
                let of_url = params.get("mode").is_some_and(|mode| mode == "url");
                if of_url {
                    elicitation.get("url").is_some()
                } else {
                    elicitation.get("form").is_some() || elicitation.get("url").is_none()
                }
            }),
            "sampling/createMessage" => self.capabilities.contains_key("sampling"),
            "roots/list" => self.capabilities.contains_key("roots"),
            _ => false,
        }
    }

    fn compose(&mut self) {
        self.meta = self.composed(&self.capabilities);
        let mut capabilities = self.capabilities.clone();
        let extensions = capabilities.entry("extensions").or_insert_with(|| json!({}));
        extensions[EXTENSION] = json!({});
        self.meta_with_tasks = self.composed(&capabilities);
    }

    fn composed(&self, capabilities: &Map<String, Value>) -> String {
        let mut meta = format!(
            r#""{RESERVED}protocolVersion":"{}","{RESERVED}clientInfo":{},"{RESERVED}clientCapabilities":{}"#,
            Version::V2026_07_28,
            self.info,
            json!(capabilities),
        );
        if let Some(level) = &self.level {
            write!(meta, r#","{RESERVED}logLevel":"{level}""#).expect("a string takes everything");
        }
        meta
    }

    /// A request of the bridge's own.
    pub fn request(&self, number: u64, method: &str, params: &str) -> Bytes {
        request(number, method, &self.meta, params)
    }

    /// A request about a task.
    pub fn request_of_task(&self, number: u64, method: &str, params: &str) -> Bytes {
        request(number, method, &self.meta_with_tasks, params)
    }

    /// A request of the client's, under this number; with what the client was asked before, if it is sent again.
    pub fn speaks(&self, message: &Message, number: u64, answers: Option<&Answers>, knows_tasks: bool) -> Bytes {
        let own = if knows_tasks { &self.meta_with_tasks } else { &self.meta };
        let body = message.body();
        let digits = number.to_string();
        let mut members = answers.map(Answers::members).unwrap_or_default();
        let mut places: Vec<(Span, String)> = Vec::with_capacity(3);
        let mut foreign = None;
        if let Some(meta) = message.meta_span() {
            let text = &body[meta.range()];
            if contains(text, RESERVED) {
                foreign = Some((meta, instead_of(text, own)));
            } else {
                places.push((after_brace(meta), with_comma(own.clone(), is_empty(text))));
            }
        } else {
            let comma = if members.is_empty() { "" } else { "," };
            members = format!(r#"{members}{comma}"_meta":{{{own}}}"#);
        }
        match message.params_span() {
            Some(params) if !members.is_empty() => {
                places.push((after_brace(params), with_comma(members, is_empty(&body[params.range()]))));
            }
            Some(_) => {}
            None => {
                let end = message.span().range().end - 1;
                places.push((Span::new(end, end), format!(r#","params":{{{members}}}"#)));
            }
        }
        places.extend(foreign);
        places.extend(message.id_span().map(|id| (id, digits)));
        places.sort_unstable_by_key(|(span, _)| span.range().start);
        let places: Vec<_> = places.iter().map(|(span, text)| (*span, text.as_str())).collect();
        splice::splice(body, &places)
    }
}

fn request(number: u64, method: &str, meta: &str, params: &str) -> Bytes {
    let comma = if params.is_empty() { "" } else { "," };
    format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{{"_meta":{{{meta}}}{comma}{params}}}}}"#).into()
}

/// A `_meta` in which the client's own words on behalf of the protocol are replaced.
fn instead_of(meta: &[u8], own: &str) -> String {
    let mut members: Map<String, Value> = serde_json::from_slice(meta).unwrap_or_default();
    members.retain(|key, _| !key.starts_with(RESERVED));
    let rest = Value::Object(members).to_string();
    format!("{{{}{}", with_comma(own.to_owned(), rest == "{}"), &rest[1..])
}

/// What a request is sent again with.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// By the server's keys.
    pub responses: Vec<(String, Box<RawValue>)>,
    /// As the server wrote it, quotes and all.
    pub state: Option<String>,
}

impl Answers {
    /// As members of `params`.
    pub fn members(&self) -> String {
        let mut members = String::new();
        if !self.responses.is_empty() {
            members.push_str(r#""inputResponses":{"#);
            for (place, (key, response)) in self.responses.iter().enumerate() {
                let comma = if place > 0 { "," } else { "" };
                write!(members, "{comma}{}:{}", json!(key), response.get()).expect("a string takes everything");
            }
            members.push('}');
        }
        if let Some(state) = &self.state {
            let comma = if members.is_empty() { "" } else { "," };
            write!(members, r#"{comma}"requestState":{state}"#).expect("a string takes everything");
        }
        members
    }
}

/// What the transport repeats of a request of the bridge's own (2026-07-28 Streamable HTTP, request headers).
pub(super) fn mirrored_method(method: &'static str) -> Box<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(METHOD, http::HeaderValue::from_static(method));
    Box::new(headers)
}

fn after_brace(object: Span) -> Span {
    let start = object.range().start + 1;
    Span::new(start, start)
}

fn is_empty(object: &[u8]) -> bool {
    object.get(1..object.len() - 1).is_none_or(|inner| inner.trim_ascii().is_empty())
}

fn with_comma(mut members: String, last: bool) -> String {
    if !last {
        members.push(',');
    }
    members
}

fn contains(text: &[u8], wanted: &str) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.contains(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::scan::{Limits, scan};

    fn message(text: &str) -> Message {
        scan(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap().one().unwrap().clone()
    }

    fn client() -> Client {
        Client::of(&message(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",
               "capabilities":{"elicitation":{},"tasks":{"list":{}}},"clientInfo":{"name":"c","version":"1"}}}"#,
        ))
    }

    fn spoken(text: &str) -> Value {
        let bytes = client().speaks(&message(text), 7, None, false);
        scan(&bytes, &Limits::default()).expect("it is a strict message");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn every_request_says_who_asks() {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
        });
        let cases = [
            (r#"{"jsonrpc":"2.0","id":"x","method":"tools/list"}"#, json!({})),
            (r#" {"jsonrpc":"2.0","method":"tools/list","params":{ },"id":"x"} "#, json!({})),
            (r#"{"id":3,"jsonrpc":"2.0","method":"tools/list","params":{"cursor":"c"}}"#, json!({"cursor": "c"})),
            (r#"{"id":3,"jsonrpc":"2.0","method":"tools/list","params":{"_meta":{}}}"#, json!({})),
        ];
        for (text, mut params) in cases {
            params["_meta"] = meta.clone();
            let spoken = spoken(text);
            assert_eq!(spoken, json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": params}), "{text}");
        }
    }

    #[test]
    fn what_the_client_says_for_itself_stays_and_what_it_says_for_the_protocol_does_not() {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":
            {"progressToken":4,"traceparent":"00-1","io.modelcontextprotocol/logLevel":"debug"}}}"#;
        let spoken = spoken(text);
        let meta = &spoken["params"]["_meta"];
        assert_eq!((&meta["progressToken"], &meta["traceparent"]), (&json!(4), &json!("00-1")));
        assert_eq!(meta.get("io.modelcontextprotocol/logLevel"), None, "nobody set a level");
        let big = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"n":123456789012345678901234567890}}}"#;
        let bytes = client().speaks(&message(big), 7, None, false);
        assert!(contains(&bytes, r#"{"n":123456789012345678901234567890}"#), "the rest is byte for byte");
    }

    #[test]
    fn a_request_is_sent_again_with_what_was_answered() {
        let responses = vec![("k\"1".to_owned(), RawValue::from_string(r#"{"action":"accept"}"#.into()).unwrap())];
        let answers = Answers { responses, state: Some(r#""opaque""#.into()) };
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":1},"name":"t"}}"#,
        ] {
            let bytes = client().speaks(&message(text), 9, Some(&answers), false);
            scan(&bytes, &Limits::default()).expect("it is a strict message");
            let spoken: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(spoken["params"]["inputResponses"], json!({"k\"1": {"action": "accept"}}));
            assert_eq!(spoken["params"]["requestState"], "opaque");
            assert_eq!(spoken["params"]["name"], "t");
        }
    }
}
