//! The real parts of a test: a gateway on port 0, a server behind it that remembers what it saw, a client before it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body as AxumBody;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mcp_gateway::proto::node::v1::audit_event::Event;
use mcp_gateway::proto::node::v1::{AuditEvent, Decided, Ended};
use prost::Message;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::scope::{PUBLIC_URL, Scope};
use crate::app::App;
use crate::audit::Spool;
use crate::audit::spool::Reader;
use crate::config::{Config, Listen};
use crate::live::Live;
use crate::upstream::Findings;

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The JSON-RPC id as text.
    pub fn id(&self) -> String {
        self.json()["id"].to_string()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Memory = (Arc<Mutex<Vec<Seen>>>, Arc<Answering>);
type Answering = dyn Fn(&Seen) -> Response<AxumBody> + Send + Sync;

/// A server that answers as told and remembers everything.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub async fn start(answer: impl Fn(&Seen) -> Response<AxumBody> + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let state: Memory = (seen.clone(), Arc::new(answer));
        let router = axum::Router::new().fallback(serve).with_state(state);
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
        Self { address, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(State((seen, answer)): State<Memory>, request: axum::extract::Request) -> Response<AxumBody> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let request = Seen { method: parts.method, headers: parts.headers, body };
    seen.lock().unwrap().push(request.clone());
    answer(&request)
}

pub fn json(body: impl Into<String>) -> Response<AxumBody> {
    Response::builder().header("content-type", "application/json").body(AxumBody::from(body.into())).unwrap()
}

pub fn result(seen: &Seen, result: &str) -> Response<AxumBody> {
    json(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, seen.id()))
}

pub fn events(events: &[&str]) -> Response<AxumBody> {
    let body: String = events.iter().map(|data| format!("data: {data}\n\n")).collect();
    Response::builder().header("content-type", "text/event-stream").body(AxumBody::from(body)).unwrap()
}

pub fn status(code: u16) -> Response<AxumBody> {
    Response::builder().status(code).body(AxumBody::empty()).unwrap()
}

/// A running gateway.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub live: Arc<Live>,
    pub stop: CancellationToken,
    pub running: tokio::task::JoinHandle<Result<(), crate::app::RunError>>,
    pub findings: Findings,
    spool: Arc<Spool>,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    _state: TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn request_id(&self) -> &str {
        self.header("mcpgw-request-id").expect("every answer carries its request id")
    }
}

impl Gateway {
    pub async fn start(scope: &Scope) -> Self {
        Self::with(Some(scope), |_| {}).await
    }

    pub async fn with(scope: Option<&Scope>, change: impl FnOnce(&mut Config)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config {
            listen: vec![Listen { address: local, certificates: Vec::new() }],
            public_url: PUBLIC_URL.into(),
            admin_listen: local,
            state_dir: state.path().to_owned(),
            ..Config::default()
        };
        change(&mut config);
        let live = Arc::new(Live::new().unwrap());
        if let Some(scope) = scope {
            live.swap(Arc::new(scope.compile()));
        }
        let app = App::alone(config, live.clone()).await.unwrap();
        let (address, admin, spool) = (app.addresses().listen[0], app.addresses().admin, app.spool());
        let findings = app.findings();
        let stop = CancellationToken::new();
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        let running = tokio::spawn(app.run(stop.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, admin, live, stop, running, findings, spool, client, _state: state }
    }

    /// Puts another configuration in force.
    pub fn swap(&self, scope: &Scope) {
        self.live.swap(Arc::new(scope.compile()));
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.unwrap()
    }

    pub async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// `POST` to a server; `headers` replace the usual ones, an empty value removes one.
    pub fn post(&self, server: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        self.request(Method::POST, &format!("/servers/{server}/mcp"), headers, body)
    }

    pub fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().unwrap();
        let usual = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        for (name, value) in usual.iter().filter(|_| method == Method::POST) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        if method == Method::GET {
            request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
        }
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            if value.is_empty() {
                request.headers_mut().remove(name);
            } else {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        request
    }

    /// A modern request of the engineer's, with the headers that go with it.
    pub fn modern(&self, server: &str, headers: &[(&str, &str)], method: &str, params: &str) -> Request<Full<Bytes>> {
        let body = modern_body(method, params);
        let name = serde_json::from_str::<serde_json::Value>(&body).unwrap()["params"]["name"].as_str().map(str::to_owned);
        let mut all = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        all.extend(name.as_deref().map(|name| ("mcp-name", name)));
        all.extend(headers);
        self.post(server, &all, body)
    }

    /// Sessions that live in the gateway.
    pub async fn sessions(&self) -> usize {
        let request = Request::get(format!("http://{}/metrics", self.admin)).body(Full::default()).unwrap();
        let page = self.ask(request).await.body;
        let value = page.lines().find_map(|line| line.strip_prefix("mcpgw_dataplane_sessions "));
        value.unwrap().parse().unwrap()
    }

    /// Every record so far, by request id.
    pub fn records(&self) -> Vec<(Decided, Option<Ended>)> {
        let mut events = Vec::new();
        for lane in self.spool.lanes() {
            let mut reader = Reader::new(lane);
            loop {
                let batch = reader.read(1000, 1 << 20).unwrap();
                if batch.frames.is_empty() {
                    break;
                }
                events.extend(batch.frames);
            }
        }
        let mut decided = Vec::new();
        let mut ended = Vec::new();
        for frame in events {
            match AuditEvent::decode(frame.payload).unwrap().event.unwrap() {
                Event::Decided(event) => decided.push(event),
                Event::Ended(event) => ended.push(event),
                Event::Captured(_) => {}
                Event::Gap(gap) => panic!("records are missing: {gap:?}"),
            }
        }
        let end = |id: &str| ended.iter().find(|event| event.request_id == id).cloned();
        decided.into_iter().map(|event| (event.clone(), end(&event.request_id))).collect()
    }

    /// The record of one request, both frames.
    pub fn record(&self, request_id: &str) -> (Decided, Ended) {
        let records = self.records();
        let (decided, ended) = records.iter().find(|(decided, _)| decided.request_id == request_id).expect("a record");
        (decided.clone(), ended.clone().expect("the record's end"))
    }
}

pub fn modern_body(method: &str, params: &str) -> String {
    let meta =
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let comma = if params.is_empty() { "" } else { "," };
    format!(r#"{{"jsonrpc":"2.0","id":"q-1","method":"{method}","params":{{{params}{comma}{meta}}}}}"#)
}
