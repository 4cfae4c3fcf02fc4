//! One legacy server with a memory, over any of the transports.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::{SinkExt as _, StreamExt as _};
use mcp_gateway::proto::config::v1::Transport;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response as Answer};

type Seen = Arc<watch::Sender<Vec<Value>>>;

/// A running server.
pub struct Server {
    pub url: String,
    pub transport: Transport,
    seen: Seen,
    opened: watch::Receiver<usize>,
    /// Ends every conversation that is open when it changes.
    cut: watch::Sender<usize>,
    /// What is said in every conversation that is open.
    news: broadcast::Sender<Value>,
}

#[derive(Clone)]
struct Shared {
    seen: Seen,
    opened: Arc<watch::Sender<usize>>,
    cut: watch::Receiver<usize>,
    news: broadcast::Sender<Value>,
    conversations: Arc<Mutex<HashMap<String, UnboundedSender<Value>>>>,
}

impl Server {
    pub async fn start(transport: Transport) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (opened, watched) = watch::channel(0);
        let (cut, cuts) = watch::channel(0);
        let seen = Seen::new(watch::Sender::new(Vec::new()));
        let news = broadcast::channel(64).0;
        let conversations = Arc::default();
        let shared = Shared { seen: seen.clone(), opened: Arc::new(opened), cut: cuts, news: news.clone(), conversations };
        let url = match transport {
            Transport::Websocket => format!("ws://{address}/ws"),
            Transport::HttpSse => format!("http://{address}/sse"),
            _ => format!("http://{address}/mcp"),
        };
        run(transport, socket, shared);
        Self { url, transport, seen, opened: watched, cut, news }
    }

    pub fn seen(&self) -> Vec<Value> {
        self.seen.borrow().clone()
    }

    /// Messages with this method, in order.
    pub fn heard(&self, method: &str) -> Vec<Value> {
        self.seen().into_iter().filter(|message| message["method"] == method).collect()
    }

    /// Waits until something that was said to the server satisfies `wanted`.
    pub async fn hears(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = self.seen.subscribe();
        let heard = seen.wait_for(|seen| seen.iter().any(&wanted));
        let heard = tokio::time::timeout(std::time::Duration::from_secs(20), heard).await.expect("the server hears it").unwrap();
        heard.iter().find(|message| wanted(message)).unwrap().clone()
    }

    /// How many conversations were opened.
    pub fn opened(&self) -> usize {
        *self.opened.borrow()
    }

    /// Says something in every conversation.
    pub fn tell(&self, message: Value) {
        let _nobody = self.news.send(message);
    }

    /// Conversations that are open.
    pub fn open(&self) -> usize {
        self.news.receiver_count()
    }

    /// Waits until no more than `most` conversations are open.
    pub async fn is_left(&self, most: usize) {
        let left = async {
            while self.open() > most {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), left).await.expect("the conversations end");
    }

    /// Ends what is open.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

fn run(transport: Transport, socket: TcpListener, shared: Shared) {
    if transport == Transport::Websocket {
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(sockets(socket, shared));
        return;
    }
    let router = Router::new()
        .route("/sse", get(open_events))
        .route("/messages", post(take))
        .route("/mcp", post(exchange).get(async || http::StatusCode::METHOD_NOT_ALLOWED).delete(leave))
        .with_state(shared);
    #[allow(clippy::disallowed_methods)] // ends with the test's runtime
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
}

/// Starts a conversation: where to say things, and what comes back.
fn converse(shared: &Shared) -> (UnboundedSender<Value>, UnboundedReceiver<Value>) {
    let (to, heard) = unbounded_channel();
    let (say, from) = unbounded_channel();
    shared.opened.send_modify(|count| *count += 1);
    #[allow(clippy::disallowed_methods)] // ends with the conversation
    tokio::spawn(brain(heard, say, shared.clone()));
    (to, from)
}

async fn sockets(socket: TcpListener, shared: Shared) {
    while let Ok((stream, _)) = socket.accept().await {
        let shared = shared.clone();
        #[allow(clippy::disallowed_methods)] // ends with the connection
        tokio::spawn(async move {
            let mut stream = tokio_tungstenite::accept_hdr_async(stream, subprotocol).await.unwrap();
            let (to, mut from) = converse(&shared);
            loop {
                tokio::select! {
                    next = stream.next() => match next {
                        Some(Ok(Message::Text(text))) => to.send(serde_json::from_str(&text).unwrap()).unwrap_or_default(),
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    },
                    said = from.recv() => match said {
                        Some(said) => stream.send(Message::text(said.to_string())).await.unwrap_or_default(),
                        None => return,
                    },
                }
            }
        });
    }
}

