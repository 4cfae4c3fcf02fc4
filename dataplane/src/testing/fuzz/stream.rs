//! Event streams: however the bytes arrive, the events are the same and together they are the bytes; what is written as an event is
//! read back.

use bytes::{Bytes, BytesMut};

use super::first;
use crate::sse::{Event, Framer, write_event};

/// Small, so that it is met.
const MAX_EVENT: usize = 512;

/// The first byte says how many of the next are lengths of chunks, used in turn; the rest is a stream, and then a message.
pub fn sse(data: &[u8]) {
    let (cuts, rest) = first(data);
    let (lengths, stream) = rest.split_at(rest.len().min(cuts % 8));
    let whole = events([stream], usize::MAX).expect("no bound");
    let pieces = events(pieces(stream, lengths), usize::MAX).expect("no bound");
    assert_eq!(whole, pieces, "chunks do not matter");
    assert_eq!(
        whole.iter().flat_map(|event| event.raw().iter().copied()).collect::<Vec<u8>>(),
        stream,
        "every byte is in an event"
    );
    bounded(stream, lengths, &whole);
    for event in &whole {
        fields_do_not_panic(event);
        if event.data().is_some() {
            data_is_replaced(event);
        }
    }
    written_is_read_back(stream);
}

fn pieces<'s>(stream: &'s [u8], lengths: &[u8]) -> Vec<&'s [u8]> {
    let mut lengths = lengths.iter().map(|length| usize::from(*length).max(1)).cycle();
    let (mut pieces, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(lengths.next().unwrap_or(1).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn events<'s>(chunks: impl IntoIterator<Item = &'s [u8]>, max_event: usize) -> Option<Vec<Event>> {
    let (mut framer, mut events) = (Framer::new(max_event), Vec::new());
    for chunk in chunks {
        framer.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = framer.next_event().ok()? {
            events.push(event);
        }
        assert!(framer.held() <= max_event, "no more than one event is held");
    }
    events.extend(framer.finish());
    Some(events)
}

/// What is too large is refused whatever the chunks, and only that.
fn bounded(stream: &[u8], lengths: &[u8], whole: &[Event]) {
    let fits = whole.iter().all(|event| event.raw().len() <= MAX_EVENT);
    for found in [events([stream], MAX_EVENT), events(pieces(stream, lengths), MAX_EVENT)] {
        match found {
            Some(found) => assert!(fits && found == whole),
            None => assert!(!fits),
        }
    }
}

fn fields_do_not_panic(event: &Event) {
    let _seen = (event.id(), event.retry(), event.event_type(), event.has_fields());
    // Empty lines of data are no payload, however many.
    assert_eq!(event.has_data(), event.data().is_some_and(|data| data.iter().any(|byte| *byte != b'\n')));
}

fn data_is_replaced(event: &Event) {
    for data in [&b"{\"id\":1}"[..], b"", b"a\nb\n"] {
        let replaced = event.with_data(data);
        assert_eq!(replaced.data().as_deref(), Some(data));
        assert_eq!((replaced.id(), replaced.event_type(), replaced.retry()), (event.id(), event.event_type(), event.retry()));
    }
}

fn written_is_read_back(message: &[u8]) {
    let mut out = BytesMut::new();
    write_event(&mut out, Some(&7), message);
    write_event(&mut out, None::<&u64>, b"{}");
    let read = events([&out[..]], usize::MAX).expect("no bound");
    assert_eq!(read.len(), 2, "one message is one event");
    assert_eq!(read[0].data().as_deref(), Some(&line_feeds(message)[..]));
    assert_eq!((read[0].id().as_deref(), read[1].id()), (Some("7"), None));
    assert_eq!((read[0].event_type().as_ref(), read[1].data().as_deref()), ("message", Some(&b"{}"[..])));
}

/// A stream tells line breaks of three kinds apart from nothing: they come back as LF.
fn line_feeds(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\r' {
            bytes.next_if_eq(&b'\n');
        }
        out.push(if byte == b'\r' { b'\n' } else { byte });
    }
    out
}
