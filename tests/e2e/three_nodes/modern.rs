//! Clients and a server of the modern era: nothing is kept between two requests, at either end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcpgw_tests::serve::Served;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::world::World;
use crate::streams::Heard;

const PATIENCE: Duration = Duration::from_secs(60);
const VERSION: &str = "2026-07-28";

/// A running server. It knows whom it asked by what it gave that one to bring back.
pub struct Server {
    served: Served,
    /// Calls that were carried out.
    done: Arc<AtomicUsize>,
}

impl Server {
    pub async fn start() -> anyhow::Result<Self> {
        let done = Arc::<AtomicUsize>::default();
        let router = Router::new().route("/mcp", post(answer)).with_state(done.clone());
        Ok(Self { served: Served::start(([127, 0, 0, 1], 0).into(), router, CancellationToken::new()).await?, done })
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.served.address())
    }

    /// Calls that were carried out.
    pub fn done(&self) -> usize {
        self.done.load(Relaxed)
    }
}

async fn answer(State(done): State<Arc<AtomicUsize>>, headers: HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let (id, params) = (&message["id"], &message["params"]);
    let error = |status: StatusCode, code: i32| {
        (status, axum::Json(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no"}}))).into_response()
    };
    let result = |result: Value| axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response();
    if headers.get("mcp-protocol-version").is_none_or(|version| version != VERSION) {
        return error(StatusCode::BAD_REQUEST, -32020);
    }
    let said = &params["arguments"]["say"];
    let complete = |text: &Value| {
        done.fetch_add(1, Relaxed);
        result(json!({"resultType": "complete", "content": [{"type": "text", "text": text}]}))
    };
    match (message["method"].as_str(), params["name"].as_str()) {
        (Some("server/discover"), _) => {
            result(json!({"resultType": "complete", "supportedVersions": [VERSION], "capabilities": {"tools": {}}}))
        }
        (Some("tools/call"), Some("ask")) => match &params["inputResponses"]["who"]["content"]["say"] {
            Value::Null => {
                let schema = json!({"type": "object", "properties": {}});
                let question = json!({"method": "elicitation/create", "params": {"message": said, "requestedSchema": schema}});
                result(json!({"resultType": "input_required", "inputRequests": {"who": question}, "requestState": said}))
            }
            answer if answer == said && params["requestState"] == *said => complete(answer),
            _ => error(StatusCode::OK, -32602),
        },
        (Some("tools/call"), _) => complete(said),
        _ => error(StatusCode::NOT_FOUND, -32601),
    }
}

/// A client. Every request is by itself, through the proxy.
pub struct Client {
    url: String,
    key: String,
    number: usize,
    http: Http<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub fn of(world: &World, server: &str, number: usize) -> Self {
        Self::at(world.url_of(server), world, number)
    }

    /// A client that knows better than the proxy where to go.
    pub fn at(url: String, world: &World, number: usize) -> Self {
        Self { url, key: world.key.clone(), number, http: Http::builder(TokioExecutor::new()).build_http() }
    }

    /// Calls so often, every tenth time with a question in between; how many went wrong.
    pub async fn calls(&self, count: usize) -> usize {
        let mut failures = 0;
        for call in 0..count {
            if let Err(why) = self.call(call).await {
                eprintln!("modern client {}, call {call}: {why}", self.number);
                failures += 1;
            }
        }
        failures
    }

    /// One call, whose answer has to name this client and this call.
    async fn call(&self, call: usize) -> Result<(), String> {
        let nonce = format!("modern {}-{call}", self.number);
        let tool = if call % 10 == 9 { "ask" } else { "echo" };
        let mut params = json!({"name": tool, "arguments": {"say": nonce}});
        for round in 0.. {
            let answer = self.ask(call * 10 + round, &params).await?;
            let result = &answer["result"];
            if result["resultType"] != "input_required" {
                let text = result["content"][0]["text"].as_str().unwrap_or_default();
                return if text == nonce { Ok(()) } else { Err(format!("not the answer to {nonce}: {answer}")) };
            }
            let (key, question) = result["inputRequests"].as_object().and_then(|all| all.iter().next()).ok_or("no question")?;
            if question["params"]["message"] != *nonce || round > 0 {
                return Err(format!("somebody else's question: {answer}"));
            }
            params["inputResponses"] = json!({key: {"action": "accept", "content": {"say": nonce}}});
            params["requestState"] = result["requestState"].clone();
        }
        Err("asked for ever".into())
    }

    pub async fn ask(&self, id: usize, params: &Value) -> Result<Value, String> {
        let mut params = params.clone();
        let info = json!({"name": format!("modern {}", self.number), "version": "1"});
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": info,
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
        });
        let tool = params["name"].as_str().unwrap_or_default();
        let request = Request::post(&self.url)
            .header("authorization", format!("Bearer {}", self.key))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-protocol-version", VERSION)
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string();
        let request = request.body(Full::new(Bytes::from(message))).unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.http.request(request)).await.map_err(|_late| "no answer in time")?;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status()));
        }
        if answer.headers()["content-type"] == "text/event-stream" {
            let mut heard = Heard::of(answer);
            loop {
                let message = heard.next().await;
                if message.is_null() || message.get("method").is_none() {
                    return Ok(message);
                }
            }
        }
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}
