//! A strict JSON walker over bytes that are known to be UTF-8: it builds nothing, it only moves and reports spans.
//! Owns the grammar of RFC 8259, depth and duplicate keys; knows nothing of JSON-RPC. Used by `scan` for what clients
//! send and by `lists` for what servers send.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::error::ScanError;
use super::strings::{hex4, plain_prefix, unescape};

/// A range of bytes of the scanned text. Bodies are far below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// As a range for slicing.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The same place in what begins `offset` bytes later.
    #[must_use]
    pub fn before(self, offset: usize) -> Self {
        Self::new(self.start as usize - offset, self.end as usize - offset)
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the span holds no bytes.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// How thorough duplicate keys are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duplicates {
    /// In every object.
    Everywhere,
    /// Only in objects that are walked by [`Lexer::object`], not in those that are skipped.
    WhereRead,
}

/// What a value is, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// A string of the text: what is between the quotes, unescaped only if it has escapes.
#[derive(Debug, Clone)]
pub(crate) struct Str<'a> {
    /// Between the quotes.
    pub span: Span,
    pub text: Cow<'a, str>,
}

type Keys<'a> = SmallVec<[Str<'a>; 16]>;

/// Objects with more keys than this are checked by sorting instead of pairwise.
const PAIRWISE: usize = 16;

