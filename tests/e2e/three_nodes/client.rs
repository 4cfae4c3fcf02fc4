//! Legacy clients: of Streamable HTTP through the proxy, of WebSocket and HTTP+SSE at one node.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcpgw_dataplane::sse::Framer;
use mcpgw_tests::fleet::ORG;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::world::{NAME, World};

const PATIENCE: Duration = Duration::from_secs(60);

/// A client with a session.
pub struct Client {
    url: String,
    key: String,
    number: usize,
    http: Http<HttpConnector, Full<Bytes>>,
    session: Mutex<String>,
}

/// How a client's work went.
pub struct Outcome {
    pub answered: usize,
    pub started_over: usize,
}

/// Events of an answer, one message after the other.
pub struct Heard {
    body: Incoming,
    framer: Framer,
}

impl Heard {
    fn of(response: Response<Incoming>) -> Self {
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

impl Client {
    pub async fn open(world: &World, number: usize) -> Self {
        Self::with(world, number, &world.key).await
    }

    pub async fn with(world: &World, number: usize, key: &str) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        let client = Self { url: world.url(), key: key.to_owned(), number, http, session: Mutex::default() };
        assert!(client.begin().await, "the session opens");
        client
    }

    async fn begin(&self) -> bool {
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {"elicitation": {}}, "clientInfo": {"name": "t", "version": "1"}});
        self.session.lock().await.clear();
        let opening = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let Some(answer) = self.send(Method::POST, &opening.to_string()).await else { return false };
        let Some(session) = answer.headers().get("mcp-session-id") else { return false };
        *self.session.lock().await = session.to_str().unwrap().to_owned();
        let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        self.send(Method::POST, &note).await.is_some_and(|answer| answer.status() == 202)
    }

    async fn send(&self, method: Method, body: &str) -> Option<Response<Incoming>> {
        let accept = if method == Method::GET { "text/event-stream" } else { "application/json, text/event-stream" };
        let mut request = Request::builder().method(method).uri(&self.url).header("accept", accept);
        request = request.header("authorization", format!("Bearer {}", self.key)).header("content-type", "application/json");
        let session = self.session.lock().await.clone();
        if !session.is_empty() {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-06-18");
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        tokio::time::timeout(PATIENCE, self.http.request(request)).await.expect("an answer in time").ok()
    }

    /// Calls so often, every tenth time with a question in between; how many went wrong.
    pub async fn calls(&self, count: usize) -> usize {
        let mut failures = 0;
        for call in 0..count {
            if let Err(why) = self.call(call).await {
                eprintln!("client {}, call {call}: {why}", self.number);
                failures += 1;
            }
        }
        failures
    }

    /// One call, whose answer has to name this client and this call.
    async fn call(&self, call: usize) -> Result<(), String> {
        let nonce = format!("{}-{call}", self.number);
        let tool = if call % 10 == 9 { "ask" } else { "echo" };
        let params = json!({"name": tool, "arguments": {"say": nonce}});
        let message = json!({"jsonrpc": "2.0", "id": call + 1, "method": "tools/call", "params": params}).to_string();
        let answer = self.send(Method::POST, &message).await.ok_or("no answer")?;
        if answer.status() != 200 {
            return Err(format!("status {}", answer.status()));
        }
        let is_stream = answer.headers()["content-type"] == "text/event-stream";
        if !is_stream {
            let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
            return named(&serde_json::from_slice(&body).unwrap(), &nonce);
        }
        let mut heard = Heard::of(answer);
        loop {
            let message = heard.next().await;
            if message["method"] == "elicitation/create" {
                if message["params"]["message"] != *nonce {
                    return Err(format!("somebody else's question: {message}"));
                }
                let result = json!({"action": "accept", "content": {"say": nonce}});
                let said = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
                let taken = self.send(Method::POST, &said).await.ok_or("no answer")?;
                if taken.status() != 202 {
                    return Err(format!("the answer to a question met status {}", taken.status()));
                }
            } else if message.is_null() {
                return Err("the stream broke off".into());
            } else if message.get("method").is_none() {
                return named(&message, &nonce);
            }
        }
    }

    /// Calls so often, starting over whenever the session is gone.
    pub async fn finishes(&self, count: usize, called: &AtomicUsize, killed: &AtomicBool) -> Outcome {
        let mut outcome = Outcome { answered: 0, started_over: 0 };
        let mut attempts = 0;
        while outcome.answered < count {
            match self.call(outcome.answered).await {
                Ok(()) => {
                    outcome.answered += 1;
                    called.fetch_add(1, Relaxed);
                }
                Err(why) => {
                    attempts += 1;
                    assert!(attempts < 50, "client {}: {why}", self.number);
                    if why.contains("404") {
                        assert!(killed.load(Relaxed) || attempts > 0);
                        while !self.begin().await {
                            attempts += 1;
                            assert!(attempts < 50, "client {}: no new session", self.number);
                        }
                        outcome.started_over += 1;
                    }
                }
            }
        }
        outcome
    }

    /// The stream for what answers no request.
    pub async fn listen(&self) -> Heard {
        let answer = self.send(Method::GET, "").await.unwrap();
        assert_eq!(answer.status(), 200);
        Heard::of(answer)
    }
}

fn named(answer: &Value, nonce: &str) -> Result<(), String> {
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    if text == nonce { Ok(()) } else { Err(format!("not the answer to {nonce}: {answer}")) }
}

/// A WebSocket at one node.
pub struct Socket(tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>);

impl Socket {
    pub async fn open(node: SocketAddr, key: &str) -> Self {
        let mut request = format!("ws://{node}/o/{ORG}/servers/{NAME}/ws").into_client_request().unwrap();
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
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let opening = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string();
        futures_util::SinkExt::send(&mut socket, Message::text(opening)).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert!(answer.to_text().unwrap().contains("fixture"), "{answer}");
        Self(socket)
    }

    /// What a call is answered with.
    pub async fn call(&mut self, say: &str) -> String {
        let params = json!({"name": "echo", "arguments": {"say": say}});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        futures_util::SinkExt::send(&mut self.0, Message::text(call)).await.unwrap();
        let answer = self.0.next().await.unwrap().unwrap();
        let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
        answer["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
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
    pub async fn open(node: SocketAddr, key: &str) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        let request = Request::get(format!("http://{node}/o/{ORG}/servers/{NAME}/sse"));
        let request = request.header("authorization", format!("Bearer {key}")).header("accept", "text/event-stream");
        let answer = http.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut heard = Heard::of(answer);
        let endpoint = heard.next().await;
        let post_to = format!("http://{node}{}", endpoint.as_str().unwrap());
        Self { heard, post_to, key: key.to_owned(), http }
    }

    /// The status that a message meets.
    pub async fn post(&self) -> u16 {
        let request = Request::post(&self.post_to).header("authorization", format!("Bearer {}", self.key));
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(body))).unwrap();
        self.http.request(request).await.unwrap().status().as_u16()
    }

    /// Returns when the stream is over.
    pub async fn ended(mut self) {
        while !self.heard.next().await.is_null() {}
    }
}
