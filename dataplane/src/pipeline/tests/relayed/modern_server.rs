//! One server of the modern era, over Streamable HTTP: strict about what every request has to say, and with nothing in mind between two.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use futures_util::StreamExt as _;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_stream::wrappers::UnboundedReceiverStream;

const TASKS: &str = "io.modelcontextprotocol/tasks";
const META: &str = "io.modelcontextprotocol/";

/// A running server.
pub struct Modern {
    pub url: String,
    seen: Arc<watch::Sender<Vec<Value>>>,
    /// A resource that changed, with everything that changed before.
    changes: Arc<watch::Sender<Vec<String>>>,
}

#[derive(Clone)]
struct Shared {
    seen: Arc<watch::Sender<Vec<Value>>>,
    changes: Arc<watch::Sender<Vec<String>>>,
}

impl Modern {
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", socket.local_addr().unwrap());
        let (seen, changes) = (Arc::new(watch::Sender::new(Vec::new())), Arc::new(watch::Sender::new(Vec::new())));
        let shared = Shared { seen: seen.clone(), changes: changes.clone() };
        let router = Router::new().route("/mcp", post(answer)).with_state(shared);
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
        Self { url, seen, changes }
    }

    /// Requests with this method, in order.
    pub fn heard(&self, method: &str) -> Vec<Value> {
        self.seen.borrow().iter().filter(|message| message["method"] == method).cloned().collect()
    }

    /// Waits until something that was said to the server satisfies `wanted`.
    pub async fn hears(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = self.seen.subscribe();
        let heard = seen.wait_for(|seen| seen.iter().any(&wanted));
        let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the server hears it").unwrap();
        heard.iter().find(|message| wanted(message)).unwrap().clone()
    }

    pub fn change(&self, uri: &str) {
        self.changes.send_modify(|changes| changes.push(uri.to_owned()));
    }
}

/// Says that a request is over for the server's part.
struct Line {
    id: Value,
    seen: Arc<watch::Sender<Vec<Value>>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.seen.send_modify(|seen| seen.push(json!({"hung up on": self.id})));
    }
}

async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let (id, method, params) =
        (message["id"].clone(), message["method"].as_str().unwrap_or_default().to_owned(), &message["params"]);
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    shared.seen.send_modify(|seen| {
        let mut seen_message = message.clone();
        seen_message["headers"] =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default())).collect();
        seen.push(seen_message);
    });
    let fails = |status: u16, code: i32, why: &str| {
        json_answer(status, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": why}}))
    };
    let result = |result: Value| json_answer(200, &json!({"jsonrpc": "2.0", "id": id, "result": result}));
    if message["params"]["_meta"][format!("{META}protocolVersion")] != "2026-07-28" {
        return fails(400, -32602, "say who you are");
    }
    let name = params["name"].as_str().or(params["uri"].as_str()).or(params["taskId"].as_str());
    let named = ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"];
    let name = name.filter(|_| named.contains(&&*method));
    if header("mcp-protocol-version") != "2026-07-28"
        || header("mcp-method") != method
        || header("mcp-name") != name.unwrap_or_default()
    {
        return fails(400, -32020, "headers and body differ");
    }
    if let Some(answer) = tasks(&shared, &message) {
        return answer;
    }
    let text = |text: &Value| json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
    match (method.as_str(), params["name"].as_str()) {
        ("server/discover", _) => result(json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}},
            "instructions": "ask", "_meta": {format!("{META}serverInfo"): {"name": "modern", "version": "3"}},
        })),
        ("tools/list", _) => {
            let region = json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
            let tools = json!([{"name": "echo"}, {"name": "delete_all"}, {"name": "search_region", "inputSchema": region}]);
            result(json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": tools}))
        }
        ("tools/call", Some("search_ask")) => match params["inputResponses"]["who"]["content"]["name"].as_str() {
            None => {
                let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
                let ask = json!({"method": "elicitation/create", "params": {"mode": "form", "message": "name?", "requestedSchema": schema}});
                result(json!({"resultType": "input_required", "requestState": "opaque", "inputRequests": {"who": ask}}))
            }
            Some(_) if params["requestState"] != "opaque" => fails(200, -32602, "another state"),
            Some(name) => result(text(&json!(name))),
        },
        ("tools/call", Some("search_sample")) => {
            let ask = json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}});
            result(json!({"resultType": "input_required", "inputRequests": {"s": ask}}))
        }
        ("tools/call", Some("search_region")) if header("mcp-param-region") != params["arguments"]["region"] => {
            fails(400, -32020, "no region")
        }
        ("tools/call", Some("search_task")) => fails(400, -32021, "tasks are needed"),
        ("tools/call", Some("search_wait")) => {
            let (line, (say, from)) = (Line { id: id.clone(), seen: shared.seen.clone() }, unbounded_channel());
            events(UnboundedReceiverStream::new(from), Some((line, say)))
        }
        ("tools/call", _) => {
            let token = &params["_meta"]["progressToken"];
            let progress =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
            let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}});
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": text(&params["arguments"]["say"])});
            let mut said = if token.is_null() { vec![] } else { vec![progress] };
            said.extend(params["_meta"].get(format!("{META}logLevel")).map(|_| log));
            said.push(answer);
            events(futures_util::stream::iter(said), None)
        }
        ("subscriptions/listen", _) => listen(&shared, &id, params),
        ("resources/read", _) => fails(200, -32602, "no such resource"),
        _ => fails(404, -32601, "no such method"),
    }
}

