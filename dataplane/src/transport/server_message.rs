//! What a server's message says of itself: a strict look at the top level, no deeper than decisions and records need.
//! Strict, because a client may read more leniently than we do: a request to the client that we overlooked would
//! escape the rules on server methods. Used by the relay on JSON answers and on the data of stream events.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::scan::ScanError;
use super::scan::keys;
use super::scan::lexer::{Duplicates, Kind as Json, Lexer, Span};

#[cfg(test)]
mod tests;

/// How deep a server's message may nest; the same as most JSON parsers.
const MAX_DEPTH: usize = 128;

/// One JSON-RPC message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage<'m> {
    /// A request to the client (legacy): judge its method.
    Request {
        /// As written, quotes and all.
        id: &'m str,
        /// What the client is asked.
        method: Cow<'m, str>,
    },
    /// A notification.
    Notification {
        /// What the client is told.
        method: Cow<'m, str>,
    },
    /// A result.
    Result {
        /// As written, quotes and all.
        id: &'m str,
        /// What of the result matters here.
        facts: Facts<'m>,
    },
    /// An error.
    Error {
        /// As written; `None` if it is absent or null.
        id: Option<&'m str>,
        /// `error.code`; 0 where it is no integer in range.
        code: i32,
        /// `error.message` as written, quotes and all; `None` if it is no string.
        words: Option<&'m str>,
    },
}

/// What of a result matters to decisions and records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts<'m> {
    /// `isError: true`: a tool that failed.
    pub is_error: bool,
    /// `content` as written, which is what a tool that failed says.
    pub content: Option<&'m str>,
    /// `resultType` (modern).
    pub result_type: Option<Cow<'m, str>>,
    /// `protocolVersion` of an answer to `initialize`.
    pub protocol_version: Option<Cow<'m, str>>,
    /// Methods of the `inputRequests` of an `input_required` result (modern): judge each as a server method.
    pub input_methods: Vec<Cow<'m, str>>,
}

impl<'m> ServerMessage<'m> {
    /// Whether this ends a call.
    pub fn is_response(&self) -> bool {
        matches!(self, Self::Result { .. } | Self::Error { .. })
    }

    /// What this asks of the client: the methods to judge, with the id to refuse where it is a request of its own.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        let (own, nested): (Option<&str>, &[Cow<'m, str>]) = match self {
            Self::Request { method, .. } => (Some(method), &[]),
            Self::Result { facts, .. } => (None, &facts.input_methods),
            Self::Notification { .. } | Self::Error { .. } => (None, &[]),
        };
        own.into_iter().chain(nested.iter().map(Cow::as_ref))
    }
}

/// The messages of one payload: one, or in 2025-03-26 several.
pub type ServerMessages<'m> = SmallVec<[ServerMessage<'m>; 1]>;

/// Reads a payload. An error means that clients could read it differently, or not at all.
pub fn read(payload: &[u8]) -> Result<ServerMessages<'_>, ScanError> {
    let text = std::str::from_utf8(payload).map_err(|error| ScanError::NotUtf8 { at: error.valid_up_to() })?;
    let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
    lexer.skip_whitespace();
    if lexer.pos() == text.len() {
        return Err(ScanError::Empty);
    }
    let mut messages = ServerMessages::new();
    match lexer.peek()? {
        Json::Array => lexer.array(|lexer| {
            messages.push(message(lexer)?);
            Ok(())
        })?,
        _ => messages.push(message(&mut lexer)?),
    }
    lexer.skip_whitespace();
    if lexer.pos() < text.len() {
        return Err(ScanError::TrailingBytes { at: lexer.pos() });
    }
    Ok(messages)
}

#[derive(Default)]
struct Envelope<'m> {
    id: Option<&'m str>,
    method: Option<Cow<'m, str>>,
    result: Option<Facts<'m>>,
    error: Option<(i32, Option<&'m str>)>,
}

