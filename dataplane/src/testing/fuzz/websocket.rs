//! Sockets: whatever frames a client sends, nothing panics and nothing larger than allowed gets through; a message in any number of
//! fragments arrives as it was sent.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket};

use super::first;
use crate::relay::sessions::socket::protocol;
use crate::transport::message;
use crate::transport::scan::Limits;

/// What answers a close whose code nobody may send: a header, another code, and tungstenite's words for it.
const REFUSED_CLOSE: usize = 2 + 2 + "Protocol violation".len();

/// Small, so that the limits are met.
const LIMITS: Limits = Limits { bytes: 1024, depth: 64, batch: 8 };

/// Even first byte: the rest is what a client sends, frames and all. Odd: a text that the client sends in fragments.
pub fn websocket(data: &[u8]) {
    let (choice, rest) = first(data);
    if choice % 2 == 0 { anything(rest) } else { fragments(choice / 2, rest) }
}

fn anything(sent: &[u8]) {
    let (heard, answered) = converse(sent);
    let said: usize = heard.iter().filter(|frame| !frame.is_close()).map(Message::len).sum();
    assert!(said <= sent.len(), "nothing is heard that was not sent");
    // A pong repeats a ping and a close repeats a code, without the client's mask; there is one close.
    assert!(answered <= sent.len() + REFUSED_CLOSE, "{answered} bytes answer {}", sent.len());
    for frame in heard {
        assert!(frame.len() <= LIMITS.bytes.max(125), "{} bytes", frame.len());
        if let Message::Text(text) = frame {
            let _refused_or_not = message(&text.into(), &LIMITS);
        }
    }
}

fn fragments(size: usize, rest: &[u8]) {
    let text = String::from_utf8_lossy(rest);
    let mut sent = Vec::new();
    let mut pieces = text.as_bytes().chunks(size.max(1)).peekable();
    let mut opcode = 1;
    while let Some(piece) = pieces.next() {
        frame(u8::from(pieces.peek().is_none()) << 7 | opcode, piece, &mut sent);
        // Control frames may stand between fragments (RFC 6455 section 5.4).
        frame(0x89, b"?", &mut sent);
        opcode = 0;
    }
    let (heard, _) = converse(&sent);
    let heard: Vec<_> = heard.into_iter().filter(|frame| !frame.is_ping()).collect();
    if text.is_empty() {
        assert!(heard.is_empty());
    } else if text.len() > LIMITS.bytes {
        assert!(heard.is_empty(), "too large");
    } else {
        assert_eq!(heard, [Message::text(text.as_ref())]);
    }
}

/// A frame of a client, with a mask that hides nothing.
fn frame(head: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(head);
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => out.push(0x80 | length),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(payload.len()).expect("pieces are small").to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// What is heard until the end or an error, and how many bytes are answered.
fn converse(sent: &[u8]) -> (Vec<Message>, usize) {
    let wire = Wire { sent: Bytes::copy_from_slice(sent), answered: 0 };
    let mut socket = WebSocket::from_raw_socket(wire, Role::Server, Some(protocol(&LIMITS)));
    let mut heard = Vec::new();
    while let Ok(frame) = socket.read() {
        heard.push(frame);
        assert!(heard.len() <= sent.len(), "every frame has a header");
    }
    // What still waits to be sent.
    let _at_its_end = socket.flush();
    (heard, socket.get_ref().answered)
}

struct Wire {
    sent: Bytes,
    answered: usize,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.sent.split_to(self.sent.len().min(buffer.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answered += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