pub(crate) struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pos: usize,
    depth: usize,
    max_depth: usize,
    duplicates: Duplicates,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str, max_depth: usize, duplicates: Duplicates) -> Self {
        Self { text, bytes: text.as_bytes(), pos: 0, depth: 0, max_depth, duplicates }
    }

    pub fn pos(&self) -> usize {
        self.pos
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> &'a str {
        &self.text[span.range()]
    }

    pub fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.pos) {
            self.pos += 1;
        }
    }

    /// The kind of the value that starts here.
    pub fn peek(&self) -> Result<Kind, ScanError> {
        match self.bytes.get(self.pos) {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => Err(ScanError::Unexpected { at: self.pos, expected: "a value" }),
            None => Err(self.end("a value")),
        }
    }

    /// Reads one value of any kind and says where it was.
    pub fn value(&mut self) -> Result<Span, ScanError> {
        let start = self.pos;
        match self.peek()? {
            Kind::Object => match self.duplicates {
                Duplicates::Everywhere => self.object(|lexer, _| lexer.value().map(drop))?,
                Duplicates::WhereRead => self.skip_object()?,
            },
            Kind::Array => self.array(|lexer| lexer.value().map(drop))?,
            Kind::String => drop(self.raw_string()?),
            Kind::Number => drop(self.number()?),
            Kind::Bool if self.bytes[start] == b't' => self.literal("true")?,
            Kind::Bool => self.literal("false")?,
            Kind::Null => self.literal("null")?,
        }
        Ok(Span::new(start, self.pos))
    }

    /// Walks an object; `member` gets each key and must read exactly its value.
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &Str<'a>) -> Result<(), ScanError>) -> Result<(), ScanError> {
        let mut keys = Keys::new();
        self.members(|lexer| {
            let key = lexer.string()?;
            if keys.len() < PAIRWISE && keys.iter().any(|seen| seen.text == key.text) {
                return Err(ScanError::DuplicateKey { at: key.span.start as usize - 1 });
            }
            lexer.colon()?;
            member(lexer, &key)?;
            keys.push(key);
            Ok(())
        })?;
        if keys.len() > PAIRWISE { sorted_distinct(keys) } else { Ok(()) }
    }

    fn skip_object(&mut self) -> Result<(), ScanError> {
        self.members(|lexer| {
            lexer.raw_string()?;
            lexer.colon()?;
            lexer.value().map(drop)
        })
    }

    fn members(&mut self, mut member: impl FnMut(&mut Self) -> Result<(), ScanError>) -> Result<(), ScanError> {
        self.enter(b'{', "an object")?;
        self.skip_whitespace();
        if self.take(b'}') {
            return self.leave();
        }
        loop {
            self.skip_whitespace();
            match self.bytes.get(self.pos) {
                Some(b'"') => member(self)?,
                Some(_) => return Err(ScanError::Unexpected { at: self.pos, expected: "a key in quotes" }),
                None => return Err(self.end("an object")),
            }
            self.skip_whitespace();
            if self.take(b'}') {
                return self.leave();
            }
            self.comma("a comma or a closing brace", "an object")?;
        }
    }

    /// Walks an array; `element` must read exactly one value.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), ScanError>) -> Result<(), ScanError> {
        self.enter(b'[', "an array")?;
        self.skip_whitespace();
        if self.take(b']') {
            return self.leave();
        }
        loop {
            self.skip_whitespace();
            element(self)?;
            self.skip_whitespace();
            if self.take(b']') {
                return self.leave();
            }
            self.comma("a comma or a closing bracket", "an array")?;
        }
    }

    /// Reads a string and unescapes it if it has escapes.
    pub fn string(&mut self) -> Result<Str<'a>, ScanError> {
        let (span, escaped) = self.raw_string()?;
        let raw = &self.text[span.range()];
        let text = if escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) };
        Ok(Str { span, text })
    }

    /// Reads a number: its text, and whether it is an integer without fraction or exponent.
    pub fn number(&mut self) -> Result<(Span, bool), ScanError> {
        let start = self.pos;
        let bad = ScanError::BadNumber { at: start };
        self.take(b'-');
        match self.bytes.get(self.pos) {
            Some(b'0') => self.pos += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) => return Err(bad),
            None => return Err(self.end("a number")),
        }
        let mut integer = true;
        if self.take(b'.') {
            integer = false;
            self.some_digits(start)?;
        }
        if self.take(b'e') || self.take(b'E') {
            integer = false;
            let _sign = self.take(b'+') || self.take(b'-');
            self.some_digits(start)?;
        }
        if let Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z') = self.bytes.get(self.pos)
        {
            return Err(bad);
        }
        // Only an exponent or very many digits can leave the range of a double.
        if (!integer || self.pos - start > 300) && !self.text[start..self.pos].parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(ScanError::NumberOutOfRange { at: start });
        }
        Ok((Span::new(start, self.pos), integer))
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.bytes.get(self.pos) {
            self.pos += 1;
        }
    }

    fn some_digits(&mut self, start: usize) -> Result<(), ScanError> {
        let first = self.pos;
        self.digits();
        if self.pos > first {
            return Ok(());
        }
        if self.pos == self.bytes.len() { Err(self.end("a number")) } else { Err(ScanError::BadNumber { at: start }) }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), ScanError> {
        let rest = &self.bytes[self.pos..];
        if rest.starts_with(word.as_bytes()) {
            self.pos += word.len();
            return Ok(());
        }
        if word.as_bytes().starts_with(rest) {
            return Err(self.end("a literal"));
        }
        Err(ScanError::Unexpected { at: self.pos, expected: "a value" })
    }

    /// Reads a string without unescaping it: the span between the quotes, and whether it has escapes.
    fn raw_string(&mut self) -> Result<(Span, bool), ScanError> {
        self.pos += 1;
        let start = self.pos;
        let mut escaped = false;
        loop {
            self.pos += plain_prefix(&self.bytes[self.pos..]);
            match self.bytes.get(self.pos) {
                Some(b'"') => {
                    let span = Span::new(start, self.pos);
                    self.pos += 1;
                    return Ok((span, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(ScanError::ControlCharacter { at: self.pos }),
                None => return Err(self.end("a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanError> {
        let at = self.pos;
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 2,
            Some(b'u') => {
                let unit = self.hex4(at, at + 2)?;
                self.pos += 6;
                match unit {
                    0xDC00..=0xDFFF => return Err(ScanError::LoneSurrogate { at }),
                    0xD800..=0xDBFF => {
                        if !self.bytes[self.pos..].starts_with(b"\\u") {
                            return Err(ScanError::LoneSurrogate { at });
                        }
                        if !(0xDC00..=0xDFFF).contains(&self.hex4(self.pos, self.pos + 2)?) {
                            return Err(ScanError::LoneSurrogate { at });
                        }
                        self.pos += 6;
                    }
                    _ => {}
                }
            }
            Some(_) => return Err(ScanError::BadEscape { at }),
            None => return Err(self.end("a string")),
        }
        Ok(())
    }

    fn hex4(&self, escape: usize, at: usize) -> Result<u16, ScanError> {
        let Some(digits) = self.bytes.get(at..at + 4) else { return Err(self.end("a string")) };
        hex4(digits).ok_or(ScanError::BadEscape { at: escape })
    }

    fn colon(&mut self) -> Result<(), ScanError> {
        self.skip_whitespace();
        if !self.take(b':') {
            return Err(self.unexpected("a colon", "an object"));
        }
        self.skip_whitespace();
        Ok(())
    }

    fn comma(&mut self, expected: &'static str, within: &'static str) -> Result<(), ScanError> {
        if self.take(b',') { Ok(()) } else { Err(self.unexpected(expected, within)) }
    }

    fn enter(&mut self, open: u8, expected: &'static str) -> Result<(), ScanError> {
        if !self.take(open) {
            return Err(self.unexpected(expected, expected));
        }
        self.depth += 1;
        if self.depth > self.max_depth {
            return Err(ScanError::TooDeep { at: self.pos - 1, limit: self.max_depth });
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), ScanError> {
        self.depth -= 1;
        Ok(())
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.bytes.get(self.pos) == Some(&byte);
        self.pos += usize::from(there);
        there
    }

    fn unexpected(&self, expected: &'static str, within: &'static str) -> ScanError {
        if self.pos == self.bytes.len() { self.end(within) } else { ScanError::Unexpected { at: self.pos, expected } }
    }

    fn end(&self, within: &'static str) -> ScanError {
        ScanError::UnexpectedEnd { at: self.bytes.len(), within }
    }
}

/// Sorting keeps a hostile object with very many keys at n log n.
fn sorted_distinct(mut keys: Keys<'_>) -> Result<(), ScanError> {
    keys.sort_unstable_by(|a, b| a.text.cmp(&b.text).then(a.span.start.cmp(&b.span.start)));
    match keys.windows(2).find(|pair| pair[0].text == pair[1].text) {
        Some(pair) => Err(ScanError::DuplicateKey { at: pair[1].span.start as usize - 1 }),
        None => Ok(()),
    }
}
