//! Puts one value of a message in another's place: ids and progress tokens, as JSON text. Everything else stays byte for byte.

use bytes::{Bytes, BytesMut};

use crate::transport::scan::ScanError;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer, Span};

/// How deep a message may nest.
const MAX_DEPTH: usize = 128;

/// `message` with other text at the given places, which are in order and do not overlap.
pub fn splice(message: &[u8], places: &[(Span, &str)]) -> Bytes {
    let longer: usize = places.iter().map(|(_, text)| text.len()).sum();
    let mut out = BytesMut::with_capacity(message.len() + longer);
    let mut from = 0;
    for (span, text) in places {
        let range = span.range();
        out.extend_from_slice(&message[from..range.start]);
        out.extend_from_slice(text.as_bytes());
        from = range.end;
    }
    out.extend_from_slice(&message[from..]);
    out.freeze()
}

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// What of a server's message the session looks at, beside what [`crate::transport::server_message`] says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub id: Option<Span>,
    /// `params.progressToken`.
    pub progress_token: Option<Span>,
    /// `params.requestId`.
    pub request_id: Option<Span>,
    /// `params.uri`.
    pub uri: Option<Span>,
    /// `_meta.io.modelcontextprotocol/subscriptionId` of `params` or of `result`.
    pub subscription: Option<Span>,
}

/// Where the parts of a server's message are that a session puts others in place of.
pub fn places(message: &str) -> Result<Places, ScanError> {
    let mut lexer = Lexer::new(message, MAX_DEPTH, Duplicates::WhereRead);
    let mut places = Places::default();
    lexer.skip_whitespace();
    if lexer.peek()? != Kind::Object {
        return Ok(places);
    }
    lexer.object(|lexer, key| {
        match &*key.text {
            "id" => places.id = Some(lexer.value()?),
            "params" if lexer.peek()? == Kind::Object => lexer.object(|lexer, key| {
                let at = match &*key.text {
                    "progressToken" => &mut places.progress_token,
                    "requestId" => &mut places.request_id,
                    "uri" => &mut places.uri,
                    "_meta" if lexer.peek()? == Kind::Object => return meta(lexer, &mut places.subscription),
                    _ => return lexer.value().map(drop),
                };
                *at = Some(lexer.value()?);
                Ok(())
            })?,
            "result" if lexer.peek()? == Kind::Object => lexer.object(|lexer, key| match &*key.text {
                "_meta" if lexer.peek()? == Kind::Object => meta(lexer, &mut places.subscription),
                _ => lexer.value().map(drop),
            })?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    Ok(places)
}

fn meta(lexer: &mut Lexer<'_>, subscription: &mut Option<Span>) -> Result<(), ScanError> {
    lexer.object(|lexer, key| {
        let value = lexer.value()?;
        *subscription = if key.text == SUBSCRIPTION { Some(value) } else { *subscription };
        Ok(())
    })
}

/// The number that a server's id or token stands for: some servers answer numbers as strings.
pub fn number(text: &str) -> Option<u64> {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).parse().ok()
}

/// The text at a place.
pub fn at(message: &[u8], span: Option<Span>) -> Option<&str> {
    std::str::from_utf8(&message[span?.range()]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_replaced_and_nothing_else_changes() {
        let message = r#" {"id" : "x", "params":{ "progressToken":7 ,"progress":1,"more":{"progressToken":8}},"jsonrpc":"2.0"} "#;
        let found = places(message).unwrap();
        assert_eq!((at(message.as_bytes(), found.id), at(message.as_bytes(), found.progress_token)), (Some("\"x\""), Some("7")));
        let changed = splice(message.as_bytes(), &[(found.id.unwrap(), "1"), (found.progress_token.unwrap(), "\"t\"")]);
        let expected =
            r#" {"id" : 1, "params":{ "progressToken":"t" ,"progress":1,"more":{"progressToken":8}},"jsonrpc":"2.0"} "#;
        assert_eq!(changed, expected);
        assert_eq!(places("[1]").unwrap(), Places::default());
        assert!(places(r#"{"id":1,"id":2}"#).is_err(), "twice");
    }

    #[test]
    fn numbers_may_come_back_as_strings() {
        assert_eq!(
            [number("7"), number("\"7\""), number("7.0"), number("\"x\""), number("null")],
            [Some(7), Some(7), None, None, None]
        );
    }
}
