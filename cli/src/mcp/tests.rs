//! The MCP client against scripted servers on real sockets: what it sends, and what it makes of answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};

use super::modern::{header_value, parameter_headers};
use super::{Client, Era, Error, Http};

/// A request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|it| it.to_str().unwrap())
    }

    /// The JSON-RPC method, or the HTTP method of a request without a body.
    fn what(&self) -> String {
        let method = self.body["method"].as_str().map(str::to_owned);
        method.unwrap_or_else(|| if self.body.is_null() { self.method.to_string() } else { "answer".into() })
    }
}

type Canned = Response<Full<Bytes>>;

/// A server that answers by a script and remembers what it saw.
#[derive(Clone, Default)]
struct Scripted {
    seen: Arc<Mutex<Vec<Seen>>>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn serve(&self, script: impl Fn(&Seen) -> Canned + Send + Sync + 'static) -> Http {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let (seen, script) = (self.seen.clone(), Arc::new(script));
        let accept = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, script) = (seen.clone(), script.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, script) = (seen.clone(), script.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let body = serde_json::from_slice(&body).unwrap_or_default();
                        let one = Seen { method: head.method, headers: head.headers, body };
                        let answer = script(&one);
                        seen.lock().unwrap().push(one);
                        Ok::<_, std::convert::Infallible>(answer)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                spawn(async move { drop(connection.await) });
            }
        };
        spawn(accept);
        let told = self.told.clone();
        let notice = Box::new(move |said: &str| told.lock().unwrap().push(said.to_owned()));
        Http::new(&url, None, Duration::from_secs(30), notice).unwrap()
    }

    fn whats(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(Seen::what).collect()
    }

    fn nth(&self, index: usize) -> Seen {
        self.seen.lock().unwrap()[index].clone()
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

#[allow(clippy::disallowed_methods)] // a server that lives as long as its test's runtime
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

fn answer(status: u16, kind: &str, body: String) -> Canned {
    let answer = Response::builder().status(status).header("content-type", kind).header("mcpgw-request-id", "req-1");
    answer.body(Full::from(body)).unwrap()
}

fn result(request: &Seen, result: Value) -> Canned {
    answer(200, "application/json", json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result}).to_string())
}

fn error(status: u16, request: &Seen, code: i64, data: Value) -> Canned {
    let error = json!({"code": code, "message": "no", "data": data});
    answer(status, "application/json", json!({"jsonrpc": "2.0", "id": request.body["id"], "error": error}).to_string())
}

fn events(messages: &[Value]) -> Canned {
    let body: String = messages.iter().enumerate().map(|(n, it)| format!("id: e{n}\ndata: {it}\n\n")).collect();
    answer(200, "text/event-stream", body)
}

