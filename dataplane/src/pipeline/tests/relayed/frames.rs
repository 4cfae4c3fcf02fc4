//! Sockets whose clients break the protocol, do not answer or do not read: each is closed for its reason, nothing of it arrives, and
//! nobody else notices.

use std::time::Duration;

use mcp_gateway::proto::config::v1::Transport;
use mcp_gateway::proto::node::v1::Outcome::{self, Cancelled, Denied, Ok as Fine};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::super::scope::{ENGINEER, GITHUB, bearer};
use super::super::world::Gateway;
use super::client::Client;
use super::conversation::scope;
use super::server::Server;
use crate::config::Config;
use crate::transport::ClientTransport;

const PATIENCE: Duration = Duration::from_secs(20);
const MOST: usize = 64 << 10;

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

async fn world(change: impl FnOnce(&mut Config)) -> (Gateway, Server) {
    let server = Server::start(Transport::Websocket).await;
    (Gateway::with(Some(&scope(&server)), change).await, server)
}

/// A connection that was made a socket; what goes over it is the test's.
async fn upgraded(gateway: &Gateway) -> TcpStream {
    let mut request = format!("ws://{}/servers/{GITHUB}/ws", gateway.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", bearer(ENGINEER).parse().unwrap());
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    client_async(request, stream).await.unwrap().0.into_inner()
}

/// A frame as clients send it, with a mask that hides nothing.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(head, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

fn header(head: u8, length: u64) -> Vec<u8> {
    let mut out = vec![head];
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out
}

/// The code of the close frame that ends what the gateway says; none if there is no such frame.
async fn close_code(mut stream: TcpStream) -> Option<u16> {
    let mut said = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the gateway hangs up").unwrap();
    let mut rest = &said[..];
    while let [head, length, behind @ ..] = rest {
        assert!(*length < 126, "control frames alone: {said:?}");
        let (payload, behind) = behind.split_at(usize::from(*length));
        if *head == FIN | CLOSE {
            assert!(behind.is_empty(), "nothing comes after a close: {said:?}");
            return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        }
        rest = behind;
    }
    None
}

/// The outcome of the only socket so far, once it is on record and its session is over.
async fn outcome(gateway: &Gateway) -> Outcome {
    let over = async {
        loop {
            let records = gateway.records();
            let sockets: Vec<_> = records.iter().filter(|(decided, _)| decided.method == "GET").collect();
            assert_eq!(sockets.len(), 1);
            match &sockets[0].1 {
                Some(ended) if gateway.sessions().await == 0 => return ended.outcome(),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, over).await.expect("the socket is on record and its session is over")
}

#[rustfmt::skip]
fn broken() -> Vec<(&'static str, Vec<u8>, u16, Outcome)> {
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let message = message.as_bytes();
    let in_pieces = |pieces: &[Vec<u8>]| pieces.concat();
    let unmasked = [&[FIN | TEXT, message.len() as u8], message].concat();
    vec![
        ("binary", frame(FIN | BINARY, message), 1003, Denied),
        ("binary in pieces", in_pieces(&[frame(BINARY, &message[..5]), frame(FIN, &message[5..])]), 1003, Denied),
        ("unmasked", unmasked, 1002, Denied),
        ("compressed, which nobody offered", frame(FIN | 0x40 | TEXT, message), 1002, Denied),
        ("a kind of frame that there is not", frame(FIN | 3, message), 1002, Denied),
        ("a kind of control frame that there is not", frame(FIN | 0xb, b""), 1002, Denied),
        ("a ping in pieces", frame(PING, b"?"), 1002, Denied),
        ("a ping that is too large", frame(FIN | PING, &[0; 126]), 1002, Denied),
        ("the rest of nothing", frame(FIN, message), 1002, Denied),
        ("a message in a message", in_pieces(&[frame(TEXT, &message[..5]), frame(FIN | TEXT, message)]), 1002, Denied),
        ("no UTF-8", frame(FIN | TEXT, b"{\"jsonrpc\":\"\xff\"}"), 1007, Denied),
        ("half a character", in_pieces(&[frame(TEXT, b"\xc3"), frame(FIN, b"(")]), 1007, Denied),
        ("more than allowed, by its header", header(FIN | TEXT, MOST as u64 + 1), 1009, Denied),
        ("more than there is memory, by its header", header(FIN | TEXT, u64::MAX >> 1), 1009, Denied),
        ("more than allowed, in pieces", in_pieces(&[frame(TEXT, &[b' '; MOST]), frame(FIN, b" ")]), 1009, Denied),
        ("a close with a code that nobody may send", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002, Fine),
        ("a close with half a code", frame(FIN | CLOSE, &[3]), 1002, Denied),
        ("a close like any other", frame(FIN | CLOSE, &1001_u16.to_be_bytes()), 1001, Fine),
    ]
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_socket_for_its_reason_and_nothing_of_it_arrives() {
    for (what, sent, code, expected) in broken() {
        let (gateway, server) = world(|config| config.limits.body_bytes_max = MOST as u64).await;
        let mut other = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::StreamableHttp).await;
        let mut stream = upgraded(&gateway).await;
        stream.write_all(&sent).await.unwrap();
        assert_eq!(close_code(stream).await, Some(code), "{what}");
        assert_eq!(outcome(&gateway).await, expected, "{what}");
        assert_eq!(server.seen(), Vec::<Value>::new(), "{what}");
        other.open("2025-06-18").await;
    }
}

#[tokio::test]
async fn the_largest_message_arrives_in_pieces_with_pings_between() {
    let (gateway, server) = world(|config| config.limits.body_bytes_max = MOST as u64).await;
    let mut stream = upgraded(&gateway).await;
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let mut message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string();
    message.push_str(&" ".repeat(MOST - message.len()));
    let (first, rest) = message.as_bytes().split_at(1000);
    for part in [frame(TEXT, first), frame(FIN | PING, b"?"), frame(FIN, rest)] {
        stream.write_all(&part).await.unwrap();
    }
    server.hears(|message| message["method"] == "initialize").await;
}

#[tokio::test]
async fn a_client_that_is_gone_in_the_middle_of_a_frame_leaves_nothing_behind() {
    let (gateway, server) = world(|_| {}).await;
    let mut stream = upgraded(&gateway).await;
    let sent = frame(FIN | TEXT, br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    stream.write_all(&sent[..sent.len() - 1]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(outcome(&gateway).await, Cancelled);
    assert_eq!(server.seen(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_client_that_never_answers_a_ping_is_closed() {
    let (gateway, _server) = world(|config| config.transports.websocket.keep_alive = Duration::from_millis(20)).await;
    let stream = upgraded(&gateway).await;
    assert_eq!(close_code(stream).await, Some(1001));
    assert_eq!(outcome(&gateway).await, Cancelled);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_socket_and_nobody_else_notices() {
    let (gateway, server) = world(|config| config.sessions.write = Duration::from_millis(50)).await;
    let mut stream = upgraded(&gateway).await;
    let mut say = async |message: Value| stream.write_all(&frame(FIN | TEXT, message.to_string().as_bytes())).await;
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    say(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).await.unwrap();
    say(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await.unwrap();
    // More than any buffer of the kernel's holds, until the gateway hangs up.
    let arguments = json!({"say": "x".repeat(1 << 20)});
    let mut asked = 0;
    let flood = async {
        loop {
            asked += 1;
            let params = json!({"name": "echo", "arguments": arguments});
            if say(json!({"jsonrpc": "2.0", "id": asked, "method": "tools/call", "params": params})).await.is_err() {
                break;
            }
        }
    };
    timeout(PATIENCE, flood).await.expect("the gateway hangs up");
    assert_eq!(outcome(&gateway).await, Cancelled);
    assert!(!server.heard("tools/call").is_empty());
    let mut other = Client::connect(&gateway, GITHUB, &bearer(ENGINEER), ClientTransport::WebSocket).await;
    other.open("2025-06-18").await;
    assert_eq!(other.call(json!(1), "echo", json!({"say": "hi"})).await["result"]["content"][0]["text"], "hi");
}
