//! An MCP server that tells secrets in every part of an answer that there is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use mcpgw_tests::serve::Served;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::garden::Garden;

/// See the module. Dropped, it stops.
pub struct Server {
    served: Served,
    shared: Arc<Shared>,
}

struct Shared {
    garden: Arc<Garden>,
    /// What reached it: heads and bodies.
    seen: Mutex<Vec<u8>>,
}

impl Server {
    pub async fn start(garden: &Arc<Garden>) -> Self {
        let shared = Arc::new(Shared { garden: garden.clone(), seen: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let served = Served::start(SocketAddr::from(([127, 0, 0, 1], 0)), router, CancellationToken::new()).await.unwrap();
        Self { served, shared }
    }

    pub fn url(&self) -> String {
        self.served.url()
    }

    /// Whether the secret of a place reached it.
    pub fn saw(&self, place: &str) -> bool {
        let seen = self.shared.seen.lock().unwrap();
        memchr::memmem::find(&seen, self.shared.garden.plant(place).as_bytes()).is_some()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    {
        let mut seen = shared.seen.lock().unwrap();
        seen.extend_from_slice(format!("{headers:?}\n").as_bytes());
        seen.extend_from_slice(&body);
    }
    let secret = |place: &str| shared.garden.plant(&format!("server: {place}"));
    let mut response = match method {
        Method::POST => said(&secret, &serde_json::from_slice(&body).unwrap_or_default()),
        Method::GET => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ => StatusCode::OK.into_response(),
    };
    let told = response.headers_mut();
    told.append(header::SET_COOKIE, format!("session={}; HttpOnly", secret("Set-Cookie")).parse().unwrap());
    told.append(header::SERVER, format!("backend/{}", secret("Server")).parse().unwrap());
    told.append("x-internal-token", secret("custom header").parse().unwrap());
    told.append(header::ETAG, format!("\"{}\"", secret("ETag")).parse().unwrap());
    response
}

/// What a message is answered with.
fn said(secret: &impl Fn(&str) -> String, message: &Value) -> Response {
    let id = &message["id"];
    let result = |result: Value| json(StatusCode::OK, json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    match message["method"].as_str().unwrap_or_default() {
        "" | "notifications/initialized" => StatusCode::ACCEPTED.into_response(),
        "initialize" => {
            let server = json!({ "name": secret("serverInfo.name"), "version": secret("serverInfo.version") });
            let mut response =
                result(json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": server,
                "instructions": secret("instructions") }));
            response.headers_mut().append("mcp-session-id", secret("Mcp-Session-Id").parse().unwrap());
            response
        }
        "server/discover" => result(json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {} }, "instructions": secret("instructions") })),
        "tools/list" => result(json!({ "tools": [{ "name": "plain", "description": secret("a tool's description"),
            "inputSchema": { "type": "object", "title": secret("a tool's schema") } }] })),
        "resources/list" => {
            result(json!({ "resources": [{ "uri": format!("db://h/x?key={}", secret("a resource's URI in a list")),
            "name": secret("a resource's name") }] }))
        }
        "resources/read" => result(json!({ "contents": [{ "uri": "db://h/x", "text": secret("a resource's text") }] })),
        "prompts/get" => result(json!({ "messages": [{ "role": "user",
            "content": { "type": "text", "text": secret("a prompt's text") } }] })),
        "completion/complete" => result(json!({ "completion": { "values": [secret("a completion")] } })),
        "tools/call" => called(secret, message["params"]["name"].as_str().unwrap_or_default(), message),
        _ => result(json!({})),
    }
}

fn called(secret: &impl Fn(&str) -> String, tool: &str, message: &Value) -> Response {
    let id = &message["id"];
    let response = |key: &str, value: Value| json!({ "jsonrpc": "2.0", "id": id, key: value });
    let text = |place: &str| json!([{ "type": "text", "text": secret(place) }]);
    match tool {
        "failing" => json(
            StatusCode::OK,
            response("result", json!({ "content": text("the text of a tool that failed"), "isError": true })),
        ),
        "error" => {
            let error =
                json!({ "code": -32000, "message": secret("an error's message"), "data": { "why": secret("an error's data") } });
            json(StatusCode::OK, response("error", error))
        }
        "refused" => {
            let error = json!({ "code": -32000, "message": secret("the message of a refusal") });
            json(StatusCode::BAD_REQUEST, response("error", error))
        }
        "redirect" => {
            (StatusCode::FOUND, [(header::LOCATION, format!("https://h/?code={}", secret("Location")))]).into_response()
        }
        "challenge" => {
            let challenge = format!("Bearer realm=\"{}\"", secret("WWW-Authenticate"));
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], secret("the body of a 401")).into_response()
        }
        "crash" => (StatusCode::INTERNAL_SERVER_ERROR, format!("<pre>at {}</pre>", secret("a stack trace"))).into_response(),
        "garbage" => ([(header::CONTENT_TYPE, "application/json")], format!("{{\"{}\": tru", secret("a body that is no JSON")))
            .into_response(),
        "doubled" => {
            let key = secret("a key that is there twice");
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"{key}":1,"{key}":2}}}}"#);
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        "typed" => ([(header::CONTENT_TYPE, format!("text/{}", secret("Content-Type")))], secret("a body of another type"))
            .into_response(),
        "encoded" => ([(header::CONTENT_ENCODING, secret("Content-Encoding"))], "{}").into_response(),
        "stranger" => json(StatusCode::OK, json!({ "jsonrpc": "2.0", "id": secret("the id of another request"), "result": {} })),
        "ask" => events(
            vec![
                event(&json!({ "jsonrpc": "2.0", "id": secret("the id of a question"), "method": "elicitation/create",
                "params": { "message": secret("a question"), "requestedSchema": { "type": "object", "properties": {} } } })),
                event(&response("result", json!({ "content": text("the answer behind a question") }))),
            ],
            false,
        ),
        "stream" => events(
            vec![
                format!(": {}\n\n", secret("a comment on a stream")),
                format!("id: {}\nretry: 100\ndata:\n\n", secret("an event's id")),
                event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {
                "progressToken": message["params"]["_meta"]["progressToken"], "progress": 1, "message": secret("a progress message") } })),
                event(&json!({ "jsonrpc": "2.0", "method": "notifications/message",
                "params": { "level": "info", "data": secret("a log message") } })),
                event(&response("result", json!({ "content": text("the result on a stream") }))),
            ],
            false,
        ),
        "broken" => events(vec![format!("data: {{\"jsonrpc\":\"2.0\",\"{}\n\n", secret("an event that is no JSON"))], false),
        "hang" => events(
            vec![event(&json!({ "jsonrpc": "2.0", "method": "notifications/message",
            "params": { "level": "info", "data": secret("what came before the crash") } }))],
            true,
        ),
        _ => {
            let result = json!({ "content": text("a result's text"), "structuredContent": { "deep": [{ "x": secret("structuredContent") }] },
                "_meta": { "example.com/token": secret("a result's _meta") } });
            json(StatusCode::OK, response("result", result))
        }
    }
}

fn json(status: StatusCode, body: Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// A stream of these; one that hangs stays open.
fn events(events: Vec<String>, hangs: bool) -> Response {
    let events = futures_util::stream::iter(events).map(Ok::<_, Infallible>);
    let body = if hangs { Body::from_stream(events.chain(futures_util::stream::pending())) } else { Body::from_stream(events) };
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
