//! The strict scan: one pass over a body decides whether every parser behind the gateway reads what the gateway read.
//! Owns syntax, duplicate and look-alike keys, and the shape of the JSON-RPC envelope; never what a method means.
//! Called by the transport codecs, once per body; the original bytes travel on.

mod error;
pub(crate) mod keys;
pub(crate) mod lexer;
mod message;
#[cfg(test)]
mod properties;
mod strings;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use bytestring::ByteString;

pub use error::ScanError;
pub use lexer::Span;
pub use message::{Kind, Message, Reference, Scanned};

use lexer::{Duplicates, Kind as Json, Lexer, Str};
use message::{Fields, Parts, ReferenceText, Text};

/// What the scan accepts at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the body.
    pub bytes: usize,
    /// Nesting of objects and arrays.
    pub depth: usize,
    /// Messages in a batch.
    pub batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 20, depth: 64, batch: 100 }
    }
}

/// Scans a body: UTF-8 without BOM, strict JSON, no key twice, no key that only looks like a protocol key, and the
/// envelope of JSON-RPC 2.0 with MCP's narrowing (ids are strings or integers, `params` is an object).
pub fn scan(body: &Bytes, limits: &Limits) -> Result<Scanned, ScanError> {
    if body.len() > limits.bytes {
        return Err(ScanError::TooLarge { limit: limits.bytes });
    }
    if body.starts_with(b"\xEF\xBB\xBF") {
        return Err(ScanError::ByteOrderMark);
    }
    let body = ByteString::try_from(body.clone()).map_err(|error| ScanError::NotUtf8 { at: error.valid_up_to() })?;
    let text = &*body;
    let mut lexer = Lexer::new(text, limits.depth, Duplicates::Everywhere);
    lexer.skip_whitespace();
    if lexer.pos() == text.len() {
        return Err(ScanError::Empty);
    }
    let scanned = match lexer.peek()? {
        Json::Array => Scanned::Batch(batch(&mut lexer, &body, limits)?),
        _ => Scanned::One(Message { body: body.clone(), parts: message(&mut lexer)? }),
    };
    lexer.skip_whitespace();
    if lexer.pos() < text.len() {
        return Err(ScanError::TrailingBytes { at: lexer.pos() });
    }
    Ok(scanned)
}

fn batch(lexer: &mut Lexer<'_>, body: &ByteString, limits: &Limits) -> Result<Vec<Message>, ScanError> {
    let mut messages = Vec::new();
    lexer.array(|lexer| {
        if messages.len() == limits.batch {
            return Err(ScanError::BatchTooLong { limit: limits.batch });
        }
        messages.push(Message { body: body.clone(), parts: message(lexer)? });
        Ok(())
    })?;
    if messages.is_empty() { Err(ScanError::EmptyBatch) } else { Ok(messages) }
}

/// The members of an envelope, as found.
#[derive(Default)]
struct Envelope {
    version: bool,
    id: Option<Id>,
    method: Option<Text>,
    params: Option<Span>,
    result: bool,
    error: bool,
    fields: Fields,
}

enum Id {
    Null(usize),
    Value(Span),
}

fn message(lexer: &mut Lexer<'_>) -> Result<Parts, ScanError> {
    let start = lexer.pos();
    if lexer.peek()? != Json::Object {
        return Err(ScanError::NotAMessage { at: start });
    }
    let mut envelope = Envelope::default();
    lexer.object(|lexer, key| {
        keys::check(key, keys::ENVELOPE)?;
        member(&mut envelope, lexer, &key.text)
    })?;
    classify(envelope, Span::new(start, lexer.pos()))
}

