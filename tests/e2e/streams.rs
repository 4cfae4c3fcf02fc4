//! Streams as legacy clients have them at one node: events of an answer, WebSocket, HTTP+SSE.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcpgw_dataplane::sse::Framer;
use mcpgw_tests::fleet::ORG;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const PATIENCE: Duration = Duration::from_secs(60);

/// The first message of a client.
pub fn opening() -> Value {
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
}

/// A call with one argument.
pub fn call(tool: &str, say: &str) -> Value {
    let params = json!({"name": tool, "arguments": {"say": say}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
}

/// Events of an answer, one message after the other.
pub struct Heard {
    body: Incoming,
    framer: Framer,
}

impl Heard {
    pub fn of(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), framer: Framer::new(1 << 20) }
    }

    /// The next message; null at the end.
    pub async fn next(&mut self) -> Value {
        tokio::time::timeout(PATIENCE, self.advance()).await.expect("something comes")
    }

    async fn advance(&mut self) -> Value {
        loop {
            while let Ok(Some(event)) = self.framer.next_event() {
                let Some(data) = event.data().filter(|data| !data.is_empty()) else { continue };
                if event.event_type() == "endpoint" {
                    return json!(String::from_utf8_lossy(&data));
                }
                return serde_json::from_slice(&data).unwrap();
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.framer.push(frame.into_data().unwrap()),
                Some(Err(_)) | None => return Value::Null,
            }
        }
    }
}

/// A WebSocket at one node.
pub struct Socket(tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>);

impl Socket {
    pub async fn open(node: SocketAddr, server: &str, key: &str) -> Self {
        let mut request = format!("ws://{node}/o/{ORG}/servers/{server}/ws").into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        Self::by(node, request).await
    }

    /// Opened without any header.
    pub async fn with_ticket(node: SocketAddr, path: &str) -> Self {
        Self::by(node, format!("ws://{node}{path}").into_client_request().unwrap()).await
    }

    async fn by(node: SocketAddr, request: tokio_tungstenite::tungstenite::handshake::client::Request) -> Self {
        let stream = tokio::net::TcpStream::connect(node).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        futures_util::SinkExt::send(&mut socket, Message::text(opening().to_string())).await.unwrap();
        let mut socket = Self(socket);
        assert!(socket.hears().await["result"]["serverInfo"].is_object());
        socket
    }

    /// What a call is answered with.
    pub async fn call(&mut self, tool: &str, say: &str) -> String {
        futures_util::SinkExt::send(&mut self.0, Message::text(call(tool, say).to_string())).await.unwrap();
        self.hears().await["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
    }

    /// The next message.
    pub async fn hears(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("not a message: {other}"),
            }
        }
    }

    /// Returns when the next frame is a question for a sign of life.
    pub async fn pinged(&mut self) {
        let frame = self.next().await;
        assert!(matches!(frame, Message::Ping(_)), "{frame}");
    }

    async fn next(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something comes").unwrap().unwrap()
    }

    /// The code that it is closed with.
    pub async fn closed(&mut self) -> u16 {
        let closing = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return 0,
                }
            }
        };
        tokio::time::timeout(PATIENCE, closing).await.expect("the socket is closed")
    }
}

/// The status with which a socket is refused; 101 if it is not.
pub async fn refused(node: SocketAddr, path: &str) -> u16 {
    let stream = tokio::net::TcpStream::connect(node).await.unwrap();
    match tokio_tungstenite::client_async(format!("ws://{node}{path}"), stream).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Ok(_) => 101,
        Err(error) => panic!("{error}"),
    }
}

/// An event stream of 2024-11-05 at one node.
pub struct Events {
    heard: Heard,
    post_to: String,
    key: String,
    http: Http<HttpConnector, Full<Bytes>>,
}

impl Events {
    pub async fn open(node: SocketAddr, server: &str, key: &str) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        let request = Request::get(format!("http://{node}/o/{ORG}/servers/{server}/sse"));
        let request = request.header("authorization", format!("Bearer {key}")).header("accept", "text/event-stream");
        let answer = http.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut heard = Heard::of(answer);
        let endpoint = heard.next().await;
        let post_to = format!("http://{node}{}", endpoint.as_str().unwrap());
        Self { heard, post_to, key: key.to_owned(), http }
    }

    /// The same, with the server made ready.
    pub async fn begun(node: SocketAddr, server: &str, key: &str) -> Self {
        let mut events = Self::open(node, server, key).await;
        assert_eq!(events.post(&opening()).await, 202);
        assert!(events.hears().await["result"]["serverInfo"].is_object());
        events
    }

    /// The status that a message meets.
    pub async fn post(&self, message: &Value) -> u16 {
        let request = Request::post(&self.post_to).header("authorization", format!("Bearer {}", self.key));
        let body = message.to_string();
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(body))).unwrap();
        self.http.request(request).await.unwrap().status().as_u16()
    }

    /// The next message; null at the end.
    pub async fn hears(&mut self) -> Value {
        self.heard.next().await
    }

    /// Returns when the stream is over.
    pub async fn ended(mut self) {
        while !self.heard.next().await.is_null() {}
    }
}
