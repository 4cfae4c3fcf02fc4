//! List filtering by shape: on every path from server to client, a result that carries `tools`, `prompts`, `resources` or
//! `resourceTemplates` loses what the caller may not use. Owns recognising and splicing; the decision is the caller's
//! predicate, the same engine that decides calls. Used by the relay on JSON answers and on the data of stream events.
//!
//! Only byte ranges are cut out; everything else, `nextCursor` above all, stays as the server wrote it. What a principal
//! was filtered for is for that principal alone, so modern results become `cacheScope: private`.
//!
//! A resource template is judged by its text, as if it were a URI: a rule that allows `repo://acme/*` shows
//! `repo://acme/{path}`, and one that allows only single resources shows no template. Completion of a template asks the
//! same question, so a template is seen exactly by those who may complete it.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

use crate::transport::scan::lexer::{Duplicates, Kind as Json, Lexer, Span, Str};
use crate::transport::scan::{ScanError, keys};

#[cfg(test)]
mod tests;

/// How deep a server's message may nest; the same as most JSON parsers.
const MAX_DEPTH: usize = 128;

/// What a list element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An element of `tools`, by name.
    Tool,
    /// An element of `prompts`, by name.
    Prompt,
    /// An element of `resources`, by URI.
    Resource,
    /// An element of `resourceTemplates`, by the text of its URI template.
    ResourceTemplate,
}

impl Kind {
    fn of(key: &str) -> Option<Self> {
        match key {
            "tools" => Some(Self::Tool),
            "prompts" => Some(Self::Prompt),
            "resources" => Some(Self::Resource),
            "resourceTemplates" => Some(Self::ResourceTemplate),
            _ => None,
        }
    }

    /// The member that names an element.
    fn name(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::ResourceTemplate => "uriTemplate",
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// No list in it: it passes as it is.
    NotAList,
    /// A list of which the caller may see everything: it passes as it is.
    Unchanged,
    /// This takes its place.
    Changed {
        /// The message without what was hidden.
        message: Bytes,
        /// How many elements were hidden.
        hidden: usize,
    },
}

/// Why a list cannot be filtered, and must not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More bytes than may be buffered.
    #[error("the server's list has more than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
    },
    /// Not a message that every client reads the same way.
    #[error("the server's list is not strict JSON: {0}")]
    Invalid(#[from] ScanError),
}

/// Whether a message can be a list at all: a search for bytes, no parsing. `false` is certain.
pub fn may_be_list(message: &[u8]) -> bool {
    static NEEDLES: LazyLock<[Finder<'static>; 5]> = LazyLock::new(|| {
        ["\"tools\"", "\"prompts\"", "\"resources\"", "\"resourceTemplates\"", "\"cacheScope\""].map(Finder::new)
    });
    NEEDLES.iter().any(|needle| needle.find(message).is_some()) || has_escaped_letter(message)
}

/// Whether an ASCII letter may hide behind an escape (`\u0074ools`).
fn has_escaped_letter(message: &[u8]) -> bool {
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\\u00"));
    ESCAPE.find_iter(message).any(|at| matches!(message.get(at + 4), Some(b'4'..=b'7')))
}

/// Filters one JSON-RPC message, or a batch of them. `allowed` gets each element's kind and name; an element without a
/// name is hidden, because nothing can be decided about it.
pub fn filter(message: &Bytes, max_bytes: usize, allowed: impl FnMut(Kind, &str) -> bool) -> Result<Filtered, Error> {
    if !may_be_list(message) {
        return Ok(Filtered::NotAList);
    }
    if message.len() > max_bytes {
        return Err(Error::TooLarge { limit: max_bytes });
    }
    let text = std::str::from_utf8(message).map_err(|error| ScanError::NotUtf8 { at: error.valid_up_to() })?;
    let mut walk = Walk { allowed, edits: Vec::new(), hidden: 0, lists: 0 };
    let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
    lexer.skip_whitespace();
    match lexer.peek()? {
        Json::Array => lexer.array(|lexer| walk.message(lexer))?,
        _ => walk.message(&mut lexer)?,
    }
    lexer.skip_whitespace();
    if lexer.pos() < text.len() {
        return Err(ScanError::TrailingBytes { at: lexer.pos() }.into());
    }
    Ok(match (walk.edits.is_empty(), walk.lists) {
        (true, 0) => Filtered::NotAList,
        (true, _) => Filtered::Unchanged,
        (false, _) => Filtered::Changed { message: splice(message, walk.edits), hidden: walk.hidden },
    })
}

