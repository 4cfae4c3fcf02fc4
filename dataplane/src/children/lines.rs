//! Cuts what a child writes into lines of bounded length. No I/O: bytes go in, lines come out.
//! Never judges what a line says. Used for stdout and for stderr.

use bytes::{Bytes, BytesMut};

/// How much of a line that is too long is kept.
const HEAD: usize = 4 << 10;
/// Room for one read.
const READ: usize = 16 << 10;

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Bytes),
    /// Longer than the limit: how it begins, and how long it was.
    Cut {
        head: Bytes,
        length: usize,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lines {
    limit: usize,
    buffer: BytesMut,
    /// How much of the buffer holds no line feed.
    searched: usize,
    /// A line that is too long and goes on.
    long: Option<(Bytes, usize)>,
}

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, buffer: BytesMut::new(), searched: 0, long: None }
    }

    /// Where to read into.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ);
        &mut self.buffer
    }

    /// The next line that has an end. Lines without anything but blanks are skipped.
    pub(super) fn next(&mut self) -> Option<Line> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                self.shorten();
                return None;
            };
            let text = self.buffer.split_to(self.searched + found + 1);
            self.searched = 0;
            if let Some(line) = self.line(text.freeze()) {
                return Some(line);
            }
        }
    }

    /// What is left when nothing more will come.
    pub(super) fn rest(&mut self) -> Option<Line> {
        let text = self.buffer.split().freeze();
        self.searched = 0;
        self.line(text)
    }

    /// Lets go of a line that has become too long, but for its head.
    fn shorten(&mut self) {
        let length = self.buffer.len();
        if let Some((_, known)) = &mut self.long {
            *known += length;
        } else if length > self.limit {
            self.long = Some((Bytes::copy_from_slice(&self.buffer[..HEAD.min(self.limit)]), length));
        } else {
            return;
        }
        self.buffer.clear();
        self.searched = 0;
    }

    /// Judged by its length without the line feed only: whether a carriage return belongs to the end shows too late.
    fn line(&mut self, text: Bytes) -> Option<Line> {
        let length = text.strip_suffix(b"\n").unwrap_or(&text).len();
        if let Some((head, known)) = self.long.take() {
            return Some(Line::Cut { head, length: known + length });
        }
        if length > self.limit {
            // Copied, not to keep all of it for the sake of its head.
            return Some(Line::Cut { head: Bytes::copy_from_slice(&text[..HEAD.min(self.limit)]), length });
        }
        let length = text[..length].strip_suffix(b"\r").map_or(length, <[u8]>::len);
        (!text.trim_ascii().is_empty()).then(|| Line::Whole(text.slice(..length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of `size` bytes.
    fn cut(limit: usize, text: &[u8], size: usize) -> Vec<Line> {
        let (mut lines, mut found) = (Lines::new(limit), Vec::new());
        for piece in text.chunks(size) {
            lines.room().extend_from_slice(piece);
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.rest());
        found
    }

    #[test]
    fn lines_come_out_the_same_however_they_come_in() {
        let whole = |text: &'static str| Line::Whole(text.into());
        let long = |head: &'static str, length| Line::Cut { head: head.into(), length };
        let text = b"one\n\r\n  \n{\"two\":2}\r\nabcdefghijklmnop\nthree\n0123456789ABCDEFG\r\nlast";
        let expected =
            [whole("one"), whole("{\"two\":2}"), long("abcdefghij", 16), whole("three"), long("0123456789", 18), whole("last")];
        for size in 1..text.len() {
            assert_eq!(cut(10, text, size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_more_room_than_its_limit_and_a_read() {
        let mut lines = Lines::new(100_000);
        for _ in 0..1000 {
            lines.room().extend_from_slice(&[b'x'; 10_000]);
            assert_eq!(lines.next(), None);
            assert!(lines.buffer.len() <= 110_000);
        }
        let Some(Line::Cut { head, length }) = lines.rest() else { panic!("not cut") };
        assert_eq!((head.len(), length), (HEAD, 10_000_000));
    }
}
