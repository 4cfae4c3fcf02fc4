//! One legacy client over any of the transports: says messages, hears messages, in the order in which they come.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::super::world::Gateway;
use crate::sse::Framer;
use crate::transport::ClientTransport;

/// A connected client.
pub struct Client {
    transport: ClientTransport,
    base: String,
    credential: String,
    http: Http<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    /// Where messages are posted, or into a socket.
    post_to: String,
    socket: Option<UnboundedSender<Message>>,
    pub session: Option<String>,
    pub heard: UnboundedReceiver<Value>,
    hear: UnboundedSender<Value>,
    held: Vec<Value>,
    /// Event ids as they came.
    pub events: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Client {
    pub async fn connect(gateway: &Gateway, server: &str, credential: &str, transport: ClientTransport) -> Self {
        let base = format!("http://{}/servers/{server}", gateway.address);
        let (hear, heard) = unbounded_channel();
        let http = Http::builder(TokioExecutor::new()).build_http();
        let mut client = Self {
            transport,
            post_to: format!("{base}/mcp"),
            base,
            credential: credential.to_owned(),
            http,
            socket: None,
            session: None,
            heard,
            hear,
            held: Vec::new(),
            events: Default::default(),
        };
        match transport {
            ClientTransport::WebSocket => client.open_socket().await,
            ClientTransport::HttpSse => client.open_events().await,
            ClientTransport::StreamableHttp | ClientTransport::JsonRpc => {}
        }
        client
    }

    async fn open_socket(&mut self) {
        let mut request = format!("{}/ws", self.base.replace("http:", "ws:")).into_client_request().unwrap();
        request.headers_mut().insert("authorization", self.credential.parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", "mcp".parse().unwrap());
        let address = self.base.split('/').nth(2).unwrap().to_owned();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "mcp");
        assert!(answer.headers().contains_key("mcpgw-request-id"));
        let (say, mut said) = unbounded_channel();
        self.socket = Some(say);
        let hear = self.hear.clone();
        #[allow(clippy::disallowed_methods)] // ends with the client
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = said.recv() => match message {
                        Some(message) => socket.send(message).await.unwrap_or_default(),
                        None => return socket.close(None).await.unwrap_or_default(),
                    },
                    next = socket.next() => match next {
                        Some(Ok(Message::Text(text))) => hear.send(serde_json::from_str(&text).unwrap()).unwrap_or_default(),
                        Some(Ok(Message::Close(frame))) => {
                            let code = frame.map_or(0, |frame| u16::from(frame.code));
                            hear.send(json!({"closed": code})).unwrap_or_default();
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    },
                }
            }
        });
    }

    async fn open_events(&mut self) {
        let url = format!("{}/sse", self.base);
        let response = self.request(Method::GET, &url, "").await;
        assert_eq!(response.status(), 200);
        let mut events = self.events_of(response);
        let first = events.recv().await.unwrap();
        self.post_to = format!("http://{}{}", self.base.split('/').nth(2).unwrap(), first["endpoint"].as_str().unwrap());
        self.relay(events);
    }

    fn relay(&self, mut from: UnboundedReceiver<Value>) {
        let hear = self.hear.clone();
        #[allow(clippy::disallowed_methods)] // ends with the stream
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = hear.closed() => return,
                    message = from.recv() => match message {
                        Some(message) => hear.send(message).unwrap_or_default(),
                        None => return,
                    },
                }
            }
        });
    }

    /// The session's own stream, or one that broke, from an event on.
    pub async fn listen(&self, after: Option<&str>) -> UnboundedReceiver<Value> {
        let mut request = self.build(Method::GET, &self.post_to, "");
        if let Some(after) = after {
            request.headers_mut().insert("last-event-id", after.parse().unwrap());
        }
        let response = self.http.request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        self.events_of(response)
    }

    /// What the session's own stream says is heard as everything else.
    pub async fn listen_too(&self) {
        let events = self.listen(None).await;
        self.relay(events);
    }

    fn events_of(&self, response: Response<Incoming>) -> UnboundedReceiver<Value> {
        let (say, said) = unbounded_channel();
        let (mut body, ids) = (response.into_body(), self.events.clone());
        #[allow(clippy::disallowed_methods)] // ends with the stream
        tokio::spawn(async move {
            let mut framer = Framer::new(1 << 20);
            loop {
                let frame = tokio::select! {
                    () = say.closed() => return,
                    frame = body.frame() => frame,
                };
                let Some(Ok(frame)) = frame else { return };
                framer.push(frame.into_data().unwrap());
                while let Ok(Some(event)) = framer.next_event() {
                    ids.lock().unwrap().extend(event.id().map(|id| id.into_owned()));
                    let Some(data) = event.data().filter(|data| !data.is_empty()) else { continue };
                    let message = if event.event_type() == "endpoint" {
                        json!({"endpoint": String::from_utf8(data.to_vec()).unwrap()})
                    } else {
                        serde_json::from_slice(&data).unwrap()
                    };
                    say.send(message).unwrap_or_default();
                }
            }
        });
        said
    }

    pub async fn request(&self, method: Method, url: &str, body: &str) -> Response<Incoming> {
        self.http.request(self.build(method, url, body)).await.unwrap()
    }

    fn build(&self, method: Method, url: &str, body: &str) -> Request<Full<Bytes>> {
        let accept = if method == Method::GET { "text/event-stream" } else { "application/json, text/event-stream" };
        let mut request =
            Request::builder().method(method).uri(url).header("authorization", &self.credential).header("accept", accept);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        request.body(Full::new(body.to_owned().into())).unwrap()
    }

    /// Says a message; over HTTP with the status of the answer, whose messages are heard as they come.
    pub async fn say(&mut self, message: Value) -> u16 {
        if let Some(socket) = &self.socket {
            socket.send(Message::text(message.to_string())).unwrap();
            return 101;
        }
        let response = self.request(Method::POST, &self.post_to.clone(), &message.to_string()).await;
        let status = response.status().as_u16();
        if let Some(session) = response.headers().get("mcp-session-id") {
            self.session = Some(session.to_str().unwrap().to_owned());
        }
        if response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
            let events = self.events_of(response);
            self.relay(events);
        } else {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            if !body.is_empty() && self.transport == ClientTransport::StreamableHttp {
                self.hear.send(serde_json::from_slice(&body).unwrap()).unwrap();
            }
        }
        status
    }

    /// The next message for which `wanted` holds; what comes before it is kept for later.
    pub async fn hears(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.held.iter().position(&wanted) {
            return self.held.remove(place);
        }
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await;
            let next = next.unwrap_or_else(|_| panic!("nothing more comes; so far: {:?}", self.held)).unwrap();
            if wanted(&next) {
                return next;
            }
            self.held.push(next);
        }
    }

    /// The answer to a request.
    pub async fn ask(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.say(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        self.hears(|message| message["id"] == id && message.get("method").is_none()).await
    }

    pub async fn call(&mut self, id: Value, tool: &str, arguments: Value) -> Value {
        self.ask(id, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// The handshake.
    pub async fn open(&mut self, version: &str) -> Value {
        let params =
            json!({"protocolVersion": version, "capabilities": {"elicitation": {}}, "clientInfo": {"name": "t", "version": "1"}});
        let answer = self.ask(json!("open"), "initialize", params).await;
        self.say(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        answer
    }
}
