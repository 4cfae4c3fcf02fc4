//! A fast MCP server of both eras, on one thread: as little work per call as an answer that can be checked allows. `tools/call` of `echo`
//! is answered with JSON, of `progress` with a stream of ten notifications and the result; a GET opens a stream, or a WebSocket, that stays
//! silent until a POST to `/broadcast` says something to all of them. In the legacy era calls belong to a session. The server at `/mute` has
//! no streams.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::work::{self, Era, ID_DIGITS, Template};

/// The one session that the legacy era knows.
pub const SESSION: &str = "bench-session";
/// What is said to all that a stream may be behind.
const NEWS: usize = 64;
const HEADERS: usize = 64;
const EVENTS: u32 = 10;
const KEEP_ALIVE: Duration = Duration::from_secs(3600);

/// The answers, made once per connection: the number of the request is written in place.
struct Answers {
    modern: Template,
    legacy: Template,
    modern_stream: Template,
    legacy_stream: Template,
}

impl Answers {
    fn new() -> Self {
        Self {
            modern: work::template(plain(&work::answer(Era::Modern))),
            legacy: work::template(plain(&work::answer(Era::Legacy))),
            modern_stream: work::template(stream(Era::Modern)),
            legacy_stream: work::template(stream(Era::Legacy)),
        }
    }
}

/// An answer that is no stream.
fn plain(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n\
                           transfer-encoding: chunked\r\n\r\n";

/// Ten notifications and the result, an event and a chunk each, as an SDK writes them; they leave in one write.
fn stream(era: Era) -> String {
    let messages = (1..=EVENTS).map(work::progress).chain([work::answer(era)]);
    let chunks: String = messages.map(|message| event(&message)).collect();
    format!("{STREAM_HEAD}{chunks}0\r\n\r\n")
}

/// A message as an event, in a chunk.
fn event(message: &str) -> String {
    let event = format!("event: message\ndata: {message}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let (news, mut connections) = (broadcast::Sender::new(NEWS), JoinSet::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(connection(accepted?.0, news.clone()));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn connection(mut tcp: TcpStream, news: broadcast::Sender<Bytes>) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let mut answers = Answers::new();
    let (mut inbox, mut outbox) = (Vec::with_capacity(8192), Vec::with_capacity(4096));
    loop {
        if tcp.read_buf(&mut inbox).await? == 0 {
            return Ok(());
        }
        let (mut taken, mut turn) = (0, Turn::Request);
        while let Some(size) = answer(&inbox[taken..], &mut answers, &mut outbox, &mut turn)? {
            taken += size;
        }
        inbox.drain(..taken);
        // Heard from now on: the client may say something as soon as it has its answer.
        let heard = news.subscribe();
        tcp.write_all(&outbox).await?;
        outbox.clear();
        match turn {
            Turn::Request => {}
            Turn::Said(message) => drop(news.send(message)),
            Turn::Events => return events(tcp, heard).await,
            Turn::Socket => return socket(tcp, heard).await,
        }
    }
}

/// What a connection does after its answers have left.
enum Turn {
    /// The next request.
    Request,
    /// Something is said to everybody.
    Said(Bytes),
    /// It has become a stream,
    Events,
    /// or a socket.
    Socket,
}

/// Asks which eras are spoken.
const DISCOVER: &[u8] = b"\"server/discover\"";

/// A stream that only says what is said to all; the client's end of it is noticed.
async fn events(mut tcp: TcpStream, mut news: broadcast::Receiver<Bytes>) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            message = news.recv() => tcp.write_all(event(std::str::from_utf8(&message?)?).as_bytes()).await?,
            _closed = tcp.readable() => return Ok(()),
            // The bound of a silent stream's life, far beyond any run.
            () = tokio::time::sleep(KEEP_ALIVE) => return Ok(()),
        }
    }
}