#[allow(clippy::result_large_err, clippy::unnecessary_wraps)] // as the callback has it
fn subprotocol(asked: &Request, mut answer: Answer) -> Result<Answer, ErrorResponse> {
    if let Some(offered) = asked.headers().get("sec-websocket-protocol") {
        answer.headers_mut().insert("sec-websocket-protocol", offered.clone());
    }
    Ok(answer)
}

async fn open_events(State(shared): State<Shared>) -> Response {
    let (to, from) = converse(&shared);
    let id = shared.opened.borrow().to_string();
    shared.conversations.lock().unwrap().insert(id.clone(), to);
    let endpoint = tokio_stream::once(format!("event: endpoint\ndata: /messages?id={id}\n\n"));
    let events = UnboundedReceiverStream::new(from).map(|message| format!("event: message\ndata: {message}\n\n"));
    stream(endpoint.chain(events))
}

fn stream(events: impl futures_util::Stream<Item = String> + Send + 'static) -> Response {
    let body = Body::from_stream(events.map(Ok::<_, std::io::Error>));
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

async fn take(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>, body: String) -> http::StatusCode {
    let conversations = shared.conversations.lock().unwrap();
    let Some(to) = conversations.get(&query["id"]) else { return http::StatusCode::NOT_FOUND };
    to.send(serde_json::from_str(&body).unwrap()).unwrap_or_default();
    http::StatusCode::ACCEPTED
}

/// Ends a conversation.
async fn leave(State(shared): State<Shared>, headers: http::HeaderMap) -> &'static str {
    let id = headers.get("mcp-session-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    shared.conversations.lock().unwrap().remove(id);
    "gone"
}

/// Streamable HTTP without a stream of its own: everything about a request comes on the answer to it.
async fn exchange(State(shared): State<Shared>, headers: http::HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let id = match headers.get("mcp-session-id") {
        Some(id) => id.to_str().unwrap().to_owned(),
        None => format!("s{}", *shared.opened.borrow() + 1),
    };
    let known = shared.conversations.lock().unwrap().get(&id).cloned();
    let known = known.filter(|known| !known.is_closed());
    if known.is_none() && message["method"] != "initialize" {
        return Response::builder().status(404).body(Body::empty()).unwrap();
    }
    if message.get("id").is_none() || message.get("method").is_none() {
        known.unwrap().send(message).unwrap();
        return Response::builder().status(202).body(Body::empty()).unwrap();
    }
    let (answers, from) = unbounded_channel();
    let to = known.unwrap_or_else(|| {
        let (to, mut from) = converse(&shared);
        let pending = shared.conversations.clone();
        pending.lock().unwrap().insert(id.clone(), to.clone());
        let key = id.clone();
        #[allow(clippy::disallowed_methods)] // ends with the conversation
        tokio::spawn(async move {
            while let Some(said) = from.recv().await {
                // One request at a time is all that this server can do.
                let open = pending.lock().unwrap().get(&format!("{key} answers")).cloned();
                open.map(|open| open.send(said));
            }
        });
        to
    });
    shared.conversations.lock().unwrap().insert(format!("{id} answers"), answers);
    let number = message["id"].clone();
    to.send(message).unwrap();
    let mut over = false;
    let events = UnboundedReceiverStream::new(from)
        .take_while(move |said| {
            let goes_on = !over;
            over = said["id"] == number && said.get("method").is_none();
            std::future::ready(goes_on)
        })
        .map(|message| format!("data: {message}\n\n"));
    let mut response = stream(events);
    response.headers_mut().insert("mcp-session-id", id.parse().unwrap());
    response
}

/// What the server does, whatever it speaks over.
async fn brain(mut heard: UnboundedReceiver<Value>, say: UnboundedSender<Value>, mut shared: Shared) {
    let mut asking = Asking::default();
    shared.cut.mark_unchanged();
    let mut news = shared.news.subscribe();
    loop {
        let message = tokio::select! {
            message = heard.recv() => message,
            Ok(news) = news.recv() => {
                say.send(news).unwrap_or_default();
                continue;
            }
            _ = shared.cut.changed() => return,
            () = say.closed() => return,
        };
        let Some(message) = message else { return };
        shared.seen.send_modify(|seen| seen.push(message.clone()));
        let answer = |result: Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        let said = match (message["method"].as_str(), message["params"]["name"].as_str()) {
            (Some("initialize"), _) => {
                let result = json!({
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}, "tasks": {}},
                    "instructions": "Be kind.",
                    "serverInfo": {"name": "fixture", "version": "1"},
                });
                vec![answer(result)]
            }
            (Some("tools/list"), _) => vec![answer(json!({"tools": [{"name": "echo"}, {"name": "delete_all"}]}))],
            (Some("tools/call"), Some("search_ask")) => asking.begin(&message),
            (Some("tools/call"), Some("search_log")) => {
                let said = |level: &str| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": "x"}});
                vec![said("debug"), said("error"), answer(json!({"content": []}))]
            }
            (Some("tools/call"), Some("search_url")) => {
                let page = json!({"mode": "url", "message": "Sign in", "url": "https://login.test/", "elicitationId": "e1"});
                let error = json!({"code": -32042, "message": "Sign in first", "data": {"elicitations": [page]}});
                vec![json!({"jsonrpc": "2.0", "id": message["id"], "error": error})]
            }
            (Some("resources/read"), _) => {
                let error = json!({"code": -32002, "message": "no such resource"});
                vec![json!({"jsonrpc": "2.0", "id": message["id"], "error": error})]
            }
            (Some("logging/setLevel" | "resources/subscribe"), _) => vec![answer(json!({}))],
            (Some("tools/call"), Some("search_wait")) => vec![],
            (Some("tools/call"), Some("search_news")) => {
                vec![json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}), answer(json!({"content": []}))]
            }
            (Some("tools/call"), Some("search_odd")) => vec![
                json!({"jsonrpc": "2.0", "id": 4711, "result": {}}),
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 4711, "progress": 1}}),
                answer(json!({"content": []})),
            ],
            (Some("tools/call"), _) => {
                let token = &message["params"]["_meta"]["progressToken"];
                let progress = json!({"progressToken": token, "progress": 1});
                let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress});
                let result = answer(json!({"content": [{"type": "text", "text": message["params"]["arguments"]["say"]}]}));
                if token.is_null() { vec![result] } else { vec![progress, result] }
            }
            (Some(method), _) if message.get("id").is_some() => {
                let error = json!({"code": -32601, "message": format!("no {method}")});
                vec![json!({"jsonrpc": "2.0", "id": message["id"], "error": error})]
            }
            (Some(_), _) => vec![],
            (None, _) => asking.answered(&message),
        };
        said.into_iter().for_each(|said| say.send(said).unwrap_or_default());
    }
}

