//! Legacy clients of Streamable HTTP through the proxy.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::world::World;
use crate::streams::Heard;

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

impl Client {
    pub async fn open(world: &World, server: &str, number: usize) -> Self {
        Self::with(world, server, number, &world.key).await
    }

    pub async fn with(world: &World, server: &str, number: usize, key: &str) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        let client = Self { url: world.url_of(server), key: key.to_owned(), number, http, session: Mutex::default() };
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