/// The same over WebSocket, where a session is opened in it.
async fn socket(tcp: TcpStream, mut news: broadcast::Receiver<Bytes>) -> anyhow::Result<()> {
    let mut socket = WebSocketStream::from_raw_socket(tcp, Role::Server, None).await;
    loop {
        tokio::select! {
            message = news.recv() => socket.send(Message::text(std::str::from_utf8(&message?)?)).await?,
            frame = socket.next() => match frame.transpose()? {
                Some(Message::Text(text)) if text.contains("\"server/discover\"") => {
                    let id = &serde_json::from_str::<serde_json::Value>(&text)?["id"];
                    let error = r#"{"code":-32601,"message":"Method not found"}"#;
                    socket.send(Message::text(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))).await?;
                }
                Some(Message::Text(text)) if text.contains("\"initialize\"") => {
                    socket.send(Message::text(opened(text.as_bytes())?)).await?;
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

/// Answers the request at the beginning of `bytes`, if it is there as a whole; how long it was.
fn answer(bytes: &[u8], answers: &mut Answers, out: &mut Vec<u8>, turn: &mut Turn) -> anyhow::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let (mut length, mut session, mut key) = (0, None, None);
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value)?.parse()?;
        } else if header.name.eq_ignore_ascii_case("mcp-session-id") {
            session = Some(header.value);
        } else if header.name.eq_ignore_ascii_case("sec-websocket-key") {
            key = Some(header.value);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            anyhow::bail!("the mock takes no chunked request");
        }
    }
    match (request.method, request.path, key) {
        (Some("POST"), ..) => {}
        (Some("GET"), Some("/mute"), _) => {
            out.extend_from_slice(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n");
            return Ok(Some(head));
        }
        (Some("GET"), _, Some(key)) => {
            out.extend_from_slice(upgrade(key).as_bytes());
            *turn = Turn::Socket;
            return Ok(Some(head));
        }
        (Some("GET"), ..) => {
            out.extend_from_slice(STREAM_HEAD.as_bytes());
            *turn = Turn::Events;
            return Ok(Some(head));
        }
        _ => {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            return Ok(Some(head));
        }
    }
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    if request.path == Some("/broadcast") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        *turn = Turn::Said(Bytes::copy_from_slice(body));
    } else {
        message(body, session, answers, out)?;
    }
    Ok(Some(head + length))
}

/// The head that makes a connection a socket.
fn upgrade(key: &[u8]) -> String {
    let accept = derive_accept_key(key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\
         sec-websocket-protocol: mcp\r\n\r\n"
    )
}

fn message(body: &[u8], session: Option<&[u8]>, answers: &mut Answers, out: &mut Vec<u8>) -> anyhow::Result<()> {
    if memmem::find(body, b"\"tools/call\"").is_none() {
        return other(body, out);
    }
    let (digits, id) = id(body)?;
    let streamed = memmem::find(body, br#""name":"progress""#).is_some();
    let template = match (session, streamed) {
        (None, false) => &mut answers.modern,
        (None, true) => &mut answers.modern_stream,
        (Some(given), _) if given != SESSION.as_bytes() => {
            out.extend_from_slice(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            return Ok(());
        }
        (Some(_), false) => &mut answers.legacy,
        (Some(_), true) => &mut answers.legacy_stream,
    };
    match id {
        Some(id) => out.extend_from_slice(template.with(id)),
        // Asked by a gateway that counts requests by itself.
        None => {
            let era = if session.is_some() { Era::Legacy } else { Era::Modern };
            out.extend_from_slice(plain(&work::answer_to(era, digits)).as_bytes());
        }
    }
    Ok(())
}

/// The number of a request; and as [`Template::with`] takes it, if the load wrote it.
fn id(body: &[u8]) -> anyhow::Result<(&str, Option<u32>)> {
    let at = memmem::find(body, br#""id":"#).context("a call without an id")? + 5;
    let length = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&body[at..at + length])?;
    let id: u32 = digits.parse().context("a call whose id is no number")?;
    Ok((digits, id.checked_sub(10_000_000).filter(|_| length == ID_DIGITS)))
}

/// What opens a legacy session; anything else is taken note of.
fn other(body: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
    if memmem::find(body, b"\"initialize\"").is_none() && memmem::find(body, DISCOVER).is_none() {
        out.extend_from_slice(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        return Ok(());
    }
    let answer = opened(body)?;
    let length = answer.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: {SESSION}\r\ncontent-length: {length}\r\n\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(answer.as_bytes());
    Ok(())
}

/// The answer to `initialize`.
fn opened(body: &[u8]) -> anyhow::Result<String> {
    let id = &serde_json::from_slice::<serde_json::Value>(body)?["id"];
    let result = if memmem::find(body, DISCOVER).is_some() {
        r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}"#
    } else {
        r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"mock","version":"1"}}"#
    };
    Ok(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}
