//! Splits an upstream event stream into whole events (WHATWG HTML, server-sent events) without changing a byte.
//! Owns framing and, on demand, an event's payload; never judges content, never buffers more than one event.
//! Used by the relay for every `text/event-stream` answer: concatenated, the events are the bytes that came in.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

#[cfg(test)]
mod tests;

/// An event larger than this ends the stream, unless the caller sets another bound.
pub const DEFAULT_MAX_EVENT: usize = 1 << 20;

/// An event that is larger than accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {limit} bytes")]
pub struct TooLarge {
    /// The bound in bytes.
    pub limit: usize,
}

/// One unit of a stream: an event with its closing blank line, or comments and blank lines between events, which pass
/// at once because they are keep-alives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    raw: Bytes,
}

/// How the last line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Lf,
    Cr,
    CrLf,
}

/// Incremental framer of one stream.
#[derive(Debug)]
pub struct Framer {
    max_event: usize,
    /// Bytes not yet handed out. An event that lies in one chunk is a slice of it.
    chunk: Bytes,
    /// The beginning of an event that spans chunks.
    partial: BytesMut,
    /// How far `partial` and `chunk` together were examined.
    lines: Lines,
    at_stream_start: bool,
}

/// Where the examination of the current event stands.
#[derive(Debug, Clone, Copy)]
struct Lines {
    /// Where the current line starts, from the start of the event.
    line_start: usize,
    /// Everything before this was examined.
    examined: usize,
    /// Whether a field line was seen: comments and blank lines before one are units of their own.
    fields: bool,
    /// How the previous line of this event ended.
    previous: Option<Ending>,
}

const FRESH: Lines = Lines { line_start: 0, examined: 0, fields: false, previous: None };

impl Framer {
    /// A framer that refuses events larger than `max_event` bytes.
    pub fn new(max_event: usize) -> Self {
        Self { max_event, chunk: Bytes::new(), partial: BytesMut::new(), lines: FRESH, at_stream_start: true }
    }

    /// Takes the next chunk of the stream. Call [`Framer::next_event`] until it has no more before pushing again.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            // Only a caller that pushes without draining gets here.
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = chunk;
        }
    }

    /// The next whole event, if it has arrived.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLarge> {
        match self.boundary() {
            Some(end) if end > self.max_event => Err(TooLarge { limit: self.max_event }),
            Some(end) => Ok(Some(Event { raw: self.take(end) })),
            None if self.held() > self.max_event => Err(TooLarge { limit: self.max_event }),
            None => {
                self.partial.extend_from_slice(&self.chunk);
                self.chunk = Bytes::new();
                Ok(None)
            }
        }
    }

    /// The end of the stream: what is left of an event that was never closed. By the standard it does not count, but
    /// some clients read it, so the caller treats it as the event that it may be taken for.
    pub fn finish(mut self) -> Option<Event> {
        let held = self.held();
        (held > 0).then(|| Event { raw: self.take(held) })
    }

    /// How many bytes of an unfinished event are held.
    pub fn held(&self) -> usize {
        self.partial.len() + self.chunk.len()
    }

    /// The end of the current event, once its last byte is here. Looks at each byte once, however the chunks fall.
    fn boundary(&mut self) -> Option<usize> {
        loop {
            let (at, ending) = self.line_end()?;
            let line = self.lines.line_start..at;
            self.lines.examined = at + if ending == Ending::CrLf { 2 } else { 1 };
            self.lines.line_start = self.lines.examined;
            self.lines.previous = Some(ending);
            let blank = line.is_empty() || (self.at_stream_start && self.is_bom(&line));
            if blank || (!self.lines.fields && self.byte(line.start) == Some(b':')) {
                self.at_stream_start = false;
                return Some(self.lines.examined);
            }
            self.at_stream_start = false;
            self.lines.fields = true;
        }
    }

    /// The end of the line that is being examined: where its terminator starts, and which one it is.
    fn line_end(&mut self) -> Option<(usize, Ending)> {
        let at = self.find_terminator()?;
        if self.byte(at) == Some(b'\n') {
            return Some((at, Ending::Lf));
        }
        match self.byte(at + 1) {
            // After a lone CR, CR CR is a blank line already, and an LF behind it would begin the next event. This rule
            // depends on the bytes alone, never on where the chunks were cut.
            _ if self.lines.previous == Some(Ending::Cr) && at == self.lines.line_start => Some((at, Ending::Cr)),
            Some(b'\n') => Some((at, Ending::CrLf)),
            Some(_) => Some((at, Ending::Cr)),
            None => {
                self.lines.examined = at;
                None
            }
        }
    }

    fn find_terminator(&mut self) -> Option<usize> {
        let (partial, from) = (self.partial.len(), self.lines.examined);
        let in_partial = (from < partial).then(|| memchr::memchr2(b'\n', b'\r', &self.partial[from..])).flatten();
        let found = in_partial.map(|at| from + at).or_else(|| {
            let from = from.max(partial);
            memchr::memchr2(b'\n', b'\r', &self.chunk[from - partial..]).map(|at| from + at)
        });
        if found.is_none() {
            self.lines.examined = self.held();
        }
        found
    }

    fn is_bom(&self, line: &std::ops::Range<usize>) -> bool {
        line.len() == 3 && (0..3).all(|index| self.byte(line.start + index) == Some(b"\xEF\xBB\xBF"[index]))
    }

    fn byte(&self, at: usize) -> Option<u8> {
        match at.checked_sub(self.partial.len()) {
            None => self.partial.get(at).copied(),
            Some(at) => self.chunk.get(at).copied(),
        }
    }

    fn take(&mut self, end: usize) -> Bytes {
        self.lines = FRESH;
        if self.partial.is_empty() {
            return self.chunk.split_to(end);
        }
        // A caller that pushed twice without draining may have more than one event in `partial`.
        if end <= self.partial.len() {
            let event = self.partial.split_to(end).freeze();
            if self.chunk.is_empty() {
                self.chunk = self.partial.split().freeze();
            }
            return event;
        }
        let from_chunk = end - self.partial.len();
        self.partial.extend_from_slice(&self.chunk[..from_chunk]);
        self.chunk.advance(from_chunk);
        self.partial.split().freeze()
    }
}