fn member(envelope: &mut Envelope, lexer: &mut Lexer<'_>, key: &str) -> Result<(), ScanError> {
    match key {
        "jsonrpc" => {
            let version = string(lexer, "jsonrpc", "the string \"2.0\"")?;
            if version.text != "2.0" {
                return Err(ScanError::Member {
                    member: "jsonrpc",
                    at: version.span.start as usize - 1,
                    expected: "the string \"2.0\"",
                });
            }
            envelope.version = true;
        }
        "id" => envelope.id = Some(id(lexer)?),
        "method" => envelope.method = Some(Text::of(&decisive(lexer, "method")?)),
        "params" => (envelope.params, envelope.fields) = params(lexer)?,
        "result" => {
            lexer.value()?;
            envelope.result = true;
        }
        "error" => {
            if lexer.peek()? != Json::Object {
                return Err(ScanError::Member { member: "error", at: lexer.pos(), expected: "an object" });
            }
            lexer.value()?;
            envelope.error = true;
        }
        _ => drop(lexer.value()?),
    }
    Ok(())
}

fn classify(envelope: Envelope, span: Span) -> Result<Parts, ScanError> {
    let at = span.start as usize;
    let Envelope { version, id, method, params, result, error, fields } = envelope;
    if !version {
        return Err(ScanError::Missing { member: "jsonrpc", at });
    }
    let kind = match (&method, result, error) {
        (Some(_), false, false) if id.is_some() => Kind::Request,
        (Some(_), false, false) => Kind::Notification,
        (None, true, false) => Kind::Response,
        (None, false, true) => Kind::ErrorResponse,
        (None, false, false) => return Err(ScanError::Missing { member: "method", at }),
        _ => return Err(ScanError::Ambiguous { at }),
    };
    let id = match (id, kind) {
        (Some(Id::Value(id)), _) => Some(id),
        // Only an answer to something unreadable has no id (JSON-RPC 2.0 section 5).
        (Some(Id::Null(_)) | None, Kind::ErrorResponse) | (None, Kind::Notification) => None,
        (Some(Id::Null(at)), _) => return Err(ScanError::Member { member: "id", at, expected: ID }),
        (None, _) => return Err(ScanError::Missing { member: "id", at }),
    };
    Ok(Parts { kind, span, id, method, params, fields })
}

const ID: &str = "a string or an integer";

fn id(lexer: &mut Lexer<'_>) -> Result<Id, ScanError> {
    let at = lexer.pos();
    let wrong = ScanError::Member { member: "id", at, expected: ID };
    match lexer.peek()? {
        Json::String => lexer.value().map(Id::Value),
        Json::Number => {
            let (span, integer) = lexer.number()?;
            // `-0` is an integer to some parsers and a float to others.
            let negative_zero = span.len() == 2 && lexer.slice(span) == "-0";
            if integer && !negative_zero { Ok(Id::Value(span)) } else { Err(wrong) }
        }
        Json::Null => lexer.value().map(|_| Id::Null(at)),
        Json::Object | Json::Array | Json::Bool => Err(wrong),
    }
}

