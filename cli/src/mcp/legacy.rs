//! The legacy era, up to 2025-11-25: the initialize handshake, a session id, and a goodbye.
//! Answers what servers ask with a refusal, because nobody is there to be asked. Used by `mcp::Client`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

use super::answer::{self, Read, spoken};
use super::error::Error;
use super::http::{Http, header};
use super::{Answer, client_info};

const NEWEST: &str = "2025-11-25";
/// Goodbyes are a courtesy.
const GOODBYE: Duration = Duration::from_secs(5);
/// How often a stream that ends early is taken up again.
const RESUMPTIONS: usize = 10;
/// Waited before that, unless the server says how long.
const RESUME_AFTER: Duration = Duration::from_millis(500);

/// What the handshake agreed on.
pub struct Session {
    id: Option<String>,
    version: String,
}

impl Session {
    /// Shakes hands.
    pub async fn start(http: &Http) -> Result<Self, Error> {
        let mut session = Self { id: None, version: String::new() };
        let params = json!({ "protocolVersion": NEWEST, "capabilities": {}, "clientInfo": client_info() });
        let id = http.next_id();
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": "initialize", "params": params });
        let result = http
            .within(async {
                let response = http.post(HeaderMap::new(), &message).await?;
                let given = response.headers().get("mcp-session-id").and_then(|it| it.to_str().ok());
                session.id = given.map(str::to_owned);
                match answer::read(response, id, async |_| Ok(())).await? {
                    Read::Result(result) => Ok(result),
                    Read::Ended { .. } => Err(Error::BrokeOff("no answer to initialize".into())),
                }
            })
            .await?;
        let version = result["protocolVersion"].as_str();
        let version = version.ok_or_else(|| Error::Nonsense("the answer to initialize names no version".into()))?;
        session.version = version.to_owned();
        session.notify(http, json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        Ok(session)
    }

    /// One request and its result.
    pub async fn request(&self, http: &Http, method: &str, mut params: Map<String, Value>) -> Result<Answer, Error> {
        let id = http.next_id();
        params.insert("_meta".into(), json!({ "progressToken": id }));
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        http.within(async {
            let mut response = http.post(self.headers()?, &message).await?;
            let request_id = answer::request_id(&response);
            let mut seen = None;
            for _ in 0..=RESUMPTIONS {
                let other = async |message: Value| self.hear(http, message).await;
                let (last_event_id, retry) = match answer::read(response, id, other).await? {
                    Read::Result(result) => return Ok(Answer { result, request_id }),
                    Read::Ended { last_event_id, retry } => (last_event_id, retry),
                };
                // A stream may be cut again before it brought anything new.
                seen = last_event_id.or(seen);
                let Some(last) = &seen else { break };
                tokio::time::sleep(retry.unwrap_or(RESUME_AFTER)).await;
                let mut headers = self.headers()?;
                header(&mut headers, "last-event-id", last)?;
                response = http.send(Method::GET, headers, Bytes::new()).await?;
            }
            Err(Error::BrokeOff("the stream ended without a response".into()))
        })
        .await
    }

    /// Ends the session.
    pub async fn end(self, http: &Http) {
        if self.id.is_none() {
            return;
        }
        if let Ok(headers) = self.headers() {
            let _ = tokio::time::timeout(GOODBYE, http.send(Method::DELETE, headers, Bytes::new())).await;
        }
    }

    async fn hear(&self, http: &Http, message: Value) -> Result<(), Error> {
        let method = message["method"].as_str().unwrap_or_default();
        let Some(id) = message.get("id") else {
            spoken(&message).iter().for_each(|said| http.tell(said));
            return Ok(());
        };
        let reply = if method == "ping" {
            json!({ "jsonrpc": "2.0", "id": id, "result": {} })
        } else {
            let said = message["params"]["message"].as_str().unwrap_or_default();
            http.tell(format!("the server asks for {method}, which this client cannot give: {said}").trim_end_matches(": "));
            let error = json!({ "code": -32601, "message": format!("mcpgw does not answer {method}") });
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        };
        self.notify(http, reply).await
    }

    /// Sends what has no answer.
    async fn notify(&self, http: &Http, message: Value) -> Result<(), Error> {
        let response = http.within(http.post(self.headers()?, &message)).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let request_id = answer::request_id(&response);
        Err(answer::refused(response, request_id).await)
    }

    fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        header(&mut headers, "mcp-protocol-version", &self.version)?;
        if let Some(id) = &self.id {
            header(&mut headers, "mcp-session-id", id)?;
        }
        Ok(headers)
    }
}