impl Event {
    /// The bytes as they came, closing blank line included.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The bytes as they came.
    pub fn into_raw(self) -> Bytes {
        self.raw
    }

    /// The payload: the values of the `data` lines joined with LF, or `None` if there is no such line. One line, which
    /// is how MCP servers write JSON, is a slice of the stream's bytes.
    pub fn data(&self) -> Option<Bytes> {
        let mut lines = self.fields().filter(|field| field.name == b"data").map(|field| field.value);
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(self.raw.slice_ref(first)) };
        let mut joined = BytesMut::from(first);
        for line in std::iter::once(second).chain(lines) {
            joined.extend_from_slice(b"\n");
            joined.extend_from_slice(line);
        }
        Some(joined.freeze())
    }

    /// Whether there is a payload that is not empty; a priming event (2025-11-25) has an empty one.
    pub fn has_data(&self) -> bool {
        self.fields().any(|field| field.name == b"data" && !field.value.is_empty())
    }

    /// The last `id` line's value, which a client sends back as `Last-Event-ID`.
    pub fn id(&self) -> Option<Cow<'_, str>> {
        self.fields().filter(|field| field.name == b"id").last().map(|field| String::from_utf8_lossy(field.value))
    }

    /// Whether it is an event at all: comments and blank lines are not.
    pub fn has_fields(&self) -> bool {
        self.fields().next().is_some()
    }

    /// How long a client should wait before it comes back, if the event says so.
    pub fn retry(&self) -> Option<Duration> {
        let field = self.fields().filter(|field| field.name == b"retry").last()?;
        std::str::from_utf8(field.value).ok()?.parse().ok().map(Duration::from_millis)
    }

    /// The event's type; MCP uses the default, `message`.
    pub fn event_type(&self) -> Cow<'_, str> {
        let field = self.fields().filter(|field| field.name == b"event").last();
        field
            .filter(|field| !field.value.is_empty())
            .map_or(Cow::Borrowed("message"), |field| String::from_utf8_lossy(field.value))
    }

    /// The same event with another payload: the `data` lines give way to new ones in the place of the first, all other
    /// lines stay as they are. Line breaks inside `data` become further lines.
    #[must_use]
    pub fn with_data(&self, data: &[u8]) -> Self {
        let mut out = BytesMut::with_capacity(self.raw.len() + data.len() + 16);
        let mut written = false;
        for line in RawLines::new(&self.raw) {
            if Field::of(line.content).is_none_or(|field| field.name != b"data") {
                out.extend_from_slice(line.content);
                out.extend_from_slice(line.terminator);
            } else if !written {
                write_data(&mut out, data, line.terminator);
                written = true;
            }
        }
        Self { raw: out.freeze() }
    }

    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        RawLines::new(&self.raw).filter_map(|line| Field::of(line.content))
    }
}

/// Writes a message as an event, with its id where it has one; an empty message says where the stream begins, and how long a client that
/// lost it should wait before it comes back (2025-11-25, streamable HTTP).
pub fn write_event(out: &mut BytesMut, id: Option<&impl std::fmt::Display>, message: &[u8]) {
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    if message.is_empty() {
        out.extend_from_slice(b"retry: 1000\ndata: \n");
    } else {
        out.extend_from_slice(b"event: message\n");
        write_data(out, message, b"\n");
    }
    out.extend_from_slice(b"\n");
}

fn write_data(out: &mut BytesMut, data: &[u8], terminator: &[u8]) {
    let terminator = if terminator.is_empty() { b"\n" } else { terminator };
    for line in RawLines::new(data).map(|line| line.content).chain(ends_open(data).then_some(&b""[..])) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(terminator);
    }
}

/// Whether text ends where a further, empty line begins: after a line break, or before anything.
fn ends_open(data: &[u8]) -> bool {
    data.last().is_none_or(|last| matches!(last, b'\n' | b'\r'))
}

/// A line of an event that sets a field.
struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> Field<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        (!name.is_empty()).then(|| Self { name, value: value.strip_prefix(b" ").unwrap_or(value) })
    }
}

struct RawLine<'a> {
    content: &'a [u8],
    terminator: &'a [u8],
}

/// The lines of a text, each with its terminator; the last may have none.
struct RawLines<'a> {
    rest: &'a [u8],
}

impl<'a> RawLines<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for RawLines<'a> {
    type Item = RawLine<'a>;

    fn next(&mut self) -> Option<RawLine<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let at = memchr::memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
        let (content, rest) = self.rest.split_at(at);
        let length = match rest {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let (terminator, rest) = rest.split_at(length);
        self.rest = rest;
        Some(RawLine { content, terminator })
    }
}
