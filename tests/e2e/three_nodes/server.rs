//! A legacy server over HTTP+SSE, whose answers name the caller that asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use mcpgw_tests::serve::Served;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

/// A running server.
pub struct Server {
    served: Served,
    calls: Arc<AtomicUsize>,
}

#[derive(Clone, Default)]
struct Shared {
    sessions: Arc<Mutex<HashMap<String, Session>>>,
    opened: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

struct Session {
    say: UnboundedSender<Value>,
    /// Calls that wait for an answer, by the question's id.
    asking: HashMap<String, Value>,
}

impl Server {
    pub async fn start() -> anyhow::Result<Self> {
        let shared = Shared::default();
        let calls = shared.calls.clone();
        let router = Router::new().route("/sse", get(open)).route("/messages", post(take)).with_state(shared);
        Ok(Self { served: Served::start(([127, 0, 0, 1], 0).into(), router, CancellationToken::new()).await?, calls })
    }

    pub fn url(&self) -> String {
        format!("http://{}/sse", self.served.address())
    }

    /// Calls that were begun.
    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }
}

async fn open(State(shared): State<Shared>) -> Response {
    let (say, said) = unbounded_channel();
    let id = shared.opened.fetch_add(1, Relaxed).to_string();
    shared.sessions.lock().unwrap().insert(id.clone(), Session { say, asking: HashMap::new() });
    let endpoint = tokio_stream::once(format!("event: endpoint\ndata: /messages?id={id}\n\n"));
    let events = UnboundedReceiverStream::new(said).map(|message: Value| format!("event: message\ndata: {message}\n\n"));
    let body = Body::from_stream(endpoint.chain(events).map(Ok::<_, std::io::Error>));
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

async fn take(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>, body: String) -> http::StatusCode {
    let message: Value = serde_json::from_str(&body).unwrap();
    let mut sessions = shared.sessions.lock().unwrap();
    let Some(session) = sessions.get_mut(&query["id"]) else { return http::StatusCode::NOT_FOUND };
    let answer = |id: &Value, result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let text = |text: &Value| json!({"content": [{"type": "text", "text": text}]});
    let said = match (message["method"].as_str(), message["params"]["name"].as_str()) {
        (Some("initialize"), _) => {
            let version = &message["params"]["protocolVersion"];
            let info = json!({"name": "fixture", "version": "1"});
            answer(&message["id"], json!({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}))
        }
        (Some("tools/call"), Some("ask")) => {
            shared.calls.fetch_add(1, Relaxed);
            let question = format!("q-{}", message["id"]);
            session.asking.insert(question.clone(), message["id"].clone());
            let params = json!({"message": message["params"]["arguments"]["say"], "requestedSchema": {"type": "object", "properties": {}}});
            json!({"jsonrpc": "2.0", "id": question, "method": "elicitation/create", "params": params})
        }
        (Some("tools/call"), _) => {
            shared.calls.fetch_add(1, Relaxed);
            answer(&message["id"], text(&message["params"]["arguments"]["say"]))
        }
        (Some(_), _) => return http::StatusCode::ACCEPTED,
        (None, _) => {
            let Some(call) = message["id"].as_str().and_then(|id| session.asking.remove(id)) else {
                return http::StatusCode::ACCEPTED;
            };
            answer(&call, text(&message["result"]["content"]["say"]))
        }
    };
    session.say.send(said).unwrap_or_default();
    http::StatusCode::ACCEPTED
}
