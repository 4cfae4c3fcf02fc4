//! Log messages of a legacy server, as far as it has to be known who wants to hear them.

use super::{Level, MAX_DEPTH};
use crate::transport::scan::ScanError;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer};

/// The method of log messages.
pub const METHOD: &str = "notifications/message";

/// How much a log message matters; `None`: it does not say, or is none.
pub fn level(message: &[u8]) -> Option<Level> {
    let mut lexer = Lexer::new(std::str::from_utf8(message).ok()?, MAX_DEPTH, Duplicates::WhereRead);
    let (mut method, mut level) = (None, None);
    lexer.skip_whitespace();
    let read: Result<(), ScanError> = lexer.object(|lexer, key| match (&*key.text, lexer.peek()?) {
        ("method", Kind::String) => {
            method = Some(lexer.string()?.text);
            Ok(())
        }
        ("params", Kind::Object) => lexer.object(|lexer, key| match (&*key.text, lexer.peek()?) {
            ("level", Kind::String) => {
                level = Level::parse(&lexer.string()?.text);
                Ok(())
            }
            _ => lexer.value().map(drop),
        }),
        _ => lexer.value().map(drop),
    });
    read.ok()?;
    level.filter(|_| method.as_deref() == Some(METHOD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_log_messages_have_a_level() {
        let message = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":{"level":"info"},"level":"error"}}"#;
        assert_eq!(level(message.as_bytes()), Some(Level::Error));
        for other in [
            message.replace("message", "progress"),
            message.replace("\"error\"", "\"loud\""),
            message.replace("\"level\":\"error\"", "\"l\":1"),
            "[]".to_owned(),
        ] {
            assert_eq!(level(other.as_bytes()), None, "{other}");
        }
    }
}