/// What is about the tool that is only there as a task.
fn tasks(shared: &Shared, message: &Value) -> Option<Response> {
    let (id, params) = (&message["id"], &message["params"]);
    let result = |result: Value| json_answer(200, &json!({"jsonrpc": "2.0", "id": id, "result": result}));
    let is_known = params["_meta"][format!("{META}clientCapabilities")]["extensions"].get(TASKS).is_some();
    match (message["method"].as_str()?, params["name"].as_str()) {
        ("tools/call", Some("search_job")) if is_known => Some(result(task(&params["arguments"]["job"], "working"))),
        ("tools/call", Some("search_job")) => {
            let required = json!({"requiredCapabilities": {"extensions": {TASKS: {}}}});
            let error = json!({"code": -32021, "message": "tasks are needed", "data": required});
            Some(json_answer(400, &json!({"jsonrpc": "2.0", "id": id, "error": error})))
        }
        ("tasks/get", _) => Some(result(job(&shared.seen.borrow(), &params["taskId"]))),
        ("tasks/update" | "tasks/cancel", _) => Some(result(json!({"resultType": "complete"}))),
        _ => None,
    }
}

fn task(id: &Value, status: &str) -> Value {
    let at = "2026-11-30T00:00:00Z";
    json!({
        "resultType": "task", "taskId": id, "status": status, "statusMessage": "busy", "ttlMs": null, "pollIntervalMs": 50,
        "createdAt": at, "lastUpdatedAt": at,
    })
}

/// A job called `ask` works, then wants a name, and is done once it has one; one called `fail` fails; any other goes on for ever.
fn job(seen: &[Value], id: &Value) -> Value {
    let about =
        |method: &str| seen.iter().filter(|it| it["method"] == method && it["params"]["taskId"] == *id).collect::<Vec<_>>();
    let mut state = task(id, "working");
    state["resultType"] = json!("complete");
    let answers = about("tasks/update").last().map(|it| it["params"]["inputResponses"]["who"]["content"]["name"].clone());
    match (id.as_str().unwrap_or_default(), about("tasks/get").len(), answers) {
        ("ask", _, Some(name)) => {
            state["status"] = json!("completed");
            state["result"] = json!({"resultType": "complete", "content": [{"type": "text", "text": name}]});
        }
        ("ask", 2.., None) => {
            let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
            state["status"] = json!("input_required");
            state["inputRequests"] = json!({"who": {"method": "elicitation/create", "params": {"mode": "form", "message": "name?", "requestedSchema": schema}}});
        }
        ("fail", ..) => {
            state["status"] = json!("failed");
            state["error"] = json!({"code": -32000, "message": "it broke"});
        }
        _ => {}
    }
    state
}

/// The stream of changes that a request asks for.
fn listen(shared: &Shared, id: &Value, params: &Value) -> Response {
    let subscribed = json!({format!("{META}subscriptionId"): id});
    let ack = json!({"_meta": subscribed, "notifications": params["notifications"]});
    let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": ack});
    let wanted = params["notifications"]["resourceSubscriptions"].as_array().cloned().unwrap_or_default();
    let changes = shared.changes.subscribe();
    let mut told = changes.borrow().len();
    let updates = tokio_stream::wrappers::WatchStream::from_changes(changes).flat_map(move |changes| {
        let new: Vec<Value> = changes[told..].iter().map(|uri| json!(uri)).filter(|uri| wanted.contains(uri)).collect();
        told = changes.len();
        let meta = subscribed.clone();
        futures_util::stream::iter(new.into_iter().map(move |uri| {
            json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri, "_meta": meta}})
        }))
    });
    events(futures_util::stream::iter([ack]).chain(updates), None)
}

fn json_answer(status: u16, message: &Value) -> Response {
    Response::builder().status(status).header("content-type", "application/json").body(Body::from(message.to_string())).unwrap()
}

fn events(
    messages: impl futures_util::Stream<Item = Value> + Send + 'static,
    kept: Option<(Line, UnboundedSender<Value>)>,
) -> Response {
    let events = messages.map(move |message| {
        let _kept = &kept;
        Ok::<_, Infallible>(format!("event: message\ndata: {message}\n\n"))
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(events)).unwrap()
}
