//! The clients of idle streams: a process that opens them, holds them, and tells when what is said to all of them has arrived. It is
//! driven in lines: a number on standard input opens so many more streams, `say` has something said; each is answered with a line.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet, spawn_blocking};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::load::initialize;
use super::wire::Connection;
use super::work::{self, INITIALIZE, INITIALIZED, Work};

/// How a client holds a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `initialize` and a GET, of 2025-11-25; a node keeps nothing between the two.
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05.
    HttpSse,
    Websocket,
}

/// What a holder is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Holding {
    pub work: Work,
    pub kind: Kind,
    /// Where something is said to all streams, and by whom.
    pub say_at: String,
    pub sayer: Option<String>,
}

/// When something that was said to all streams arrived, in microseconds since it was said.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Arrived {
    pub first: f64,
    pub last: f64,
}

/// What all streams share.
struct Arrivals {
    awaited: RefCell<Awaited>,
    complete: Notify,
}

/// What is on its way to all streams.
#[derive(Default)]
struct Awaited {
    message: Vec<u8>,
    missing: usize,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Serves until standard input ends.
pub async fn serve(holding: Holding) -> anyhow::Result<()> {
    LocalSet::new().run_until(hold(holding)).await
}

async fn hold(holding: Holding) -> anyhow::Result<()> {
    let arrivals = Rc::new(Arrivals { awaited: RefCell::default(), complete: Notify::new() });
    let (mut posts, mut sayer) = (Connection::open(&holding.work.address).await?, Connection::open(&holding.work.address).await?);
    let mut streams = JoinSet::new();
    let mut said = 0;
    // On another thread: streams are answered for meanwhile.
    while let Some(line) = spawn_blocking(|| std::io::stdin().lines().next().transpose()).await?? {
        let answer = if line == "say" {
            said += 1;
            let arrived = say(&holding, said, &mut sayer, &arrivals, &mut streams).await?;
            serde_json::to_string(&arrived)?
        } else {
            for _ in 0..line.parse()? {
                let stream = Stream::open(&holding, streams.len(), &mut posts).await?;
                streams.spawn_local(stream.listen(arrivals.clone()));
            }
            "open".to_owned()
        };
        std::io::Write::write_all(&mut std::io::stdout(), format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

/// Has something said, and waits until it is everywhere.
async fn say(
    holding: &Holding,
    number: u32,
    by: &mut Connection,
    arrivals: &Arrivals,
    streams: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Arrived> {
    let message =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"news {number}"}}}}"#);
    let place = Work { path: holding.say_at.clone(), ..holding.work.clone() };
    let request = work::post(&place, &work::authorization(holding.sayer.as_deref()), &message);
    *arrivals.awaited.borrow_mut() = Awaited { message: message.into(), missing: streams.len(), ..Awaited::default() };
    let began = Instant::now();
    by.tcp.write_all(&request).await?;
    tokio::select! {
        () = arrivals.complete.notified() => {}
        Some(ended) = streams.join_next() => ended?.and_then(|()| bail!("a stream ended"))?,
    }
    let head = by.head().await?;
    let mut body = Vec::new();
    by.body(head.length, &mut body).await?;
    anyhow::ensure!(head.status == 200, "{}: status {}: {}", holding.say_at, head.status, String::from_utf8_lossy(&body));
    let awaited = arrivals.awaited.borrow();
    let since = |moment: Option<Instant>| moment.map(|moment| moment.duration_since(began).as_secs_f64() * 1e6);
    let (first, last) = since(awaited.first).zip(since(awaited.last)).context("there are no streams")?;
    Ok(Arrived { first, last })
}

impl Arrivals {
    fn arrived(&self, message: &[u8]) -> anyhow::Result<()> {
        let mut awaited = self.awaited.borrow_mut();
        if awaited.message != message || awaited.missing == 0 {
            bail!("an unexpected message: {}", String::from_utf8_lossy(message));
        }
        let now = Instant::now();
        awaited.first.get_or_insert(now);
        awaited.last = Some(now);
        awaited.missing -= 1;
        if awaited.missing == 0 {
            self.complete.notify_one();
        }
        Ok(())
    }
}

/// One client's stream, initialised and silent.
enum Stream {
    Events(Events),
    Socket(Box<WebSocketStream<TcpStream>>),
}

impl Stream {
    async fn open(holding: &Holding, number: usize, posts: &mut Connection) -> anyhow::Result<Self> {
        let work = holding.work.of_user(number);
        Ok(match holding.kind {
            Kind::StreamableHttp => {
                let mut connection = Connection::open(&work.address).await?;
                let session = initialize(&mut connection, &work).await?;
                let session = format!("mcp-protocol-version: 2025-11-25\r\nmcp-session-id: {session}\r\n");
                Self::Events(Events::open(connection, &work, &session).await?)
            }
            Kind::HttpSse => Self::Events(http_sse(work, posts).await?),
            Kind::Websocket => Self::Socket(Box::new(socket(&work).await?)),
        })
    }

