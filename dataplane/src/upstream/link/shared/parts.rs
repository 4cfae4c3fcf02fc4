//! What a hub has to know of a message, either way: what it is about, and where the parts are that are put in others' place. Everything
//! else stays byte for byte.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::transport::scan::ScanError;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer, Span, Str};

/// How deep a message may nest.
const MAX_DEPTH: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parts<'m> {
    pub method: Option<Cow<'m, str>>,
    pub id: Option<Span>,
    /// `params.progressToken`: what progress is about.
    pub about: Option<Span>,
    /// `params._meta.progressToken`: what progress shall be told under.
    pub token: Option<Span>,
    /// `params.requestId`.
    pub request_id: Option<Span>,
    /// `params.uri`.
    pub uri: Option<Cow<'m, str>>,
    /// `params.level`.
    pub level: Option<(Span, Cow<'m, str>)>,
    /// `params.protocolVersion`.
    pub version: Option<Cow<'m, str>>,
    /// `params.task`, with its name and a comma.
    pub task: Option<Span>,
    pub result: Option<Span>,
}

impl<'m> Parts<'m> {
    /// Strict where it looks: a message that could be read in two ways is an error.
    pub fn read(message: &'m [u8]) -> Result<Self, ScanError> {
        let text = std::str::from_utf8(message).map_err(|error| ScanError::NotUtf8 { at: error.valid_up_to() })?;
        let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
        lexer.skip_whitespace();
        let mut parts = Self::default();
        lexer.object(|lexer, key| {
            match &*key.text {
                "id" => parts.id = Some(lexer.value()?).filter(|span| lexer.slice(*span) != "null"),
                "method" => parts.method = string(lexer)?.map(|(_, text)| text),
                "result" => parts.result = Some(lexer.value()?),
                "params" if lexer.peek()? == Kind::Object => {
                    lexer.object(|lexer, key| parts.parameter(text, lexer, key))?;
                }
                _ => drop(lexer.value()?),
            }
            Ok(())
        })?;
        Ok(parts)
    }

    fn parameter(&mut self, text: &str, lexer: &mut Lexer<'m>, key: &Str<'m>) -> Result<(), ScanError> {
        match &*key.text {
            "progressToken" => self.about = Some(lexer.value()?),
            "requestId" => self.request_id = Some(lexer.value()?),
            "uri" => self.uri = string(lexer)?.map(|(_, text)| text),
            "level" => self.level = string(lexer)?,
            "protocolVersion" => self.version = string(lexer)?.map(|(_, text)| text),
            "task" => self.task = Some(member(text, key, lexer.value()?)),
            "_meta" if lexer.peek()? == Kind::Object => lexer.object(|lexer, key| {
                let value = lexer.value()?;
                if key.text == "progressToken" {
                    self.token = Some(value);
                }
                Ok(())
            })?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    }
}

/// A string, and where it is; none where there is something else.
pub(super) fn string<'m>(lexer: &mut Lexer<'m>) -> Result<Option<(Span, Cow<'m, str>)>, ScanError> {
    if lexer.peek()? != Kind::String {
        return lexer.value().map(|_other| None);
    }
    let start = lexer.pos();
    let text = lexer.string()?.text;
    Ok(Some((Span::new(start, lexer.pos()), text)))
}

/// A member of an object with the comma that would be left over without it.
pub(super) fn member(text: &str, key: &Str<'_>, value: Span) -> Span {
    let (start, end) = (key.span.range().start - 1, value.range().end);
    let after = text[end..].trim_ascii_start();
    if after.starts_with(',') {
        return Span::new(start, text.len() - after.len() + 1);
    }
    let before = text[..start].trim_ascii_end();
    Span::new(before.strip_suffix(',').map_or(start, str::len), end)
}

/// The messages of a line: one, or several (2025-03-26); none where it cannot be told.
pub(super) fn elements(line: &Bytes) -> Option<Vec<Bytes>> {
    if line.trim_ascii_start().first() != Some(&b'[') {
        return Some(vec![line.clone()]);
    }
    let elements: Vec<&RawValue> = serde_json::from_slice(line).ok()?;
    Some(elements.into_iter().map(|element| line.slice_ref(element.get().as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owned::{at, splice};

    #[test]
    fn parts_are_found_wherever_they_are() {
        let text = r#" {"id" : 18446744073709551616, "params":{"_meta":{"progressToken":"t"},"uri":"\u0061:b","level":"info"},"method":"m"}"#;
        let parts = Parts::read(text.as_bytes()).unwrap();
        assert_eq!(at(text.as_bytes(), parts.id), Some("18446744073709551616"));
        assert_eq!(at(text.as_bytes(), parts.token), Some("\"t\""));
        assert_eq!((parts.method.as_deref(), parts.uri.as_deref()), (Some("m"), Some("a:b")));
        let (span, level) = parts.level.unwrap();
        assert_eq!((at(text.as_bytes(), Some(span)), &*level), (Some("\"info\""), "info"));
        let other = Parts::read(br#"{"id":null,"method":7,"params":[],"result":{}}"#).unwrap();
        assert!(other.id.is_none() && other.method.is_none() && other.result.is_some());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_an_error() {
        for text in [r#"{"id":1,"id":2}"#, r#"{"id":1,"\u0069d":2}"#, r#"{"params":{"uri":"a","uri":"b"}}"#, "7", "{", "[]"] {
            assert!(Parts::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_member_is_cut_with_its_comma() {
        for (text, left) in [
            (r#"{"params":{"task":{"ttl":1},"name":"a"}}"#, r#"{"params":{"name":"a"}}"#),
            (r#"{"params":{"task" : {} , "name":"a"}}"#, r#"{"params":{ "name":"a"}}"#),
            (r#"{"params":{"name":"a" , "task":{}}}"#, r#"{"params":{"name":"a" }}"#),
            (r#"{"params":{ "task":null }}"#, r#"{"params":{  }}"#),
        ] {
            let cut = Parts::read(text.as_bytes()).unwrap().task.unwrap();
            assert_eq!(splice(text.as_bytes(), &[(cut, "")]), left, "{text}");
        }
    }

    #[test]
    fn a_line_may_have_several_messages() {
        let all = |text: &'static str| elements(&Bytes::from_static(text.as_bytes()));
        assert_eq!(all(r#" {"a":1}"#).unwrap(), [r#" {"a":1}"#]);
        assert_eq!(all(r#"[{"a":1}, {"b":2e400}]"#).unwrap(), [r#"{"a":1}"#, r#"{"b":2e400}"#]);
        assert_eq!(all("[1,"), None);
    }
}
