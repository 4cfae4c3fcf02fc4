use proptest::prelude::*;

use super::*;

fn frame_chunks(chunks: &[&[u8]]) -> Vec<Event> {
    let mut framer = Framer::new(DEFAULT_MAX_EVENT);
    let mut events = Vec::new();
    for chunk in chunks {
        framer.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = framer.next_event().expect("within the bound") {
            events.push(event);
        }
    }
    events.extend(framer.finish());
    events
}

fn frame(stream: &str) -> Vec<Event> {
    frame_chunks(&[stream.as_bytes()])
}

fn raws(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| std::str::from_utf8(event.raw()).unwrap()).collect()
}

#[test]
fn splits_at_blank_lines_of_every_kind_and_keeps_every_byte() {
    for (stream, expected) in [
        ("data: a\n\ndata: b\n\n", vec!["data: a\n\n", "data: b\n\n"]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", vec!["data: a\r\n\r\n", "data: b\r\n\r\n"]),
        ("data: a\r\rdata: b\r\r", vec!["data: a\r\r", "data: b\r\r"]),
        ("data: a\n\r\ndata: b\r\n\n", vec!["data: a\n\r\n", "data: b\r\n\n"]),
        ("data: a\r\n\rdata: b\r\n\r", vec!["data: a\r\n\r", "data: b\r\n\r"]),
        ("id: 7\nretry: 10\ndata: a\ndata: b\n\n", vec!["id: 7\nretry: 10\ndata: a\ndata: b\n\n"]),
        ("\u{feff}data: a\n\n", vec!["\u{feff}data: a\n\n"]),
        ("data: unfinished\n", vec!["data: unfinished\n"]),
        ("data: unfinished", vec!["data: unfinished"]),
        ("", vec![]),
    ] {
        assert_eq!(raws(&frame(stream)), expected, "{stream:?}");
    }
}

#[test]
fn keep_alives_pass_without_waiting_for_an_event() {
    assert_eq!(raws(&frame(": ping\n:\r\n\ndata: a\n: inside\n\n")), [": ping\n", ":\r\n", "\n", "data: a\n: inside\n\n"]);
    let mut framer = Framer::new(100);
    framer.push(Bytes::from_static(b": ping\n"));
    assert_eq!(framer.next_event().unwrap().map(Event::into_raw), Some(Bytes::from_static(b": ping\n")));
    assert_eq!(framer.held(), 0);
}

#[test]
fn an_event_is_ready_with_its_last_byte() {
    for terminators in ["\n\n", "\r\n\r\n", "\r\r"] {
        let mut framer = Framer::new(100);
        framer.push(Bytes::from(format!("data: a{}", &terminators[..terminators.len() - 1])));
        assert_eq!(framer.next_event(), Ok(None), "{terminators:?}");
        framer.push(Bytes::copy_from_slice(&terminators.as_bytes()[terminators.len() - 1..]));
        assert!(framer.next_event().unwrap().is_some(), "{terminators:?}");
    }
}

#[test]
fn an_event_in_one_chunk_is_a_slice_of_it() {
    let chunk = Bytes::from_static(b"data: {\"a\":1}\n\ndata: b\n\n");
    let mut framer = Framer::new(100);
    framer.push(chunk.clone());
    let event = framer.next_event().unwrap().unwrap();
    assert_eq!(event.raw().as_ptr(), chunk.as_ptr());
    assert_eq!(event.data().unwrap().as_ptr(), chunk[6..].as_ptr());
}

#[test]
fn reads_fields_as_the_standard_says() {
    #[rustfmt::skip]
    let table: &[(&str, Option<&str>, Option<&str>, &str)] = &[
        ("data: a\n\n", Some("a"), None, "message"),
        ("data:a\n\n", Some("a"), None, "message"),
        ("data:  a \n\n", Some(" a "), None, "message"),
        ("data\n\n", Some(""), None, "message"),
        ("data: a\ndata\ndata:b\n\n", Some("a\n\nb"), None, "message"),
        ("data: a:b\r\nid: 1\r\nid: 2\r\nevent: e\r\n\r\n", Some("a:b"), Some("2"), "e"),
        ("id: 5\ndata:\n\n", Some(""), Some("5"), "message"),
        ("event:\nretry: 3\n\n", None, None, "message"),
        (": comment\n", None, None, "message"),
        ("Data: a\n\n", None, None, "message"),
        (" data: a\n\n", None, None, "message"),
        ("\u{feff}data: a\n\n", Some("a"), None, "message"),
    ];
    for (stream, data, id, kind) in table {
        let events = frame(stream);
        assert_eq!(events.len(), 1, "{stream:?}");
        assert_eq!(events[0].data().as_deref(), data.map(str::as_bytes), "{stream:?}");
        assert_eq!(events[0].id().as_deref(), *id, "{stream:?}");
        assert_eq!(events[0].event_type(), *kind, "{stream:?}");
        assert_eq!(events[0].has_data(), data.is_some_and(|data| !data.is_empty()), "{stream:?}");
    }
}

#[test]
fn replaced_data_keeps_every_other_line() {
    let event = |raw: &'static str| Event { raw: Bytes::from_static(raw.as_bytes()) };
    let replaced = |raw, data: &str| String::from_utf8(event(raw).with_data(data.as_bytes()).into_raw().to_vec()).unwrap();
    assert_eq!(replaced("id: 1\ndata: old\nretry: 2\n\n", "new"), "id: 1\ndata: new\nretry: 2\n\n");
    assert_eq!(replaced("data: a\r\n: c\r\ndata: b\r\nid: 1\r\n\r\n", "x"), "data: x\r\n: c\r\nid: 1\r\n\r\n");
    assert_eq!(replaced("data:a\n\n", "x\ny"), "data: x\ndata: y\n\n");
    assert_eq!(replaced("data: a\n\n", ""), "data: \n\n");
    assert_eq!(replaced("data: a", "b"), "data: b\n");
}

#[test]
fn larger_events_than_accepted_end_the_stream() {
    let stream = |length: usize| Bytes::from(format!("data: {}\n\n", "x".repeat(length - 8)));
    let mut whole = Framer::new(100);
    whole.push(stream(100));
    assert!(whole.next_event().unwrap().is_some());
    whole.push(stream(101));
    assert_eq!(whole.next_event(), Err(TooLarge { limit: 100 }));
    let mut piecewise = Framer::new(100);
    let refused = (0..200).find(|_| {
        piecewise.push(Bytes::from_static(b"x"));
        piecewise.next_event().is_err()
    });
    assert_eq!(refused, Some(100));
    assert!(piecewise.held() <= 101, "an endless line is not collected");
}

/// The standard's algorithm on the whole text: the (data, id, type) of what a browser would dispatch, `id` being the
/// event's own.
fn dispatched(stream: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let text = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    let mut normal = Vec::new();
    let mut bytes = text.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte == b'\r' {
            bytes.next_if(|next| **next == b'\n');
        }
        normal.push(if *byte == b'\r' { b'\n' } else { *byte });
    }
    let mut events = Vec::new();
    let (mut data, mut id): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
    let mut lines: Vec<&[u8]> = normal.split(|byte| *byte == b'\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            events.extend(data.take().map(|data| (data, id.clone())));
            id = None;
            continue;
        }
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        match name {
            b"data" => data = Some(data.map_or(value.clone(), |data| [&data[..], b"\n", &value].concat())),
            b"id" => id = Some(value),
            _ => {}
        }
    }
    events
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let ending = prop::sample::select(vec!["\n", "\r", "\r\n"]);
    let line = prop_oneof![
        4 => "data: ?[a-c: ]{0,4}",
        1 => "id: [0-9]{1,2}",
        1 => ":[a-c]{0,3}",
        1 => "[a-c]{0,3}",
        3 => Just(String::new()),
    ];
    let uniform = (ending.clone(), prop::collection::vec(line.clone(), 0..16))
        .prop_map(|(ending, lines)| lines.into_iter().map(|line| line + ending).collect::<String>());
    let mixed = prop::collection::vec((line, ending), 0..16)
        .prop_map(|lines| lines.into_iter().map(|(line, ending)| line + ending).collect::<String>());
    (any::<bool>(), prop_oneof![uniform, mixed])
        .prop_map(|(bom, text)| if bom { format!("\u{feff}{text}") } else { text })
        .prop_map(String::into_bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_events_do_not_depend_on_the_chunks(stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            chunks.push(&stream[start..cut]);
            start = cut;
        }
        let whole = frame_chunks(&[&stream]);
        let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&frame_chunks(&chunks), &whole);
        prop_assert_eq!(&frame_chunks(&bytewise), &whole);
        prop_assert_eq!(whole.iter().flat_map(|event| event.raw().to_vec()).collect::<Vec<u8>>(), stream);
    }

    #[test]
    fn the_events_are_those_of_the_standard(stream in stream()) {
        let ours: Vec<_> = frame_chunks(&[&stream])
            .iter()
            .filter(|event| event.raw().ends_with(b"\n") || event.raw().ends_with(b"\r"))
            .filter_map(|event| Some((event.data()?.to_vec(), event.id().map(|id| id.as_bytes().to_vec()))))
            .collect();
        let mut theirs = dispatched(&stream);
        // What was never closed is handed out at the end although it does not count.
        if ours.len() > theirs.len() {
            prop_assert_eq!(ours.len(), theirs.len() + 1);
            theirs.push(ours[ours.len() - 1].clone());
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn replaced_data_is_read_back(stream in stream(), data in "[a-c{}\":\n]{0,12}") {
        for event in frame_chunks(&[&stream]).into_iter().filter(|event| event.data().is_some()) {
            let replaced = event.with_data(data.as_bytes());
            prop_assert_eq!(replaced.data().unwrap(), data.as_bytes());
            prop_assert_eq!(replaced.id(), event.id());
            // Mixed line endings may meet and leave a blank line over, which is nothing.
            let again = frame_chunks(&[replaced.raw()]);
            prop_assert_eq!(again.iter().filter_map(Event::data).collect::<Vec<_>>(), [data.as_bytes()]);
        }
    }
}