    async fn listen(mut self, arrivals: Rc<Arrivals>) -> anyhow::Result<()> {
        loop {
            match &mut self {
                Self::Events(events) => arrivals.arrived(&events.next().await?)?,
                Self::Socket(socket) => arrivals.arrived(text(socket).await?.as_bytes())?,
            }
        }
    }
}

/// The events of an answer.
struct Events {
    connection: Connection,
    received: Vec<u8>,
}

impl Events {
    async fn open(mut connection: Connection, work: &Work, headers: &str) -> anyhow::Result<Self> {
        connection.tcp.write_all(&work::listen(work, headers)).await?;
        let head = connection.head().await?;
        anyhow::ensure!(head.status == 200, "a stream was answered with status {}", head.status);
        Ok(Self { connection, received: Vec::new() })
    }

    /// The data of the next event that has some; comments have none.
    async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            while let Some(end) = memmem::find(&self.received, b"\n\n") {
                let event: Vec<u8> = self.received.drain(..end + 2).collect();
                let mut lines = event.split(|byte| *byte == b'\n');
                if let Some(data) = lines.find_map(|line| line.strip_prefix(b"data:")) {
                    return Ok(data.trim_ascii_start().to_vec());
                }
            }
            anyhow::ensure!(self.connection.chunk(&mut self.received).await?, "a stream ended");
        }
    }
}

/// The first event says where to post; what is posted is answered on the stream.
async fn http_sse(work: Work, posts: &mut Connection) -> anyhow::Result<Events> {
    let stream = Work { path: work.beside("sse"), ..work.clone() };
    let mut events = Events::open(Connection::open(&work.address).await?, &stream, "").await?;
    let endpoint = Work { path: String::from_utf8(events.next().await?)?, ..work };
    let authorization = work::authorization(endpoint.tokens.first().map(String::as_str));
    for (message, is_answered) in [(INITIALIZE, true), (INITIALIZED, false)] {
        posts.tcp.write_all(&work::post(&endpoint, &authorization, message)).await?;
        let head = posts.head().await?;
        let mut body = Vec::new();
        posts.body(head.length, &mut body).await?;
        anyhow::ensure!(head.status == 202, "{message}: status {}: {}", head.status, String::from_utf8_lossy(&body));
        if is_answered {
            opened(&events.next().await?)?;
        }
    }
    Ok(events)
}

async fn socket(work: &Work) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let tcp = TcpStream::connect(&work.address).await?;
    tcp.set_nodelay(true)?;
    let mut request = format!("ws://{}{}", work.address, work.beside("ws")).into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "mcp".parse()?);
    if let Some(token) = work.tokens.first() {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
    let (mut socket, _answer) = client_async_with_config(request, tcp, Some(config)).await?;
    socket.send(Message::text(INITIALIZE)).await?;
    opened(text(&mut socket).await?.as_bytes())?;
    socket.send(Message::text(INITIALIZED)).await?;
    Ok(socket)
}

/// The next message; pings are answered on the way.
async fn text(socket: &mut WebSocketStream<TcpStream>) -> anyhow::Result<Utf8Bytes> {
    loop {
        match socket.next().await.context("a socket ended")?? {
            Message::Text(text) => return Ok(text),
            Message::Ping(_) => socket.flush().await?,
            other => bail!("an unexpected frame: {other:?}"),
        }
    }
}

fn opened(answer: &[u8]) -> anyhow::Result<()> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    anyhow::ensure!(answer["result"]["protocolVersion"].is_string(), "initialize: {answer}");
    Ok(())
}