fn params(lexer: &mut Lexer<'_>) -> Result<(Option<Span>, Fields), ScanError> {
    let at = lexer.pos();
    match lexer.peek()? {
        Json::Null => return lexer.value().map(|_| (None, Fields::default())),
        Json::Object => {}
        _ => return Err(ScanError::Member { member: "params", at, expected: "an object" }),
    }
    let mut fields = Fields::default();
    lexer.object(|lexer, key| {
        keys::check(key, keys::PARAMS)?;
        match key.text.as_ref() {
            "name" => fields.name = optional(lexer)?,
            "uri" => fields.uri = optional(lexer)?,
            "taskId" => fields.task_id = optional(lexer)?,
            "protocolVersion" => fields.initialize_version = optional(lexer)?,
            "arguments" => fields.arguments = Some(lexer.value()?),
            "cursor" => fields.cursor = Some(lexer.value()?),
            "requestId" => fields.request_id = Some(lexer.value()?),
            "requestState" | "inputResponses" => {
                lexer.value()?;
                fields.retry = true;
            }
            "ref" => fields.reference = reference(lexer)?,
            "notifications" => fields.subscriptions = subscriptions(lexer)?,
            "_meta" => meta(lexer, &mut fields)?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    Ok((Some(Span::new(at, lexer.pos())), fields))
}

fn meta(lexer: &mut Lexer<'_>, fields: &mut Fields) -> Result<(), ScanError> {
    let at = lexer.pos();
    match lexer.peek()? {
        Json::Null => return lexer.value().map(drop),
        Json::Object => {}
        _ => return Err(ScanError::Member { member: "_meta", at, expected: "an object" }),
    }
    lexer.object(|lexer, key| {
        keys::check(key, keys::META)?;
        match key.text.as_ref() {
            "io.modelcontextprotocol/protocolVersion" => fields.meta_version = optional(lexer)?,
            "io.modelcontextprotocol/clientInfo" => {
                lexer.value()?;
                fields.meta_client_info = true;
            }
            "io.modelcontextprotocol/clientCapabilities" => {
                let object = lexer.peek()? == Json::Object;
                fields.meta_capabilities = Some(lexer.value()?).filter(|_| object);
            }
            "progressToken" => fields.progress_token = Some(lexer.value()?),
            "traceparent" => fields.traceparent = optional(lexer)?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    fields.meta = Some(Span::new(at, lexer.pos()));
    Ok(())
}

fn reference(lexer: &mut Lexer<'_>) -> Result<Option<ReferenceText>, ScanError> {
    if lexer.peek()? != Json::Object {
        return lexer.value().map(|_| None);
    }
    let (mut of, mut name, mut uri) = (None, None, None);
    lexer.object(|lexer, key| {
        keys::check(key, keys::REFERENCE)?;
        match key.text.as_ref() {
            "type" if lexer.peek()? == Json::String => of = Some(lexer.string()?.text),
            "name" => name = optional(lexer)?,
            "uri" => uri = optional(lexer)?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    Ok(match of.as_deref() {
        Some("ref/prompt") => name.map(ReferenceText::Prompt),
        Some("ref/resource") => uri.map(ReferenceText::Resource),
        _ => None,
    })
}

fn subscriptions(lexer: &mut Lexer<'_>) -> Result<Vec<Text>, ScanError> {
    let mut uris = Vec::new();
    if lexer.peek()? != Json::Object {
        return lexer.value().map(|_| uris);
    }
    lexer.object(|lexer, key| {
        keys::check(key, keys::LISTEN)?;
        if key.text != "resourceSubscriptions" {
            return lexer.value().map(drop);
        }
        if lexer.peek()? != Json::Array {
            return Err(ScanError::Member { member: "resourceSubscriptions", at: lexer.pos(), expected: "an array of strings" });
        }
        lexer.array(|lexer| {
            uris.push(Text::of(&decisive(lexer, "resourceSubscriptions")?));
            Ok(())
        })
    })?;
    Ok(uris)
}

fn string<'a>(lexer: &mut Lexer<'a>, member: &'static str, expected: &'static str) -> Result<Str<'a>, ScanError> {
    if lexer.peek()? != Json::String {
        return Err(ScanError::Member { member, at: lexer.pos(), expected });
    }
    lexer.string()
}

/// A string that decisions are made on.
fn decisive<'a>(lexer: &mut Lexer<'a>, member: &'static str) -> Result<Str<'a>, ScanError> {
    let string = string(lexer, member, "a string")?;
    if memchr::memchr(0, string.text.as_bytes()).is_some() {
        return Err(ScanError::Nul { at: string.span.start as usize - 1 });
    }
    Ok(string)
}

/// A member whose meaning depends on the method: its text if it is a string, and the method's own check otherwise.
fn optional(lexer: &mut Lexer<'_>) -> Result<Option<Text>, ScanError> {
    if lexer.peek()? == Json::String { Ok(Some(Text::of(&decisive(lexer, "params")?))) } else { lexer.value().map(|_| None) }
}