fn message<'m>(lexer: &mut Lexer<'m>) -> Result<ServerMessage<'m>, ScanError> {
    let at = lexer.pos();
    if lexer.peek()? != Json::Object {
        return Err(ScanError::NotAMessage { at });
    }
    let mut envelope = Envelope::default();
    lexer.object(|lexer, key| {
        keys::check(key, keys::ENVELOPE)?;
        match key.text.as_ref() {
            "id" => envelope.id = Some(raw(lexer)?).filter(|id| *id != "null"),
            "method" if lexer.peek()? == Json::String => envelope.method = Some(lexer.string()?.text),
            "method" => return Err(ScanError::Member { member: "method", at: lexer.pos(), expected: "a string" }),
            "result" => envelope.result = Some(result(lexer)?),
            "error" => envelope.error = Some(error(lexer)?),
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    match envelope {
        Envelope { id: Some(id), method: Some(method), result: None, error: None } => Ok(ServerMessage::Request { id, method }),
        Envelope { id: None, method: Some(method), result: None, error: None } => Ok(ServerMessage::Notification { method }),
        Envelope { id: Some(id), method: None, result: Some(facts), error: None } => Ok(ServerMessage::Result { id, facts }),
        Envelope { id, method: None, result: None, error: Some((code, words)) } => Ok(ServerMessage::Error { id, code, words }),
        Envelope { id: None, method: None, result: Some(_), error: None } => Err(ScanError::Missing { member: "id", at }),
        Envelope { method: None, result: None, error: None, .. } => Err(ScanError::Missing { member: "method", at }),
        _ => Err(ScanError::Ambiguous { at }),
    }
}

fn raw<'m>(lexer: &mut Lexer<'m>) -> Result<&'m str, ScanError> {
    let span = lexer.value()?;
    Ok(lexer.slice(span))
}

fn result<'m>(lexer: &mut Lexer<'m>) -> Result<Facts<'m>, ScanError> {
    let mut facts = Facts::default();
    if lexer.peek()? != Json::Object {
        return lexer.value().map(|_| facts);
    }
    lexer.object(|lexer, key| {
        match key.text.as_ref() {
            "isError" => facts.is_error = raw(lexer)? == "true",
            "content" => facts.content = Some(raw(lexer)?),
            "protocolVersion" if lexer.peek()? == Json::String => facts.protocol_version = Some(lexer.string()?.text),
            "resultType" if lexer.peek()? == Json::String => facts.result_type = Some(lexer.string()?.text),
            "inputRequests" if lexer.peek()? == Json::Object => facts.input_methods = input_methods(lexer)?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    Ok(facts)
}

/// The methods in `inputRequests`, an object of requests by key. One without a method cannot be judged.
fn input_methods<'m>(lexer: &mut Lexer<'m>) -> Result<Vec<Cow<'m, str>>, ScanError> {
    const METHOD: &[&str] = &["method", "params"];
    let mut methods = Vec::new();
    lexer.object(|lexer, _key| {
        let at = lexer.pos();
        let mut method = None;
        if lexer.peek()? != Json::Object {
            return Err(ScanError::Member { member: "inputRequests", at, expected: "an object of requests" });
        }
        lexer.object(|lexer, key| {
            keys::check(key, METHOD)?;
            if key.text == "method" && lexer.peek()? == Json::String {
                method = Some(lexer.string()?.text);
                return Ok(());
            }
            lexer.value().map(drop)
        })?;
        methods.push(method.ok_or(ScanError::Missing { member: "method", at })?);
        Ok(())
    })?;
    Ok(methods)
}

/// Code and message of an error.
fn error<'m>(lexer: &mut Lexer<'m>) -> Result<(i32, Option<&'m str>), ScanError> {
    let (mut code, mut words) = (0, None);
    if lexer.peek()? != Json::Object {
        return lexer.value().map(|_| (code, words));
    }
    lexer.object(|lexer, key| {
        let span: Span = lexer.value()?;
        let value = lexer.slice(span);
        match key.text.as_ref() {
            "code" => code = value.parse().unwrap_or(0),
            "message" => words = value.starts_with('"').then_some(value),
            _ => {}
        }
        Ok(())
    })?;
    Ok((code, words))
}
