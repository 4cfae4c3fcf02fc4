//! WebSocket servers: one JSON-RPC message per text frame, subprotocol `mcp` (MCP.md section 4). The session is the socket.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ::http::Uri;
use ::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::super::Upstreams;
use super::{Ends, FromServer, LinkError, Way};

/// Either kind of connection.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A socket to a server.
pub(super) struct Connector {
    socket: WebSocketStream<Box<dyn Io>>,
    keep_alive: std::time::Duration,
}

impl Connector {
    /// Connects and upgrades, all within the time for connecting.
    pub async fn open(way: &Way, upstreams: &Upstreams) -> Result<Self, LinkError> {
        let opening = async {
            match upgrade(way, upstreams, true).await {
                // Servers that know no subprotocols take none: then there is none.
                Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol))) => {
                    upgrade(way, upstreams, false).await
                }
                upgraded => upgraded,
            }
        };
        let opened = timeout(way.connect_timeout, opening).await;
        let socket = opened.map_err(|_elapsed| LinkError::Socket("it took too long".into()))?;
        let socket = socket.map_err(|error| LinkError::Socket(words(&error)))?;
        Ok(Self { socket, keep_alive: way.keep_alive })
    }

    /// Carries messages until either side is gone. Both ways at once: a server that does not read before it has said what it has to say would
    /// otherwise be waited for by whoever it waits for.
    pub async fn run(self, ends: Ends) {
        let Ends { mut to, from, closed } = ends;
        let (mut sink, mut stream) = self.socket.split();
        let (keep_alive, heard) = (self.keep_alive, AtomicBool::new(true));
        let listening = async {
            loop {
                let next = stream.next().await;
                heard.store(true, Relaxed);
                match next {
                    Some(Ok(Message::Text(text))) => {
                        let message = FromServer::Message { message: Bytes::from(text), about: None };
                        if from.send(message).await.is_err() {
                            return String::new();
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Binary(_))) => return "it sent a binary frame".into(),
                    Some(Ok(Message::Close(_))) | None => return "it closed the socket".into(),
                    Some(Err(error)) => return words(&error),
                }
            }
        };
        let telling = async {
            let mut ticks = tokio::time::interval_at(Instant::now() + keep_alive, keep_alive);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let frame = tokio::select! {
                    message = to.recv() => {
                        let Some(message) = message else { return String::new() };
                        let Ok(text) = Utf8Bytes::try_from(message.message) else { continue };
                        Message::Text(text)
                    }
                    _ = ticks.tick() => {
                        if !heard.swap(false, Relaxed) {
                            return "it did not answer a ping".into();
                        }
                        Message::Ping(Bytes::new())
                    }
                };
                match timeout(keep_alive, sink.send(frame)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return words(&error),
                    Err(_elapsed) => return "it does not read".into(),
                }
            }
        };
        let why = tokio::select! {
            () = closed.cancelled() => String::new(),
            why = listening => why,
            why = telling => why,
        };
        let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        let part = async {
            // Refused where the server closed: the answer to that is what is left to send.
            let _refused = sink.feed(Message::Close(Some(close))).await;
            sink.close().await
        };
        // It may be gone already.
        let _ = timeout(keep_alive, part).await;
        // Nobody listens any more: then nobody has to know.
        let _ = from.send(FromServer::Down { why }).await;
    }
}

/// Connects and upgrades; `offers`: whether the subprotocol is offered.
async fn upgrade(way: &Way, upstreams: &Upstreams, offers: bool) -> Result<WebSocketStream<Box<dyn Io>>, Error> {
    let io = connect(&way.url, upstreams).await?;
    let mut request = way.url.clone().into_client_request()?;
    let headers = request.headers_mut();
    if offers {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mcp"));
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mcpgw/", env!("CARGO_PKG_VERSION"))));
    if let Some((name, value)) = &way.credential {
        headers.insert(name.clone(), value.clone());
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(way.message_bytes))
        .max_frame_size(Some(way.message_bytes));
    let (socket, _answer) = client_async_with_config(request, io, Some(config)).await?;
    Ok(socket)
}

async fn connect(url: &Uri, upstreams: &Upstreams) -> io::Result<Box<dyn Io>> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let secure = url.scheme_str() == Some("wss");
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    if !secure {
        return Ok(Box::new(stream));
    }
    let name = host.to_owned().try_into().map_err(io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(upstreams.tls()));
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// An error without what it was about: headers hold credentials.
fn words(error: &Error) -> String {
    match error {
        Error::Http(answer) => format!("it answered with status {}", answer.status()),
        Error::Capacity(_) => "a message is too large".into(),
        error => error.to_string(),
    }
}