/// Calls of `search_ask` that wait for their client: `ask` lists what is asked, one after the other, or several things at once as a list.
#[derive(Default)]
struct Asking {
    calls: Vec<Waiting>,
    last: usize,
}

struct Waiting {
    call: Value,
    left: Vec<Value>,
    open: Vec<String>,
    answers: Vec<String>,
}

impl Asking {
    fn begin(&mut self, message: &Value) -> Vec<Value> {
        let mut left = match &message["params"]["arguments"]["ask"] {
            Value::Array(rounds) => rounds.clone(),
            _ => vec![json!("elicitation/create")],
        };
        left.reverse();
        self.calls.push(Waiting { call: message["id"].clone(), left, open: Vec::new(), answers: Vec::new() });
        self.ask(self.calls.len() - 1)
    }

    /// The next round of a call's questions; its answer after the last one.
    fn ask(&mut self, place: usize) -> Vec<Value> {
        let Some(round) = self.calls[place].left.pop() else {
            let Waiting { call, answers, .. } = self.calls.remove(place);
            let content = json!([{"type": "text", "text": answers.join(",")}]);
            return vec![json!({"jsonrpc": "2.0", "id": call, "result": {"content": content}})];
        };
        let methods = round.as_array().cloned().unwrap_or_else(|| vec![round]);
        let mut said = Vec::new();
        for method in methods {
            self.last += 1;
            let id = format!("ask-{}", self.last);
            let params = match method.as_str().unwrap() {
                "elicitation/create" => json!({"message": "name?", "requestedSchema": {"type": "object", "properties": {}}}),
                "sampling/createMessage" => json!({"messages": [], "maxTokens": 7}),
                _ => json!({}),
            };
            said.push(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
            self.calls[place].open.push(id);
        }
        said
    }

    fn answered(&mut self, message: &Value) -> Vec<Value> {
        let id = message["id"].as_str().unwrap_or_default();
        let Some(place) = self.calls.iter().position(|call| call.open.iter().any(|open| open == id)) else { return vec![] };
        let call = &mut self.calls[place];
        call.open.retain(|open| open != id);
        let said = &message["result"]["content"]["name"];
        call.answers.push(said.as_str().map_or_else(|| message["error"]["code"].to_string(), str::to_owned));
        if call.open.is_empty() { self.ask(place) } else { vec![] }
    }
}
