//! Clients that call without a pause and write down what they saw, whatever becomes of the node meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcpgw_tests::fleet::Call;
use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

/// A tool that answers at once.
pub const PLAIN: &str = "tool_0";
/// A tool that streams progress before it answers.
pub const STREAMED: &str = "slow";
/// Before a client tries again that found nobody.
const AGAIN: Duration = Duration::from_millis(5);

/// One that calls one server with one key.
#[derive(Clone)]
pub struct Client {
    http: Hyper<HttpConnector, Full<Bytes>>,
    url: String,
    key: String,
}

/// What clients saw, as it happens.
#[derive(Debug)]
pub enum Seen {
    /// The head of a refusal with this status.
    Refused(StatusCode),
    /// The head of an answer to this request.
    Head(String),
    /// The first event of a stream.
    Event(String),
    /// The last byte.
    Whole(String),
    /// The connection broke before that.
    Broke(String),
}

/// Clients at work, and everything that they saw.
pub struct Traffic {
    _clients: JoinSet<()>,
    seen: UnboundedReceiver<Seen>,
    /// Requests whose answer came whole.
    pub whole: BTreeSet<String>,
    /// Requests whose answer broke off after its head.
    pub broken: BTreeSet<String>,
    /// Streams that have begun and not ended.
    pub streaming: BTreeSet<String>,
    /// Refusals for want of a record: 503.
    pub refused: usize,
}

impl Client {
    pub fn new(url: String, key: String) -> Self {
        Self { http: Hyper::builder(TokioExecutor::new()).build_http(), url, key }
    }

    /// One call; nothing is seen of one that found nobody.
    pub async fn call(&self, tool: &str, seen: &UnboundedSender<Seen>) {
        let arguments = if tool == STREAMED { json!({ "ms": 40, "steps": 4 }) } else { json!({}) };
        let params = json!({ "name": tool, "arguments": arguments });
        let Call { url, method, headers, body } = Call::modern(&self.url, &self.key, "tools/call", Some(tool), params);
        // Progress is only sent to who asks for it.
        let body = String::from_utf8(body.to_vec()).unwrap().replacen(r#""_meta":{"#, r#""_meta":{"progressToken":"p","#, 1);
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let Ok(answer) = self.http.request(request.body(Full::new(Bytes::from(body))).unwrap()).await else {
            return tokio::time::sleep(AGAIN).await;
        };
        let tell = |what| drop(seen.send(what)); // nobody listens any more when the test is over
        if answer.status() != StatusCode::OK {
            return tell(Seen::Refused(answer.status()));
        }
        let id = answer.headers()["mcpgw-request-id"].to_str().unwrap().to_owned();
        let streamed = answer.headers()["content-type"] == "text/event-stream";
        tell(Seen::Head(id.clone()));
        let mut body = answer.into_body();
        let mut first = streamed;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(_) if std::mem::take(&mut first) => tell(Seen::Event(id.clone())),
                Ok(_) => {}
                Err(_broke) => return tell(Seen::Broke(id)),
            }
        }
        tell(Seen::Whole(id));
    }
}

impl Traffic {
    /// So many clients of each kind, until it is dropped.
    pub fn start(client: &Client, plain: usize, streamed: usize) -> Self {
        let (seen, receiver) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        let tools = std::iter::repeat_n(PLAIN, plain).chain(std::iter::repeat_n(STREAMED, streamed));
        for tool in tools {
            let (client, seen) = (client.clone(), seen.clone());
            clients.spawn(async move {
                while !seen.is_closed() {
                    client.call(tool, &seen).await;
                }
            });
        }
        let (whole, broken, streaming) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { _clients: clients, seen: receiver, whole, broken, streaming, refused: 0 }
    }

    /// Watches until `enough` says so.
    pub async fn until(&mut self, mut enough: impl FnMut(&Self) -> bool) {
        while !enough(self) {
            let seen = tokio::time::timeout(super::PATIENCE, self.seen.recv()).await.expect("clients see something");
            self.note(seen.expect("clients run until the test is over"));
        }
    }

    /// Stops the clients where they are, and takes note of what they saw until then.
    pub async fn stop(mut self) -> Self {
        self._clients.shutdown().await;
        while let Ok(seen) = self.seen.try_recv() {
            self.note(seen);
        }
        // Whose head arrived and whose end nobody waited for.
        self.broken.append(&mut self.streaming);
        self
    }

    fn note(&mut self, seen: Seen) {
        match seen {
            Seen::Refused(StatusCode::SERVICE_UNAVAILABLE) => self.refused += 1,
            Seen::Refused(status) => panic!("a call was refused with {status}"),
            // Until more is known; every answer that began has to be on record.
            Seen::Head(id) => drop(self.broken.insert(id)),
            Seen::Event(id) => drop(self.streaming.insert(id)),
            Seen::Whole(id) => {
                self.streaming.remove(&id);
                self.broken.remove(&id);
                self.whole.insert(id);
            }
            Seen::Broke(id) => {
                self.streaming.remove(&id);
                self.broken.insert(id);
            }
        }
    }
}
