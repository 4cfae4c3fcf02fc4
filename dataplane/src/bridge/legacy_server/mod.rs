//! A legacy server as modern clients see it (2026-07-28): what their requests are in its words, and its answers in theirs. Pure functions
//! on bytes: a message is changed where the eras differ, and passes byte for byte everywhere else. Who waits for what, and in which session,
//! is [`crate::owned`]'s to know; [`crate::relay::sessions`] brings the two together.

pub mod codes;
pub mod discover;
pub mod notice;
pub mod persona;
pub mod question;
pub mod request;
pub mod result;

pub use discover::Greeting;
pub use persona::{Level, Persona};

use crate::transport::scan::lexer::{Duplicates, Lexer, Span};

/// How deep a message may nest.
const MAX_DEPTH: usize = 128;
/// What `_meta` keys of the protocol itself begin with.
const RESERVED: &str = "io.modelcontextprotocol/";

/// What becomes of each member of an object, key and all.
fn kept(text: &str, mut each: impl FnMut(&str, &str) -> Option<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
    // The message was scanned: there is nothing that cannot be read.
    let _scanned = lexer.object(|lexer, key| {
        let start = key.span.start as usize - 1;
        let end = lexer.value()?.end as usize;
        kept.extend(each(&key.text, lexer.slice(Span::new(start, end))));
        Ok(())
    });
    kept
}