fn arguments(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A legacy server's handshake; everything else is `rest`.
fn legacy(request: &Seen, rest: impl Fn(&Seen) -> Canned) -> Canned {
    match request.what().as_str() {
        "initialize" => {
            let mut answer = result(request, json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
            answer.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
            answer
        }
        "notifications/initialized" | "answer" => answer(202, "text/plain", String::new()),
        "DELETE" => answer(204, "text/plain", String::new()),
        _ => rest(request),
    }
}

#[tokio::test]
async fn a_modern_request_carries_everything_in_meta_and_headers() {
    let server = Scripted::default();
    let http = server
        .serve(|request| {
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": request.body["id"], "progress": 1, "total": 2, "message": "half"}});
            let result = json!({"resultType": "complete", "content": [{"type": "text", "text": "3"}]});
            events(&[progress, json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result})])
        })
        .await
        .with_bearer("mcpgw_k_s")
        .unwrap();
    let client = Client::connect(http, Era::Modern).await.unwrap();
    let answer = client.call("add", &arguments(json!({"a": 1}))).await.unwrap();
    client.close().await;

    assert_eq!(answer.result["content"][0]["text"], "3");
    assert_eq!(answer.request_id.as_deref(), Some("req-1"));
    assert_eq!(server.told(), ["progress 1/2 half"]);
    assert_eq!(server.whats(), ["tools/call"], "no handshake and no goodbye");
    let seen = server.nth(0);
    assert_eq!(seen.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(seen.header("mcp-method"), Some("tools/call"));
    assert_eq!(seen.header("mcp-name"), Some("add"));
    assert_eq!(seen.header("authorization"), Some("Bearer mcpgw_k_s"));
    assert_eq!(seen.header("accept"), Some("application/json, text/event-stream"));
    let meta = &seen.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
    assert_eq!(meta["progressToken"], seen.body["id"]);
}

#[tokio::test]
async fn a_server_that_refuses_the_modern_version_is_greeted_the_old_way() {
    let server = Scripted::default();
    let http = server
        .serve(|request| {
            legacy(request, |request| match request.what().as_str() {
                "server/discover" => error(400, request, -32022, json!({"supported": ["2025-06-18"]})),
                _ => result(request, json!({"tools": [{"name": "add"}]})),
            })
        })
        .await;
    let client = Client::connect(http, Era::Auto).await.unwrap();
    let (tools, _) = client.tools().await.unwrap();
    client.close().await;

    assert_eq!(tools[0]["name"], "add");
    let expected = ["server/discover", "initialize", "notifications/initialized", "tools/list", "DELETE"];
    assert_eq!(server.whats(), expected);
    assert_eq!(server.nth(1).header("mcp-session-id"), None);
    for index in 2..5 {
        assert_eq!(server.nth(index).header("mcp-session-id"), Some("s-1"));
        assert_eq!(server.nth(index).header("mcp-protocol-version"), Some("2025-06-18"), "the negotiated one");
    }
}

#[tokio::test]
async fn era_detection_takes_these_answers_for_these_eras() {
    let table: [(&str, Option<bool>); 8] = [
        ("discovered", Some(true)),
        ("other versions", Some(false)),
        ("mismatch", Some(true)),
        ("unknown method", Some(false)),
        ("plain 404", Some(false)),
        ("nonsense", Some(false)),
        ("unauthorized", None),
        ("unavailable", None),
    ];
    for (case, expected) in table {
        let http = Scripted::default()
            .serve(move |request| match case {
                "discovered" => result(request, json!({"supportedVersions": ["2026-07-28", "2025-11-25"]})),
                "other versions" => result(request, json!({"supportedVersions": ["2027-01-01"]})),
                "mismatch" => error(400, request, -32020, Value::Null),
                "unknown method" => error(200, request, -32601, Value::Null),
                "plain 404" => answer(404, "text/plain", "not found".into()),
                "nonsense" => answer(200, "text/html", "<html>".into()),
                "unauthorized" => answer(401, "text/plain", String::new()),
                _ => answer(503, "text/plain", String::new()),
            })
            .await;
        assert_eq!(super::modern::is_spoken(&http).await.ok(), expected, "{case}");
    }
}

#[tokio::test]
async fn who_may_not_come_in_is_told_so_with_the_request_id() {
    let server = Scripted::default();
    let http = server.serve(|_| answer(401, "application/json", "{\"error\": \"invalid_token\"}".into())).await;
    let error = Client::connect(http, Era::Auto).await.err().unwrap();
    assert_eq!(error.status().map(|it| it.as_u16()), Some(401));
    assert_eq!(error.request_id(), Some("req-1"));
    assert_eq!(server.whats(), ["server/discover"], "no second try in another era");
}

#[tokio::test]
async fn what_a_legacy_server_asks_for_is_refused_and_pings_are_answered() {
    let server = Scripted::default();
    let http = server
        .serve(|request| {
            legacy(request, |request| {
                events(&[
                    json!({"jsonrpc": "2.0", "id": "ask-1", "method": "ping"}),
                    json!({"jsonrpc": "2.0", "id": "ask-2", "method": "elicitation/create", "params": {"message": "Name?"}}),
                    json!({"jsonrpc": "2.0", "id": request.body["id"], "result": {"content": []}}),
                ])
            })
        })
        .await;
    let client = Client::connect(http, Era::Legacy).await.unwrap();
    client.call("greet", &Map::new()).await.unwrap();

    assert_eq!(server.whats(), ["initialize", "notifications/initialized", "tools/call", "answer", "answer"]);
    assert_eq!(server.nth(3).body, json!({"jsonrpc": "2.0", "id": "ask-1", "result": {}}));
    assert_eq!(server.nth(4).body["error"]["code"], -32601);
    assert_eq!(server.told(), ["the server asks for elicitation/create, which this client cannot give: Name?"]);
}

#[tokio::test]
async fn a_legacy_stream_that_ends_early_is_taken_up_where_it_stopped() {
    let server = Scripted::default();
    let http = server
        .serve(|request| {
            legacy(request, |request| match request.what().as_str() {
                "GET" => events(&[json!({"jsonrpc": "2.0", "id": 2, "result": {"content": []}})]),
                _ => answer(200, "text/event-stream", "id: e7\nretry: 20\ndata:\n\n".into()),
            })
        })
        .await;
    let client = Client::connect(http, Era::Legacy).await.unwrap();
    client.call("slow", &Map::new()).await.unwrap();
    let get = server.nth(3);
    assert_eq!((get.what().as_str(), get.header("last-event-id")), ("GET", Some("e7")));
    assert_eq!(get.header("mcp-session-id"), Some("s-1"));
}

#[tokio::test]
async fn a_question_to_the_user_is_an_error_that_says_what_is_asked() {
    let server = Scripted::default();
    let http = server
        .serve(|request| {
            let ask = json!({"method": "elicitation/create", "params": {"message": "Which account?"}});
            result(request, json!({"resultType": "input_required", "inputRequests": {"account": ask}, "requestState": "x"}))
        })
        .await;
    let client = Client::connect(http, Era::Modern).await.unwrap();
    let error = client.call("pay", &Map::new()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("account: elicitation/create Which account?"), "{said}");
    assert_eq!(error.request_id(), Some("req-1"));
}

#[tokio::test]
async fn missing_parameter_headers_are_learned_from_the_tools_description() {
    let server = Scripted::default();
    let http = server
        .serve(|request| match request.what().as_str() {
            "tools/list" => {
                let schema = json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
                result(request, json!({"tools": [{"name": "deploy", "inputSchema": schema}]}))
            }
            _ if request.header("mcp-param-region").is_none() => error(400, request, -32020, Value::Null),
            _ => result(request, json!({"content": []})),
        })
        .await;
    let client = Client::connect(http, Era::Modern).await.unwrap();
    client.call("deploy", &arguments(json!({"region": "zürich"}))).await.unwrap();
    assert_eq!(server.whats(), ["tools/call", "tools/list", "tools/call"]);
    assert_eq!(server.nth(2).header("mcp-param-region"), Some("=?base64?esO8cmljaA==?="));
    assert_ne!(server.nth(0).body["id"], server.nth(2).body["id"], "a new request has a new id");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    let http = Http::new(&url, None, Duration::from_secs(30), Box::new(|_| {})).unwrap();
    let error = Client::connect(http, Era::Auto).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn header_values_are_wrapped_only_where_they_must_be() {
    let table = [
        ("get_issue", "get_issue"),
        ("repo://acme/*", "repo://acme/*"),
        ("two words", "two words"),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("grüß", "=?base64?Z3LDvMOf?="),
        ("=?base64?x", "=?base64?PT9iYXNlNjQ/eA==?="),
        ("", "=?base64??="),
    ];
    for (value, expected) in table {
        assert_eq!(header_value(value), expected, "{value:?}");
    }
}

#[test]
fn arguments_that_are_absent_or_null_have_no_header() {
    let schema = json!({"properties": {
        "a": {"type": "integer", "x-mcp-header": "A"},
        "b": {"type": "boolean", "x-mcp-header": "B"},
        "c": {"type": "string", "x-mcp-header": "C"},
        "d": {"type": "string"},
        "e": {"type": "object", "properties": {"f": {"type": "string", "x-mcp-header": "F"}}},
    }});
    let tools = [json!({"name": "t", "inputSchema": schema})];
    let given = arguments(json!({"a": 7, "b": true, "c": null, "d": "x", "e": {"f": "deep"}}));
    let headers = parameter_headers(&tools, "t", &given);
    let expected = [("mcp-param-A", "7"), ("mcp-param-B", "true"), ("mcp-param-F", "deep")];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}