/// One replacement in the message.
struct Edit {
    at: Span,
    with: Vec<u8>,
}

struct Walk<A> {
    allowed: A,
    edits: Vec<Edit>,
    hidden: usize,
    lists: usize,
}

/// What of a result decides about its cache scope.
#[derive(Default)]
struct Caching {
    modern: bool,
    scope: Option<(Span, bool)>,
    has_list: bool,
}

impl<A: FnMut(Kind, &str) -> bool> Walk<A> {
    fn message(&mut self, lexer: &mut Lexer<'_>) -> Result<(), ScanError> {
        if lexer.peek()? != Json::Object {
            return lexer.value().map(drop);
        }
        lexer.object(|lexer, key| {
            keys::check(key, keys::ENVELOPE)?;
            if key.text == "result" && lexer.peek()? == Json::Object { self.result(lexer) } else { lexer.value().map(drop) }
        })
    }

    fn result(&mut self, lexer: &mut Lexer<'_>) -> Result<(), ScanError> {
        let first_member = lexer.pos() + 1;
        let mut caching = Caching::default();
        lexer.object(|lexer, key| {
            keys::check(key, keys::RESULT)?;
            match (key.text.as_ref(), Kind::of(&key.text)) {
                (_, Some(kind)) if lexer.peek()? == Json::Array => {
                    caching.has_list = true;
                    self.list(lexer, kind)
                }
                ("cacheScope", _) => {
                    let span = lexer.value()?;
                    caching.scope = Some((span, lexer.slice(span) == "\"private\""));
                    Ok(())
                }
                (key, _) => {
                    caching.modern |= key == "resultType" || key == "ttlMs";
                    lexer.value().map(drop)
                }
            }
        })?;
        self.cache_privately(&caching, first_member);
        Ok(())
    }

    /// What one principal may see says nothing about the next, so no cache may share it.
    fn cache_privately(&mut self, caching: &Caching, first_member: usize) {
        let edit = match caching.scope {
            Some((_, true)) => return,
            Some((at, false)) => Edit { at, with: b"\"private\"".to_vec() },
            // A list is a member, so a comma is due.
            None if caching.modern && caching.has_list => {
                Edit { at: Span::new(first_member, first_member), with: b"\"cacheScope\":\"private\",".to_vec() }
            }
            None => return,
        };
        self.edits.push(edit);
    }

    fn list(&mut self, lexer: &mut Lexer<'_>, kind: Kind) -> Result<(), ScanError> {
        self.lists += 1;
        let start = lexer.pos();
        let mut kept: Vec<Span> = Vec::new();
        let mut hidden = 0;
        lexer.array(|lexer| {
            let start = lexer.pos();
            let name = element_name(lexer, kind)?;
            if name.is_some_and(|name| (self.allowed)(kind, &name.text)) {
                kept.push(Span::new(start, lexer.pos()));
            } else {
                hidden += 1;
            }
            Ok(())
        })?;
        if hidden > 0 {
            self.hidden += hidden;
            let elements: Vec<&str> = kept.iter().map(|span| lexer.slice(*span)).collect();
            self.edits.push(Edit { at: Span::new(start, lexer.pos()), with: format!("[{}]", elements.join(",")).into_bytes() });
        }
        Ok(())
    }
}

fn element_name<'a>(lexer: &mut Lexer<'a>, kind: Kind) -> Result<Option<Str<'a>>, ScanError> {
    if lexer.peek()? != Json::Object {
        return lexer.value().map(|_| None);
    }
    let mut name = None;
    lexer.object(|lexer, key| {
        if key.text == kind.name() && lexer.peek()? == Json::String {
            name = Some(lexer.string()?);
            return Ok(());
        }
        lexer.value().map(drop)
    })?;
    Ok(name)
}

fn splice(message: &Bytes, mut edits: Vec<Edit>) -> Bytes {
    edits.sort_by_key(|edit| edit.at.start);
    let mut out = BytesMut::with_capacity(message.len() + 32);
    let mut done = 0;
    for edit in edits {
        let at = edit.at.range();
        out.extend_from_slice(&message[done..at.start]);
        out.extend_from_slice(&edit.with);
        done = at.end;
    }
    out.extend_from_slice(&message[done..]);
    out.freeze()
}
